"""What the integration tests share: the command line, called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from hilum.cli import app

if TYPE_CHECKING:
    from hilum.training.prepare import PreparedData


@pytest.fixture(scope="session")
def hilum() -> Callable[..., str]:
    """`hilum(*arguments, code=0)`: what a command prints; it must end with `code` and without a traceback."""

    def call(*arguments: str | Path, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    return call


@pytest.fixture(scope="session")
def prepared(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """`phantoms` indexed, split and decoded for the settings of training_setup."""
    from training_setup import make_config

    from hilum.run_folder import RunFolder
    from hilum.training.prepare import prepare

    return prepare(make_config(phantoms), RunFolder(tmp_path_factory.mktemp("prepared")))
