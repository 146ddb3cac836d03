"""``hilum train``, ``export``, ``import-checkpoint``: from data to a bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hilum.cli.app import new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.evaluate import show
from hilum.cli.options import with_settings
from hilum.cli.progress import StepBars, TrainingBars
from hilum.config import PresetName, load_config
from hilum.errors import ConfigError

if TYPE_CHECKING:
    from hilum.config import Config

app = new_typer()

Opset = Annotated[int, typer.Option(help="ONNX operator set.")]


@app.command()
@with_settings
def train(
    data: Annotated[Path | None, typer.Argument(help="A folder of class folders, or a CSV.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. \\[default: runs/<time>]", show_default=False)
    ] = None,
    preset: Annotated[
        PresetName, typer.Option(help="Settings to start from; seed: the original project's.")
    ] = "default",
    config: Annotated[Path | None, typer.Option(help="A TOML file that changes the preset; flags change both.")] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Keep only this class; repeat for more.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, with counts, memory, time.")
    ] = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Train on a folder of radiographs: index, check, split, cache, train, evaluate, export."""
    if resume is not None:
        if data or config or overrides or classes or out:
            raise ConfigError(
                "Expected --resume alone, got other settings beside it.",
                hint="A run goes on with its own settings; start a new one to change them.",
            )
        _resume(resume)
        return
    layers = overrides | ({"data": data} if data else {}) | ({"classes": classes} if classes else {})
    settings = load_config(preset, config, layers)
    if settings.training.from_bundle is not None:
        from hilum.training.from_bundle import settings_from_bundle

        settings = settings_from_bundle(settings.training.from_bundle, preset, config, layers)
    if settings.data is None:
        raise ConfigError("Expected data to train on, got none.", hint="Name a folder: hilum train DATA.")
    if dry_run:
        _show_plan(settings)
        return
    _train(settings.model_copy(update={"data": settings.data.resolve()}), out or _new_run(), resume=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[Path | None, typer.Option(help="A folder or a .hilum file. \\[default: RUN/bundle]")] = None,
    opset: Opset = 17,
    name: Annotated[str | None, typer.Option(help="The bundle's name for people. \\[default: the run's]")] = None,
    half_weights: Annotated[
        bool, typer.Option("--half-weights", help="Round weights to float16 and store them so: half the size.")
    ] = False,
    gate: Annotated[
        Path | None, typer.Option(help="A folder of hilum train-gate. \\[default: the gate that comes with hilum]")
    ] = None,
    training_hashes: Annotated[
        bool | None,
        typer.Option(
            "--training-hashes/--no-training-hashes",
            help="Keep a perceptual hash of each training and validation image in the bundle, by which hilum warns "
            "when one of them is measured again. \\[default: as the run was trained]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export a run as a bundle, once PyTorch and ONNX Runtime agree on noise and on real files."""
    steps = StepBars()
    from hilum.export.run import export_run
    from hilum.progress import Step

    try:
        manifest = export_run(
            run,
            out or run / "bundle",
            opset=opset,
            name=name,
            half_weights=half_weights,
            gate=gate,
            training_hashes=training_hashes,
            step=Step(steps.begin),
        )
    finally:
        steps.close()
    files = manifest.parity["files"]
    say(
        f"Parity on {files['images']} files: probabilities within {files['probabilities']:.1e}, "
        f"masks equal in {files['mask_agreement']:.4%} of pixels, labels equal in {files['labels_equal']:.0%}."
    )
    if rounding := manifest.parity.get("rounding"):
        say(
            f"Rounding to float16 moved a probability by at most {rounding['probabilities']:.1e} on "
            f"{rounding['images']} files; calibration and figures are those of before."
        )
    say(f"Wrote bundle {manifest.bundle_id[:12]} to [bold]{escape(str(out or run / 'bundle'))}[/].")


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth file of the original project.")],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder or a .hilum file.")],
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="A class name; repeat in the order of the logits.")
    ] = None,
    opset: Opset = 17,
) -> None:
    """Turn a checkpoint of the original project into a bundle."""
    from hilum.export.import_original import import_checkpoint as bring

    manifest = bring(file, out, class_names=classes, opset=opset)
    names = escape(", ".join(manifest.class_names))
    say(f"Wrote bundle {manifest.bundle_id[:12]} ({names}) to [bold]{escape(str(out))}[/].")


def _resume(root: Path) -> None:
    from hilum.training.runs import open_run

    _, settings = open_run(root)
    _train(settings, root, resume=True)


def _train(settings: Config, root: Path, *, resume: bool) -> None:
    from hilum.pipeline import train as run_training
    from hilum.progress import Step
    from hilum.run_folder import RunFolder

    steps = StepBars()
    bars = TrainingBars(steps)
    step = Step(bars.begin, show_findings)
    try:
        trained = run_training(settings, RunFolder(root), resume=resume, observer=bars, step=step)
    finally:
        bars.close()
        steps.close()
    show(trained.report, trained.run.results("test"))
    bundle = escape(str(trained.run.bundle))
    say(f"Run in [bold]{escape(str(root))}[/]: plots/, test/, bundle/.")
    say(f"Next: hilum predict FILES --bundle {bundle} --save-overlays")


def _show_plan(settings: Config) -> None:
    from hilum.training.dry_run import plan

    made = plan(settings)
    show_findings(made.findings)
    gib = 1 << 30
    say(f"Classes: {escape(', '.join(made.class_names))}")
    for name, count in made.images.items():
        say(f"  {name}: {count:,} images, {made.masks[name]:,} masks")
    say(f"Network: {settings.model.name}, {made.parameters:,} parameters, on {made.device}")
    say(f"Disk for decoded images: {made.cache_bytes / gib:.2f} GiB; memory: {made.memory_bytes / gib:.2f} GiB")
    say(
        f"Time: {made.seconds_per_step:.2f} s a batch of {settings.training.batch_size}, about "
        f"{_duration(made.seconds_total)} for {settings.training.epochs} epochs. Nothing was written."
    )


def _new_run() -> Path:
    return Path("runs") / time.strftime("%Y%m%d-%H%M%S")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
