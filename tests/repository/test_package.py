"""The rules of structure: what an import loads, the public names, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import hilum

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
SOURCES = sorted((SOURCE / "hilum").rglob("*.py"))

PUBLIC_NAMES = {
    "Bundle",
    "Config",
    "Finding",
    "HilumError",
    "Index",
    "Model",
    "Predictor",
    "PreprocessSpec",
    "Radiograph",
    "Record",
    "Result",
    "Run",
    "__version__",
    "audit_dataset",
    "build_index",
    "draw_phantom",
    "evaluate",
    "find_images",
    "load",
    "load_bundle",
    "load_config",
    "read_radiograph",
    "to_dataframe",
    "train",
}

# From the bottom; a package or module imports those before it, never one after it, so that no two import each other.
ORDER = (
    "types", "errors", "format", "storage", "arrays", "filesystems", "progress", "cpus", "onnx_session", "config",
    "document", "run_folder", "models", "phantoms", "imaging", "data", "gate", "bundle", "backends", "inference", "ray",
    "metrics", "training", "evaluation", "export", "gate_training", "audit", "dicomweb", "service", "pipeline", "seeds",
    "model", "verbs", "cli",
)  # fmt: skip
RANK = {part: rank for rank, part in enumerate(ORDER)}

TRAIN_ONLY = {
    "torch", "torchvision", "lightning", "monai", "kornia", "timm", "segmentation_models_pytorch", "sklearn",
    "matplotlib", "scipy", "onnx", "onnxscript", "safetensors", "tensorboard",
}  # fmt: skip
# The packages that may import the train extra when they are imported; everything else is lean.
TRAIN_PACKAGES = {"models", "training", "evaluation", "export", "gate_training", "pipeline", "seeds"}


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_train_part(module: str) -> bool:
    return _part(module) in TRAIN_PACKAGES


def _imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The full names of the modules that import statements name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: outside functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if guarded or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from _at_import(child)


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that can run at all: all but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from _at_run_time(child)


def _part(module: str) -> str | None:
    """`data` of `hilum.imaging.read`; None for `hilum` itself and for other packages."""
    names = module.split(".")
    return names[1] if names[0] == "hilum" and len(names) > 1 and names[1] != "_version" else None


MODULES = {_module(path) for path in SOURCES}
LEAN = [path for path in SOURCES if not _is_train_part(_module(path))]


def _fresh(code: str) -> str:
    """What `code` prints in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _by_module(path: Path) -> str:
    return _module(path)


def test_import_hilum_loads_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import hilum;"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(roots - set(sys.stdlib_module_names)))"
    )
    assert _fresh(code) == "['hilum']"


def test_lean_modules_import_where_the_train_extra_is_absent() -> None:
    modules = [_module(path) for path in LEAN if path.name != "__main__.py"]  # that one runs when imported
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({sorted(TRAIN_ONLY)}));"
        f"print(len([importlib.import_module(name) for name in {modules}]))"
    )
    assert int(_fresh(code)) == len(modules) > 20


@pytest.mark.parametrize("path", LEAN, ids=_by_module)
def test_lean_modules_name_nothing_of_the_train_extra(path: Path) -> None:
    named = set(_imports(_at_import(ast.parse(path.read_text(encoding="utf-8")))))
    assert not {name for name in named if name.partition(".")[0] in TRAIN_ONLY}
    assert not {name for name in named if _is_train_part(name)}


def test_public_names_are_pinned() -> None:
    assert set(hilum.__all__) == PUBLIC_NAMES
    assert len(hilum.__all__) == len(PUBLIC_NAMES)
    assert dir(hilum) == sorted(PUBLIC_NAMES)


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_public_names_resolve(name: str) -> None:
    value = getattr(hilum, name)
    assert name == "__version__" or value.__name__ == name
    assert name == "__version__" or value.__doc__


def test_no_public_name_is_a_submodule() -> None:
    """Importing `hilum.x` binds `x` in the package, over whatever `x` was."""
    assert not PUBLIC_NAMES & {path.stem for path in (SOURCE / "hilum").iterdir()}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'Radiogram'"):
        hilum.Radiogram  # noqa: B018


def test_version_is_the_installed_one() -> None:
    assert hilum.__version__ == metadata.version("hilum")


@pytest.mark.parametrize("path", SOURCES, ids=_by_module)
def test_imports_point_downwards_only(path: Path) -> None:
    part = _part(_module(path))
    imported = {_part(name) for name in _imports(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))} - {None}
    assert imported | {part} <= {*RANK, None}, "name the new part in ORDER"
    if part is not None:
        assert not {name for name in imported if RANK[name] > RANK[part]}


def test_no_modules_import_each_other() -> None:
    """Inside a package, too; an import for type checkers alone does not run."""
    graph = {
        _module(path): {
            module
            for name in _imports(_at_run_time(ast.parse(path.read_text(encoding="utf-8"))))
            for module in (name, name.rpartition(".")[0])
            if module in MODULES and module != _module(path)
        }
        for path in SOURCES
        if path.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_every_part_has_a_rank_of_its_own() -> None:
    parts = {_part(_module(path)) for path in SOURCES} - {None}
    assert parts == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_only_the_command_line_prints() -> None:
    printing = {
        f"{_module(path)}:{node.lineno}"
        for path in SOURCES
        if _part(_module(path)) != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert not printing
