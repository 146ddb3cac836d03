"""``hilum info``: print a summary of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import BundleArgument
from hilum.errors import BundleError, ConfigError
from hilum.format import format_interval, metric_title

if TYPE_CHECKING:
    from hilum.bundle.bundle import Manifest

app = new_typer()


@app.command(epilog=examples("hilum info", "hilum info model.hilum --json"))
def info(
    bundle: BundleArgument = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON instead.")] = False,
    card: Annotated[bool, typer.Option("--card", help="Print the model card instead.")] = False,
) -> None:
    """Show a bundle's classes, network, test metrics, calibration and size."""
    if as_json and card:
        raise ConfigError("--json and --card exclude each other.", hint="Leave one out.")
    from hilum.bundle.bundle import MODEL_CARD, load_bundle

    path = resolve_bundle(bundle)
    opened = load_bundle(path)
    if as_json:
        typer.echo(opened.manifest.content(), nl=False)
    elif card:
        typer.echo(opened.read(MODEL_CARD).decode(errors="replace"), nl=False)
    else:
        _show(opened.manifest, path)


def _show(manifest: Manifest, path: Path) -> None:
    say(f"[bold]{escape(manifest.name)}[/]: a research tool, not a medical device.")
    facts = {
        "bundle": manifest.bundle_id[:12],
        "classes": ", ".join(manifest.class_names),
        "network": _network(manifest),
        "input": "{channels} x {size} x {size}, {fit}".format(**manifest.preprocess.model_dump()),
        "created": f"{manifest.created or 'unknown'}, hilum {manifest.hilum_version or 'unknown'}",
        "sources": ", ".join(manifest.sources) or "unknown",
        "training": _training(manifest),
        "calibration": _calibration(manifest),
        "input check": _gate(manifest),
        "size": f"{_size(path) / 1e6:.1f} MB, weights as {manifest.weights_dtype}",
        "path": str(path),
    }
    width = max(map(len, facts))
    for name, text in facts.items():
        say(f"  {name:<{width}}  {escape(text)}")
    figures = _figures(manifest)
    say("Test split, with 95% confidence intervals:" if figures else "The bundle has no test metrics.")
    width = max(map(len, figures), default=0)
    for name, text in figures.items():
        say(f"  {escape(f'{name:<{width}}')}  {text}")
    say("Full model card: hilum info --card. Manifest: hilum info --json.")


def _network(manifest: Manifest) -> str:
    model = manifest.model
    if model.name == "unet":
        return model.name
    pooled = f", {model.pooling} pooling, cells of {model.evidence_stride} pixels" if model.name == "evidence" else ""
    return f"{model.name}, {model.encoder}{pooled}"


def _training(manifest: Manifest) -> str:
    """Describe the epochs and input size of each training, in order."""
    parts = [
        f"{own.get('training', {}).get('epochs', '?')} epochs at {own.get('preprocess', {}).get('size', '?')} pixels"
        for own in manifest.training
    ]
    return ", then ".join(parts) or "unknown"


def _calibration(manifest: Manifest) -> str:
    threshold = manifest.abstention_threshold
    coverage = f"at {manifest.prediction_set_level} coverage" if manifest.prediction_set_quantiles else "none"
    return (
        f"temperature {manifest.temperature:.3f}, prediction sets {coverage}, abstains "
        f"{'never' if threshold is None else f'below {threshold:.3f}'}"
    )


def _gate(manifest: Manifest) -> str:
    own = "trained for this bundle" if manifest.gate.learned else "packaged with hilum"
    answer = manifest.gate.answer
    parts = {"lung shape": answer.lung_least, "feature distance": answer.distance_warned}
    measured = " and ".join(name for name, bound in parts.items() if bound is not None)
    return f"{own}; post-inference check of {measured or 'nothing'}"


def _figures(manifest: Manifest) -> dict[str, str]:
    """Return the test metrics over all sources: those over all classes, and the recall of each class."""
    from pydantic import TypeAdapter, ValidationError

    from hilum.evaluation.report import Figure

    try:
        figures = TypeAdapter(list[Figure]).validate_python(manifest.metrics.get("test", []))
    except ValidationError as error:
        raise BundleError(
            f"Bundle {manifest.bundle_id[:12]} has test metrics in an unknown format.",
            hint="Print them with: hilum info --json",
        ) from error
    return {
        ", ".join(filter(None, (metric_title(figure.metric), figure.class_name))): format_interval(figure, with_n=True)
        for figure in figures
        if figure.source is None and (figure.class_name is None or figure.metric == "recall")
    }


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
