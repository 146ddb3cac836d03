"""``hilum info``: print a summary of a bundle."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from typer.core import TyperCommand

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import BundleArgument, VerifyKeyOption
from hilum.errors import BundleError, ConfigError, SelfTestError
from hilum.format import at_least_note, format_interval, metric_title
from hilum.storage import write_bytes

if TYPE_CHECKING:
    from hilum.bundle.bundle import Bundle, Manifest
    from hilum.evaluation.report import Figure

app = new_typer()

CardKind = Literal["bundle", "hf"]
_CARDS = ("bundle", "hf")


class _Command(TyperCommand):
    """Lets ``--card`` stand without a value, which Typer's options cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Give a bare ``--card`` its value, ``bundle``."""
        full = [
            "--card=bundle" if word == "--card" and (following not in _CARDS or Path(following).exists()) else word
            for word, following in pairwise([*args, ""])
        ]
        return super().parse_args(ctx, full)


@app.command(
    cls=_Command,
    epilog=examples("hilum info model.hilum --test", "hilum info model.hilum --card hf -o README.md"),
)
def info(
    bundle: BundleArgument = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON instead.")] = False,
    card: Annotated[
        CardKind | None,
        typer.Option("--card", help="Print the model card instead; hf: with the metadata of the Hugging Face Hub."),
    ] = None,
    test: Annotated[
        bool,
        typer.Option("--test", help="Run the bundle's self-test in every engine and precision of this machine."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the manifest or the card, instead of printing it.")
    ] = None,
    verify_key: VerifyKeyOption = None,
) -> None:
    """Show a bundle's classes, network, test metrics, calibration and size."""
    if as_json + bool(card) + test > 1:
        raise ConfigError("--json, --card and --test exclude each other.", hint="Use one of them.")
    if output is not None and not (as_json or card):
        raise ConfigError("--output needs --card or --json.", hint="hilum info BUNDLE --card hf --output README.md")
    from hilum.bundle.bundle import load_bundle

    path = resolve_bundle(bundle)
    opened = load_bundle(path, verify_key=verify_key)
    if test:
        _test(opened)
        return
    if not (as_json or card):
        _show(opened.manifest, path, _signature(opened.signature, is_verified=verify_key is not None))
        return
    content = opened.manifest.content() if as_json else _card(opened, card or "bundle").encode()
    if output is None:
        typer.echo(content, nl=False)
    else:
        write_bytes(output, content)
        say(f"Wrote [bold]{escape(str(output))}[/].")


def _card(opened: Bundle, kind: CardKind) -> str:
    if kind == "bundle":
        from hilum.bundle.bundle import MODEL_CARD

        return opened.read(MODEL_CARD).decode(errors="replace")
    from hilum.bundle.hub_card import hub_card

    read_test_figures(opened.manifest)  # raises where the figures have another form
    return hub_card(opened)


def _test(opened: Bundle) -> None:
    """Run the self-test in every engine and show the largest differences.

    Raises:
        BundleError: The bundle has no self-test.
        SelfTestError: It fails in an engine.
    """
    from hilum.backends.open import installed_engines, open_engine
    from hilum.bundle.bundle import SELF_TEST
    from hilum.bundle.self_test import REDUCED_TOLERANCE, TOLERANCE
    from hilum.inference.self_test import replay

    if SELF_TEST not in opened:
        raise BundleError("The bundle has no self-test.", hint="Export it again with this version of hilum.")
    say(
        "The largest difference of each output, relative for values above 1. Tolerance: "
        f"{TOLERANCE:g} in fp32; {REDUCED_TOLERANCE:g} and the same class in bf16 and int8."
    )
    failed = []
    for engine in installed_engines(opened):
        result = replay(opened, open_engine(opened, engine))
        assert result is not None  # the file is there
        name = f"{engine.backend} {engine.precision}"
        say(f"{name}: {'passed' if result.passed else '[red]failed[/]'}{'' if result.label else ', another class'}")
        for own in result.mismatches:
            say(f"  {own.difference:.1e}  {escape(str(own))}")
        if not result.passed:
            failed.append(f"{name}: {result.worst}")
    if failed:
        raise SelfTestError(f"The self-test failed: {'; '.join(failed)}.", hint="Use an engine that passes.")


def _signature(signature: bytes | None, *, is_verified: bool) -> str:
    from hilum.bundle.signing import signer_of

    if signature is None:
        return "none"
    key = f"of the key {signer_of(signature)[:12] or 'unknown'}"
    return f"{key}, valid" if is_verified else f"{key}, not verified; pass the public key with --verify-key"


def _show(manifest: Manifest, path: Path, signature: str) -> None:
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
        "precision": _precisions(manifest),
        "input check": _gate(manifest),
        "size": f"{_size(path) / 1e6:.1f} MB, weights as {manifest.weights_dtype}",
        "signature": signature,
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
    if note := at_least_note("".join(figures.values())):
        say(note)
    say("Full model card: hilum info --card, or --card hf for the Hugging Face Hub. Manifest: hilum info --json.")


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
    from hilum.bundle.calibration import temperature_text, threshold_text

    coverage = f"at {manifest.prediction_set_level} coverage" if manifest.prediction_set_quantiles else "none"
    temperature, abstains = (text(manifest, manifest.class_names) for text in (temperature_text, threshold_text))
    return f"{temperature}, prediction sets {coverage}, abstains {abstains}"


def _precisions(manifest: Manifest) -> str:
    """Describe the precisions with their agreement with float32."""
    measured = [
        f"{name} {'accepted' if own.accepted else 'not accepted'} in {own.backend} (labels agree on "
        f"{own.labels_agree:.2%} of {own.n:,} images of {own.split})"
        for name, own in manifest.agreement.items()
    ]
    return "; ".join(["fp32", *measured])


def _gate(manifest: Manifest) -> str:
    own = "in the bundle" if manifest.gate.learned else "packaged with hilum"
    answer = manifest.gate.answer
    parts = {"lung shape": answer.lung_least, "feature distance": answer.distance_warned}
    measured = " and ".join(name for name, bound in parts.items() if bound is not None)
    return f"{own}; post-inference check of {measured or 'nothing'}"


def read_test_figures(manifest: Manifest) -> list[Figure]:
    """Return the test metrics of a bundle.

    Raises:
        BundleError: They are in an unknown format.
    """
    from pydantic import TypeAdapter, ValidationError

    from hilum.evaluation.report import Figure

    try:
        return TypeAdapter(list[Figure]).validate_python(manifest.metrics.get("test", []))
    except ValidationError as error:
        raise BundleError(
            f"Bundle {manifest.bundle_id[:12]} has test metrics in an unknown format.",
            hint="Print them with: hilum info --json",
        ) from error


def _figures(manifest: Manifest) -> dict[str, str]:
    """The test metrics over all sources: those of all classes, and the recall of each."""
    return {
        ", ".join(filter(None, (metric_title(figure.metric), figure.class_name))): format_interval(figure, with_n=True)
        for figure in read_test_figures(manifest)
        if figure.source is None and (figure.class_name is None or figure.metric == "recall")
    }


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
