"""What a session does with its images: which is chosen, what is kept ready, and that one fault stops nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from hilum.inference.predictor import Predictor, Source, Upload
from hilum.inference.result import Result
from hilum.service.page import session as module
from hilum.service.page.films import Films
from hilum.service.page.gallery import specimens
from hilum.service.page.session import Session
from hilum.service.page.settings import PageSettings


@pytest.fixture
def session() -> Session:
    made = Session(PageSettings(), Films(1 << 30))
    made.take_specimens(range(4))
    return made


def names(session: Session) -> list[str]:
    return [film.name for film in session.films.shown(session.filter, session.order)]


def test_the_first_film_is_chosen_and_a_neighbor_follows_one_that_is_removed(session: Session) -> None:
    keys = [film.key for film in session.films]
    assert session.chosen == keys[0]
    session.choose(keys[2])
    session.evidence_class = "COVID"
    session.remove(keys[2])
    assert (session.chosen, session.evidence_class) == (keys[3], None)
    session.remove(keys[3])
    assert session.chosen == keys[1]
    session.choose("no such image")
    assert session.chosen == keys[1]
    session.clear()
    assert session.film is None
    assert len(session.films) == 0


def test_films_that_are_there_already_are_counted(session: Session) -> None:
    assert session.add([("x.png", specimens()[0].content), ("y.png", b"new")]) == 1
    assert len(session.films) == 5


def test_answers_come_in_batches_until_none_waits(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    assert session.answer_some()
    assert len(session.films.waiting()) == 1
    assert session.answer_some()
    assert not session.answer_some()


def test_a_fault_in_one_film_is_its_row_and_stops_no_other(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Predictor.predict_many
    bad = session.films.waiting()[1].name

    def faulty(self: Predictor, sources: Iterable[Source]) -> Iterator[Result]:
        for source in sources:
            if isinstance(source, Upload) and source.name == bad:
                raise ZeroDivisionError("Mustermann")
            yield from whole(self, [source])

    monkeypatch.setattr(Predictor, "predict_many", faulty)
    session.answer_some()
    assert [film.status for film in session.films] == ["ok", "unreadable", "unsure", "unsure"]
    fault = list(session.films)[1].result
    assert fault is not None
    assert "ZeroDivisionError" in fault.findings[0].message
    assert "test_page_session.py:" in caplog.text
    assert "Mustermann" not in caplog.text


def test_only_a_few_views_are_kept_and_the_next_is_ready(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_VIEWS", 2)
    session.answer_some()
    films = list(session.films)
    session.view(films[0])
    session.look_ahead()
    assert list(session._views) == [films[0].key, films[1].key]
    session.view(films[0])
    session.view(films[2])
    assert list(session._views) == [films[0].key, films[2].key]
    session.choose(films[3].key)
    session.look_ahead()  # the last of the list has no next
    assert list(session._views) == [films[0].key, films[2].key]
