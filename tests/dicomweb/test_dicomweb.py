"""The parts of ``hilum dicomweb`` that need no archive: addresses, dates, selection, the log, the rounds."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hilum.dicomweb.address import address_of
from hilum.dicomweb.selection import (
    Image,
    Item,
    Skip,
    Study,
    first_day,
    is_uid,
    value,
    why_not_instance,
    why_not_series,
)
from hilum.dicomweb.server import Server
from hilum.dicomweb.table import COLUMNS, Log
from hilum.dicomweb.work import IN_A_ROW, Counts, Row, ToDo, Worker
from hilum.errors import ConfigError, OutputError, ReadError, RequestError, ServerError
from hilum.inference.dicom_names import Kind, instance_uid
from hilum.inference.predictor import Predictor
from hilum.inference.result import Prediction
from hilum.types import Radiograph

NOON = datetime(2026, 11, 25, 12, 0)
TOKEN = {"HILUM_DICOMWEB_TOKEN": "t0ken"}
LOGIN = {"HILUM_DICOMWEB_USER": "hilum", "HILUM_DICOMWEB_PASSWORD": "s:ecret"}


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-11-01", date(2026, 11, 1)),
        ("7d", date(2026, 11, 18)),
        ("2W", date(2026, 11, 11)),
        ("24h", date(2026, 11, 24)),
        ("1h", date(2026, 11, 25)),
        ("0d", date(2026, 11, 25)),
    ],
)
def test_since_is_a_day(since: str, expected: date) -> None:
    assert first_day(since, NOON) == expected


@pytest.mark.parametrize("since", ["", "yesterday", "7", "-1d", "7 d", "2026-13-01", "99999999999d", "2026-11-26"])
def test_since_that_is_none(since: str) -> None:
    with pytest.raises(ConfigError, match="--since"):
        first_day(since, NOON)


@pytest.mark.parametrize("url", ["https://pacs.example/dicom-web/", "http://127.0.0.1:8042/a", "http://localhost/a"])
@pytest.mark.parametrize("environment", [{}, TOKEN, LOGIN])
def test_addresses(url: str, environment: dict[str, str]) -> None:
    address = address_of(url, environment)
    assert address.url == url.rstrip("/")
    assert address.token == environment.get("HILUM_DICOMWEB_TOKEN")
    assert address.login == (("hilum", "s:ecret") if environment is LOGIN else None)
    assert "ecret" not in repr(address)
    assert "t0ken" not in repr(address)


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [
        ("pacs.example/dicom-web", {}, "not the URL"),
        ("ftp://pacs.example", {}, "not the URL"),
        ("http://", {}, "not the URL"),
        ("http://[::1", {}, "not the URL"),
        ("https://pacs.example:99999/", {}, "not the URL"),
        ("https://pacs.example/?patient=1", {}, "not the URL"),
        ("https://hilum:s3cret@pacs.example/", {}, "contains credentials"),
        ("https://pacs.example", {**TOKEN, **LOGIN}, "exclude each other"),
        ("https://pacs.example", {"HILUM_DICOMWEB_USER": "hilum"}, "Only one of"),
        ("https://pacs.example", {**LOGIN, "HILUM_DICOMWEB_USER": "a:b"}, "colon"),
        ("http://pacs.example", {}, "unencrypted"),
        ("http://10.0.0.7/dicom-web", TOKEN, "unencrypted"),
    ],
)
def test_addresses_that_are_refused(url: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        address_of(url, environment)
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_http_to_another_machine_has_to_be_meant() -> None:
    assert address_of("http://orthanc:8042/dicom-web", LOGIN, plain_http=True).url == "http://orthanc:8042/dicom-web"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.2.840", True), ("1.02", True), ("", False), ("1..2", False), ("1.2/../3", False), ("1." * 32 + "11", False)],
)
def test_uids(text: str, expected: bool) -> None:
    assert is_uid(text) is expected


def item(**elements: str) -> Item:
    tags = {"modality": "00080060", "part": "00180015", "kind": "00080016", "uid": "00080018", "series": "0020000E"}
    tags |= {"study": "0020000D", "count": "00201209"}
    return {tags[name]: {"vr": "LO", "Value": [text]} for name, text in elements.items()}


@pytest.mark.parametrize("odd", [{}, {"00080060": None}, {"00080060": {"vr": "CS"}}, {"00080060": {"Value": [None]}}])
def test_a_value_that_is_not_there(odd: Item) -> None:
    assert value(odd, "00080060") == ""


@pytest.mark.parametrize("part", ["", "CHEST", "Chest PA", "THORAX", "CHESTABDOMEN"])
def test_chest_series(part: str) -> None:
    assert why_not_series(item(part=part)) is None


def test_series_of_other_parts_count_their_images() -> None:
    assert why_not_series(item(part="HAND", count="3")) == Skip("another body part", 3)
    assert why_not_series(item(part="SPINE")) == Skip("another body part", 1)


def test_instances_by_class() -> None:
    kind = "1.2.840.10008.5.1.4.1.1.1"
    taken = [why_not_instance(item(kind=each)) for each in (kind, f"{kind}.1", "")]
    assert taken == [None, None, None]
    assert why_not_instance(item(kind=f"{kind}.1.1")) == Skip("for processing, not for presentation")
    assert why_not_instance(item(kind="1.2.840.10008.5.1.4.1.1.7")) == Skip("not a CR or DX image")


def test_the_log_grows_over_runs_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.csv"
    Log(path, "b" * 64).write(Row(Image("1.1", "1.2", "1.3"), "ok", "", "Normal", 0.5, ("seg", "sr")))
    with path.open("ab") as stream:
        stream.write(b"2026-11-25T12:00:00+00:00,bbbb,1.1,1")  # a run killed here
    Log(path, "c" * 64).write(Row(Image("1.1", "1.2", "1.4"), "refused", '=a, "b"\nc'))
    first, _, last = csv.DictReader(path.read_text(encoding="utf-8").splitlines(keepends=True))
    assert tuple(first) == COLUMNS
    assert (first["instance"], first["predicted_label"], first["probability"]) == ("1.3", "Normal", "0.500000")
    assert (last["bundle"], last["instance"], last["reason"]) == ("c" * 64, "1.4", '\'=a, "b"\nc')
    assert (first["stored"], last["stored"]) == ("seg sr", "")
    assert datetime.fromisoformat(last["time"]).tzinfo is not None


def test_another_file_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("image,mask\n")
    earlier = tmp_path / "earlier.csv"
    earlier.write_text(",".join(COLUMNS[:-1]) + "\r\n")
    with pytest.raises(OutputError, match="not a log"):
        Log(earlier, "b")
    with pytest.raises(OutputError, match="not a log"):
        Log(path, "b")
    assert path.read_text() == "image,mask\n"
    with pytest.raises(OutputError, match="Cannot write"):
        Log(tmp_path, "b")


class Archive:
    """A server of the test's own: some images of one series, of which some cannot be fetched."""

    def __init__(self, images: Sequence[str], bad: Sequence[str] = ()) -> None:
        self.images, self.bad, self.fetched = images, bad, list[str]()

    def series(self, study: str, fields: Sequence[str] = ()) -> Iterator[Item]:
        yield item(modality="DX", series="1.2")

    def instances(self, study: str, series: str) -> Iterator[Item]:
        yield from (item(uid=image) for image in self.images)

    def fetch(self, image: Image) -> bytes:
        self.fetched.append(image.instance)
        if image.instance in self.bad:
            raise RequestError("got 500.")
        return b"no image"


def worker(archive: Archive, **settings: Any) -> Worker:
    predictor = SimpleNamespace(manifest=SimpleNamespace(bundle_id="b" * 64), settings="", predict=lambda upload: None)
    return Worker(cast(Server, archive), cast(Predictor, predictor), **settings)


def test_a_server_that_only_fails_ends_the_run() -> None:
    images = [f"1.2.{number}" for number in range(20)]
    archive, counts = Archive(images, bad=images), Counts()
    rows: list[Row] = []
    with pytest.raises(ServerError, match=r"5 consecutive images failed.*got 500\."):
        rows.extend(worker(archive).work([Study("1")], counts))
    assert archive.fetched == images[:IN_A_ROW]
    assert counts.statuses["failed"] == IN_A_ROW


def test_an_image_that_keeps_failing_is_left_alone() -> None:
    archive = Archive(["1.2.3"], bad=["1.2.3"])
    busy = worker(archive)
    for _ in range(3):
        assert [row.status for row in busy.work([Study("1")], Counts())] == ["failed"]
    counts = Counts()
    assert not list(busy.work([Study("1")], counts))
    assert counts.skipped == {"failed 3 times": 1}


def test_what_is_no_uid_goes_into_no_path() -> None:
    archive, counts = Archive(["../../../etc", "1.2.3"]), Counts()
    assert list(worker(archive).to_do([Study("1", "20260131")], counts)) == [ToDo(Study("1", "20260131"), 1)]
    assert counts.skipped == {"invalid UID": 1}


def test_an_image_that_is_no_dicom_fails() -> None:
    (row,) = worker(Archive(["1.2.3"])).work([Study("1")], Counts())
    assert row.status == "failed"
    assert "1.2.3.dcm" in row.reason


@pytest.mark.parametrize("sent", ["1.2.3", "1.2.4"])
def test_the_report_comes_last_and_only_for_the_image_asked_for(monkeypatch: pytest.MonkeyPatch, sent: str) -> None:
    answer = Prediction(
        origin="",
        radiograph=Radiograph(np.zeros((2, 2), np.uint8)),
        class_names=("A", "B"),
        probabilities={"A": 0.25, "B": 0.75},
        label="B",
        prediction_set=("B",),
        abstained=False,
        mask=np.zeros((2, 2), bool),
        lung_fraction=0.0,
        bundle_id="b",
    )
    header = SimpleNamespace(StudyInstanceUID="1", SOPInstanceUID=sent)
    made_by_name = {"segmentation": "seg", "capture": "sc", "presentation": "pr", "report": "sr"}
    archive, stored = Archive(["1.2.3"]), list[list[str]]()
    monkeypatch.setattr(archive, "store", lambda study, objects: stored.append(objects), raising=False)
    monkeypatch.setattr("hilum.dicomweb.work.source_header", lambda *words, **more: header)
    for function, made in made_by_name.items():
        monkeypatch.setattr(f"hilum.inference.dicom_out.{function}", lambda *words, made=made: made)
    monkeypatch.setattr("hilum.inference.dicom_out.is_gray", lambda header: True)
    busy = worker(archive, more=("sc", "pr"))
    monkeypatch.setattr(busy._predictor, "predict", lambda upload: answer)
    (row,) = busy.work([Study("1")], Counts())
    if sent == "1.2.3":
        assert stored == [["seg", "sc", "pr", "sr"]]
        assert row == Row(Image("1", "1.2", "1.2.3"), "ok", "", "B", 0.75, ("seg", "sc", "pr", "sr"))
    else:
        assert stored == []
        assert (row.status, row.reason) == ("failed", "The server returned another image instead of 1.2.3.")


def test_what_a_decoder_quotes_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = worker(Archive(["1.2.3"]))
    said = "Cannot decode 1.2.3.dcm (ValueError: (10) 'Mustermann^E')."
    monkeypatch.setattr(busy, "_objects", lambda *arguments: (_ for _ in ()).throw(ReadError(said, hint="Again.")))
    (row,) = busy.work([Study("1")], Counts())
    assert row.reason == "Cannot decode 1.2.3.dcm (ValueError)."


def test_stopping_and_limits() -> None:
    images = [f"1.2.{number}" for number in range(9)]
    archive, studies, counts = Archive(images, bad=images), [Study("1", "20260131"), Study("2", "20260131")], Counts()
    assert list(worker(archive).to_do(studies, counts, limit=10)) == [ToDo(studies[0], 9), ToDo(studies[1], 1)]
    assert counts.statuses == {"to do": 10}
    assert archive.fetched == []
    assert len(list(worker(archive).work(studies, Counts(), limit=3))) == 3
    rows: list[Row] = []
    for row in worker(archive).work(studies, Counts(), stopped=lambda: len(rows) == 2):
        rows.append(row)
    assert len(rows) == 2


def test_a_study_named_without_its_date_gets_it_from_the_archive() -> None:
    archive = Archive(["1.2.3"])
    found = {**item(study="1"), "00080020": {"vr": "DA", "Value": ["20251224"]}}
    archive.studies = lambda filters: iter([found])  # type: ignore[attr-defined]
    assert list(worker(archive).to_do([Study("1")], Counts())) == [ToDo(Study("1", "20251224"), 1)]


@pytest.mark.parametrize(
    ("stored", "more", "is_done"),
    [
        (("seg", "sr"), (), True),
        (("seg",), (), False),
        (("seg", "sr"), ("sc",), False),
        (("seg", "sc", "sr"), ("sc",), True),
        (("seg", "sc", "sr"), ("sc", "pr"), False),
        (("sr",), ("sc", "pr"), True),  # a refused image
    ],
)
def test_an_image_is_done_when_all_it_can_have_is_stored(
    stored: Sequence[Kind], more: Sequence[Kind], is_done: bool
) -> None:
    archive = Archive(["1.2.3"])
    known = {instance_uid("1.2.3", "b" * 64, kind) for kind in stored}
    archive.has = lambda study, uid: uid in known  # type: ignore[attr-defined]
    series = list(archive.series("1"))
    archive.series = lambda study, fields=(): iter([*series, item(modality="SR", series="1.9")])  # type: ignore[method-assign]
    counts = Counts()
    assert bool(list(worker(archive, more=more).to_do([Study("1", "20260131")], counts))) is not is_done
    assert counts.skipped == ({"done before": 1} if is_done else {})


def test_stopping_among_images_that_are_done() -> None:
    archive, counts = Archive([f"1.2.{number}" for number in range(9)]), Counts()
    listing = worker(archive)
    listing._failures.update(dict.fromkeys(archive.images, 3))  # left alone, as those that are done are
    studies = [Study(uid, "20260131") for uid in ("1", "2", "3")]
    assert not list(listing.work(studies, counts, stopped=lambda: counts.skipped.total() >= 4))
    assert counts.skipped.total() == 4
