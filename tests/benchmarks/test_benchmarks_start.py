"""Every script of benchmarks/ can be imported and prints its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py")
    if path.stem not in ("measuring", "model_data")
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(
    benchmark: Callable[[str], ModuleType],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        benchmark(name).main()
    assert stopped.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out


def test_the_processor_is_named(benchmark: Callable[[str], ModuleType]) -> None:
    assert benchmark("measuring").processor()
