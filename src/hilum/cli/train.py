"""``hilum train``: train a model on a dataset, evaluate it and export a bundle."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say, show_findings
from hilum.cli.evaluate import show
from hilum.cli.progress import StepBars, TrainingBars
from hilum.config import (
    SECTIONS,
    Config,
    PresetName,
    list_settings,
    load_config,
    merge,
    nest,
    parse_settings,
    show_value,
)
from hilum.errors import ConfigError, MissingExtraError, extra_hint
from hilum.format import format_interval, number
from hilum.run_folder import RunFolder, new_root, read_seeds, require_new, require_writable

app = new_typer()

_RESUMABLE = {
    "training.device": "--device", "training.workers": "--workers", "training.training_hashes": "--no-training-hashes",
    "training.checkpoint_minutes": "--checkpoint-minutes",
}  # fmt: skip
"""Settings that may change when a run is resumed, and their options: those of INDIFFERENT except from_bundle."""
_WIDTH = 80


def _setting(name: str, flag: str, help_text: str | None = None, metavar: str | None = None) -> Any:
    """Return an option that stands for ``--set name=...``, with the defaults of both presets in its help."""
    setting = list_settings()[name]
    default, original = (show_value(setting.values[preset]) for preset in ("default", "original"))
    defaults = f"default: {default}" if default == original else f"default: {default}; original: {original}"
    text = help_text or setting.description
    return typer.Option(flag, help=f"{text}  [{defaults}]", show_default=False, metavar=metavar)


def _print_settings(value: bool) -> None:
    if value:
        typer.echo(describe_settings())
        raise typer.Exit


@app.command(
    epilog=examples(
        "hilum train data/ --output runs/a --epochs 30 --size 256",
        "hilum train metadata.csv --class COVID --class Normal --set augment.flip_p=0",
    )
)
def train(
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of class folders, or a CSV file, or the address of either.", metavar="DATA"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="The run's folder.  [default: runs/<time>]", show_default=False),
    ] = None,
    preset: Annotated[
        PresetName, typer.Option(help="Base settings: default, or original (the original project's).", metavar="NAME")
    ] = "default",
    config: Annotated[Path | None, typer.Option(help="TOML file of settings that override the preset.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as section.key=value; repeatable."),
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Keep only this class; repeatable.")] = None,
    split_file: Annotated[Path | None, _setting("split.split_file", "--split-file")] = None,
    network: Annotated[
        str | None, _setting("model.name", "--network", "evidence, encoder-unet or unet.", "NAME")
    ] = None,
    encoder: Annotated[str | None, _setting("model.encoder", "--encoder", metavar="NAME")] = None,
    from_bundle: Annotated[str | None, _setting("training.from_bundle", "--from-bundle", metavar="BUNDLE")] = None,
    size: Annotated[int | None, _setting("preprocess.size", "--size")] = None,
    epochs: Annotated[int | None, _setting("training.epochs", "--epochs")] = None,
    batch_size: Annotated[int | None, _setting("training.batch_size", "--batch-size")] = None,
    learning_rate: Annotated[float | None, _setting("training.learning_rate", "--learning-rate")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Random seed of split, weights, order and augmentation (split.seed, training.seed)."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Train from this many random seeds on one split, report the spread of the metrics, and export the "
            "run with the lowest validation loss.",
        ),
    ] = None,
    device: Annotated[str | None, _setting("training.device", "--device", metavar="NAME")] = None,
    precision: Annotated[
        str | None, _setting("training.precision", "--precision", "auto, 32-true, 16-mixed or bf16-mixed.", "NAME")
    ] = None,
    workers: Annotated[int | None, _setting("training.workers", "--workers")] = None,
    threads: Annotated[str | None, _setting("training.threads", "--threads", metavar="N")] = None,
    checkpoint_minutes: Annotated[float | None, _setting("training.checkpoint_minutes", "--checkpoint-minutes")] = None,
    no_training_hashes: Annotated[
        bool,
        typer.Option("--no-training-hashes", help="Leave out the hashes by which training images are recognized."),
    ] = False,
    devices: Annotated[
        int,
        typer.Option(
            min=1, help="Training processes on this machine, each on its own GPU or with its share of the processors."
        ),
    ] = 1,
    nodes: Annotated[
        int,
        typer.Option(
            "--num-nodes", min=1, help="Machines; run the command on each, with MASTER_ADDR and NODE_RANK set."
        ),
    ] = 1,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder, with its own settings.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print image counts, memory and estimated time, and exit.")
    ] = False,
    help_settings: Annotated[
        bool,
        typer.Option("--help-settings", help="List every setting and exit.", callback=_print_settings, is_eager=True),
    ] = False,
) -> None:
    """Train a model on a folder of radiographs, evaluate it and export a bundle."""
    options = {
        "split.split_file": split_file, "split.seed": seed, "model.name": network, "model.encoder": encoder,
        "preprocess.size": size, "training.from_bundle": from_bundle, "training.epochs": epochs,
        "training.batch_size": batch_size, "training.learning_rate": learning_rate, "training.seed": seed,
        "training.device": device, "training.precision": precision, "training.workers": workers,
        "training.threads": threads, "training.checkpoint_minutes": checkpoint_minutes,
        "training.training_hashes": False if no_training_hashes else None,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    overrides = merge(nest(given), parse_settings(assignments or []))
    _require_one_process(devices * nodes, {"--seeds": seeds is not None, "--dry-run": dry_run})
    if resume is not None:
        others = data or output or config or assignments or classes or dry_run or preset != "default" or seeds
        _resume(resume, given, overrides, others=bool(others), devices=devices, nodes=nodes)
        return
    overrides |= ({"data": data} if data else {}) | ({"classes": classes} if classes else {})
    settings = _settings(preset, config, overrides)
    if dry_run:
        _show_plan(settings)
    elif seeds is not None:
        _train_seeds(settings, new_root(output), seeds)
    else:
        _launch(settings, new_root(output), resume=False, devices=devices, nodes=nodes)


def _require_one_process(count: int, options: Mapping[str, bool]) -> None:
    """Refuse options that do not work in several processes, and processes that start further ones."""
    around = os.environ.get("WORLD_SIZE", "")  # hilum.training.processes checks it
    several = around not in ("", "1")
    if several and count > 1:
        raise ConfigError(
            f"This is one of {around} processes, which cannot start others.",
            hint="Omit --devices and --num-nodes under torchrun, or unset WORLD_SIZE.",
        )
    if (several or count > 1) and (used := [name for name, given in options.items() if given]):
        raise ConfigError(f"{used[0]} needs a single process.", hint=f"Omit --devices, or {used[0]}.")


def _settings(preset: PresetName, path: Path | None, overrides: Mapping[str, Any]) -> Config:
    settings = load_config(preset, path, overrides)
    if settings.training.from_bundle is not None:
        from hilum.training.from_bundle import settings_from_bundle

        settings = settings_from_bundle(settings.training.from_bundle, preset, path, overrides)
    if settings.data is None:
        raise ConfigError("No data to train on.", hint="Name a folder or a CSV file: hilum train DATA.")
    data = settings.data.resolve() if isinstance(settings.data, Path) else settings.data
    return settings.model_copy(update={"data": data})


def describe_settings() -> str:
    """Return a text of all settings by section, 80 columns wide: name, range, presets' values, description."""
    lines = [
        "Settings of hilum train, in order of precedence: --set section.key=value,",
        "options, a TOML file (--config), the preset. In TOML, sections are tables;",
        "`data` and `classes` stand above them.",
    ]
    for section in SECTIONS:
        about = type(getattr(Config(), section)).__doc__ or ""
        lines += ["", f"[{section}]", *textwrap.wrap(about, _WIDTH)]
        for setting in list_settings().values():
            if setting.name.startswith(f"{section}."):
                default, original = (show_value(setting.values[preset]) for preset in ("default", "original"))
                lines += [
                    "",
                    f"{setting.name} = {default}" + (f"  (original: {original})" if original != default else ""),
                ]
                text = f"{setting.allowed[0].upper()}{setting.allowed[1:]}. {setting.description}"
                lines += textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _resume(
    root: Path, given: Mapping[str, Any], changes: Mapping[str, Any], *, others: bool, devices: int, nodes: int
) -> None:
    """Continue the run or the runs in ``root``; ``others`` if options were given that cannot be changed."""
    if others or not given.keys() <= _RESUMABLE.keys():
        raise ConfigError(
            "--resume continues a run with its own settings, which cannot be changed.",
            hint=f"Only {', '.join(_RESUMABLE.values())} may be set. Start a new run for other settings.",
        )
    if read_seeds(root) is not None:
        if given:
            raise ConfigError(
                "Runs of several seeds are resumed with their own settings.", hint=f"hilum train --resume {root}"
            )
        _require_one_process(devices * nodes, {"--seeds": True})
        _train_seeds(None, root, 0)
        return
    from hilum.training.runs import open_run

    run, _ = open_run(root)
    _launch(load_config("original", run.config, changes), root, resume=True, devices=devices, nodes=nodes)


def _launch(settings: Config, root: Path, *, resume: bool, devices: int, nodes: int) -> None:
    """Train in this process, or in several of this machine."""
    _require_torch()
    if _is_first() and resume:
        require_writable(RunFolder(root))
    elif _is_first():
        require_new(RunFolder(root), settings.data)  # before importing torch, which takes seconds
    if devices * nodes == 1:
        _train(settings, root, resume)
        return
    from hilum.training.launch import launch

    launch(_train, (settings, root, resume), settings, devices, nodes)


def _is_first() -> bool:
    """Return whether this process is the only one or, of those that torchrun or ``launch`` started, the first."""
    return os.environ.get("WORLD_SIZE", "") in ("", "1") or os.environ.get("RANK", "") in ("", "0")


def _train(settings: Config, root: Path, resume: bool) -> None:
    """Train in this process, and show progress and report if it is the first one."""
    from hilum.pipeline import train as run_training
    from hilum.progress import Step

    if not _is_first():
        run_training(settings, RunFolder(root), resume=resume)
        return
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


def _train_seeds(settings: Config | None, root: Path, count: int) -> None:
    """Train runs of several seeds, or continue those in ``root`` where there are no settings, and show the spread."""
    _require_torch()
    if settings is not None:
        require_new(RunFolder(root), settings.data)
    from hilum.progress import Step
    from hilum.seeds import SEEDS_PAGE, name_of, resume_seeds, train_seeds

    steps = StepBars()
    bars = TrainingBars(steps)
    step = Step(bars.begin, show_findings)
    try:
        if settings is None:
            trained = resume_seeds(root, observer=bars, step=step)
        else:
            trained = train_seeds(settings, root, count, observer=bars, step=step)
    finally:
        bars.close()
        steps.close()
    table = Table("metric", "mean", "SD", "range", f"seed {trained.chosen} (95% CI)")
    for entry in trained.headline():
        low, high = number(entry.low), number(entry.high)
        chosen = format_interval(entry.chosen, with_n=True)
        table.add_row(name_of(entry.key), number(entry.mean), number(entry.sd), f"{low}–{high}", chosen)
    console.print(table)
    say(f"SD, range: over {len(trained.seeds)} seeds. The interval covers the choice of test images, not the seed.")
    say(f"Exported: seed {trained.chosen}, which has the lowest validation loss.")
    say(f"Runs in [bold]{escape(str(root))}[/]: seed-N/, {SEEDS_PAGE}, {RunFolder.SEEDS}, bundle/.")


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise MissingExtraError("Training needs torch, which is not installed.", hint=extra_hint("train"))


def _show_plan(settings: Config) -> None:
    from hilum.progress import Step
    from hilum.training.dry_run import plan

    steps = StepBars()
    try:
        made = plan(settings, Step(steps.begin, show_findings))
    finally:
        steps.close()
    show_findings(made.findings)
    gib = 1 << 30
    say(f"Classes: {escape(', '.join(made.class_names))}")
    for name, count in made.images.items():
        say(f"  {name}: {count:,} images, {made.masks[name]:,} masks")
    say(f"Network: {settings.model.name}, {made.parameters:,} parameters, on {made.device}")
    say(f"Disk for decoded images: {made.cache_bytes / gib:.2f} GiB; memory: {made.memory_bytes / gib:.2f} GiB")
    say(
        f"Time: {made.seconds_per_step:.2f} s per batch of {settings.training.batch_size}, about "
        f"{_duration(made.seconds_total)} for {settings.training.epochs} epochs. Nothing was written."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
