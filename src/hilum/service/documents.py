"""Read the audit report that the service shows beside the model card."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hilum.audit.report import AuditReport
from hilum.audit.run import REPORT_FILE
from hilum.errors import DataError


def read_audit(path: Path) -> AuditReport:
    """Return an audit report.

    Args:
        path: ``audit.json``, or the folder that ``hilum audit`` wrote it into.

    Raises:
        DataError: The file cannot be read, or is not an audit report.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        return AuditReport.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(
            f"Cannot read the audit report '{file}': {error.strerror or error}.", hint="hilum audit DATA writes one."
        ) from error
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"'{file}' is not an audit report: {reason}.", hint="Write it again with this version of hilum."
        ) from error
