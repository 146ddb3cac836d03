"""The script that Streamlit runs for every event of a session; its one argument is a PageSettings as JSON."""

from __future__ import annotations

import sys


def main() -> None:
    """Draw the page."""
    from hilum.service.page.session import Session
    from hilum.service.page.settings import PageSettings
    from hilum.service.page.shell import show

    show(Session.of(PageSettings.model_validate_json(sys.argv[1])))


if __name__ == "__main__":
    main()
