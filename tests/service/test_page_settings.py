"""How the page is started: settings, Streamlit's options, documents; what is wrong is told before it serves."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path

import pytest
from report_writing import audit_report
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.errors import DataError
from hilum.inference.legend import OUTLINE
from hilum.service.page.documents import card_on_data, card_part, model_card, read_audit, told_findings
from hilum.service.page.forgetting import FORGET_AFTER, Forgetting
from hilum.service.page.run import keep_uploads_in_memory, streamlit_options
from hilum.service.page.settings import PageSettings, open_predictor
from hilum.service.page.style import page_css, theme_options


def test_settings_pass_as_json() -> None:
    settings = PageSettings(gate="classic", port=0, audit=Path("audit"), max_upload=3)
    assert PageSettings.model_validate_json(settings.model_dump_json()) == settings


def test_the_predictor_is_opened_once_whatever_the_port() -> None:
    assert open_predictor(PageSettings(port=1)) is open_predictor(PageSettings(port=2))


def test_streamlit_reports_nothing_and_is_dark_and_bound() -> None:
    from streamlit import config

    options = streamlit_options(PageSettings(port=1234, max_upload=7))
    known = {name.replace(".", "_") for name in config._config_options_template}
    assert set(options) <= known
    assert options["browser_gatherUsageStats"] is False
    assert options["server_enableXsrfProtection"] is True
    assert options["server_maxUploadSize"] == 7
    assert options["server_address"] == "127.0.0.1"
    assert "127.0.0.1" in options["server_allowedHosts"]
    assert streamlit_options(PageSettings(host="0.0.0.0"))["server_allowedHosts"] == []
    assert options["theme_base"] == "dark"


def test_colors_of_the_page_are_those_of_the_overlay() -> None:
    color = "#{:02x}{:02x}{:02x}".format(*OUTLINE)
    assert theme_options()["theme_primaryColor"] == color
    assert f"--h-outline:{color};" in page_css()
    assert "http" not in page_css()


def test_an_upload_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette by itself writes what is larger than a megabyte to a temporary file."""
    monkeypatch.setattr(MultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"1" * 3_000_000 + b"\r\n--x--\r\n"
    )

    async def is_in_memory() -> bool:
        async def stream() -> object:
            yield body

        parser = MultiPartParser(Headers({"content-type": "multipart/form-data; boundary=x"}), stream())  # type: ignore[arg-type]
        form = await parser.parse()
        upload = form["f"]
        in_memory = not upload.file._rolled  # type: ignore[union-attr]
        await form.close()
        return in_memory

    assert not asyncio.run(is_in_memory())
    keep_uploads_in_memory(PageSettings(max_upload=5))
    assert asyncio.run(is_in_memory())


def test_an_audit_is_read_from_its_folder_or_its_file(tmp_path: Path) -> None:
    report = audit_report()
    (tmp_path / "audit.json").write_text(report.model_dump_json(), encoding="utf-8")
    assert read_audit(tmp_path) == report == read_audit(tmp_path / "audit.json")
    told = told_findings(report)
    assert told
    assert not [finding for finding in told if finding.is_probe_note]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "hilum-audit-2"}', "not json"])
def test_what_is_no_audit_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(DataError, match=r"audit\.json"):
        read_audit(tmp_path)


def test_the_card_says_what_an_audit_would() -> None:
    card = model_card(load_bundle(resolve_bundle(DEFAULT)))
    parts = dict(card_on_data(card))
    assert "| COVID, Normal |" in parts["Confounding"]
    assert "18,213" in parts["Training and evaluation data"]
    assert parts["Limitations"]
    assert card_part("# a\n\n## b\n\ntext\n\n## c\n", "b") == "text"
    assert card_part(card, "Nothing of the kind") == ""


def test_the_scripts_ask_for_nothing_from_elsewhere() -> None:
    assets = Path(__file__).resolve().parents[2] / "src" / "hilum" / "service" / "page" / "assets"
    texts = [path.read_text(encoding="utf-8") for path in assets.iterdir()]
    assert len(texts) >= 8
    for text in texts:
        for word in (
            "http:",
            "https:",
            "//cdn",
            "fetch(",
            "XMLHttpRequest",
            "import(",
            "@import",
            "url(",
            "innerHTML",
            "eval(",
        ):
            assert word not in text


class Remembering:
    """Counts how often it had to forget."""

    def __init__(self) -> None:
        self.forgot = 0

    def clear(self) -> None:
        self.forgot += 1


def test_a_session_forgets_its_films_once_its_browser_is_gone_for_good() -> None:
    forgetting, here, gone = Forgetting(), Remembering(), Remembering()
    forgetting.enter("here", here, now=0)
    forgetting.enter("gone", gone, now=0)
    forgetting.sweep(lambda name: True, now=100)
    forgetting.sweep(lambda name: name == "here", now=100 + FORGET_AFTER - 1)
    assert (here.forgot, gone.forgot) == (0, 0)
    forgetting.sweep(lambda name: name == "here", now=100 + FORGET_AFTER)
    forgetting.sweep(lambda name: name == "here", now=1000)
    assert (here.forgot, gone.forgot) == (0, 1)


def test_what_waits_to_be_forgotten_is_not_kept_alive_by_it() -> None:
    forgetting, session = Forgetting(), Remembering()
    forgetting.enter("x", session, now=0)
    weak = weakref.ref(session)
    del session
    assert weak() is None
    forgetting.sweep(lambda name: False, now=1000)
