"""Starts Streamlit on the page's script, in this process, once everything that can be wrong has been looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hilum.service.address import LOOPBACK, bind, url_of
from hilum.service.page.documents import read_audit
from hilum.service.page.forgetting import FORGET_AFTER, FORGETTING
from hilum.service.page.settings import PageSettings, open_predictor
from hilum.service.page.style import theme_options

_SCRIPT = Path(__file__).with_name("main.py")


def run(settings: PageSettings, announce: Callable[[str], None] = lambda address: None) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        settings: of the page; port 0 takes a free one.
        announce: is told the address.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the audit report cannot be read.
        ConfigError: the address cannot be bound.
    """
    from streamlit.web import bootstrap

    open_predictor(settings)
    if settings.audit is not None:
        read_audit(settings.audit)
    with bind(settings.host, settings.port) as bound:  # Streamlit itself would end without a reason
        settings = settings.model_copy(update={"port": bound.getsockname()[1]})
    options = streamlit_options(settings)
    bootstrap.load_config_options(options)
    keep_uploads_in_memory(settings)
    FORGETTING.start()
    announce(url_of(settings.host, settings.port))
    bootstrap.run(str(_SCRIPT), False, [settings.model_dump_json()], options)


def streamlit_options(settings: PageSettings) -> dict[str, Any]:
    """Streamlit's settings by their flag names; they overrule any file in the user's home.

    Nothing is reported to anyone, nothing is watched, errors show no traceback in the browser.
    """
    return {
        "server_address": settings.host,
        "server_port": settings.port,
        "server_headless": True,
        "server_disconnectedSessionTTL": FORGET_AFTER,
        "server_allowedHosts": list(LOOPBACK) if settings.host in LOOPBACK else [],
        "server_maxUploadSize": settings.max_upload,
        "server_enableXsrfProtection": True,
        "server_enableCORS": True,
        "server_enableStaticServing": False,
        "server_fileWatcherType": "none",
        "server_runOnSave": False,
        "browser_gatherUsageStats": False,
        "client_toolbarMode": "minimal",
        "client_showErrorDetails": "none",
        "client_showErrorLinks": False,
        "logger_hideWelcomeMessage": True,
        "runner_magicEnabled": False,
        **theme_options(),
    }


def keep_uploads_in_memory(settings: PageSettings) -> None:
    """Have Starlette hold uploads in memory; beyond a megabyte it would write them to a temporary file."""
    from starlette.formparsers import MultiPartParser

    MultiPartParser.spool_max_size = settings.max_upload_bytes + (1 << 20)
