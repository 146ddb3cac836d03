"""Every script of benchmarks/ can be imported and prints its help."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
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


def test_a_result_is_named_by_the_processor(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = benchmark("measuring")
    monkeypatch.setattr(measuring, "processor_name", lambda: "AMD EPYC (family 25, model 17)")
    assert measuring.named_by_processor("engines") == "engines-amd-epyc-family-25-model-17"
    assert measuring.machine()["processor"] == "AMD EPYC (family 25, model 17)"


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("", ""),
        ("--json a.json --clients 64", ""),
        ("--images data --warm-seconds 0.5 --clients 8", " --images DIR --clients 8 --warm-seconds 0.5"),
        ("--bundle /tmp/run/bundle --cases index", " --bundle DIR --cases index"),
        ("--cases index predict,\\ CSV --seed 0", " --cases index 'predict, CSV'"),
    ],
)
def test_a_command_is_published_with_the_options_that_were_given(
    benchmark: Callable[[str], ModuleType], given: str, command: str
) -> None:
    parser = ArgumentParser(prog="soak.py")
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--warm-seconds", type=float, default=10)
    parser.add_argument("--cases", nargs="+", default=["index", "audit"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(shlex.split(given))
    assert benchmark("measuring").command_of(parser, arguments) == f"python benchmarks/soak.py{command}"
