"""Which gate a name on the command line means, opened with what the bundle keeps for it."""

from __future__ import annotations

from typing import Literal, get_args

from hilum.bundle.bundle import FEATURES, Bundle, load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.errors import ConfigError
from hilum.gate import ClassicGate, Gate, LearnedGate, NoGate
from hilum.gate.post_check import FeatureReference
from hilum.gate.stored import GATE_MODEL

GateName = Literal["learned", "classic", "none"]
USUAL_GATE: GateName = "learned"


def open_gate(bundle: Bundle, name: GateName = USUAL_GATE) -> Gate:
    """The gate ``name`` with the bundle's bounds.

    A bundle without a learned gate of its own gets that of the bundle that comes with hilum; the second stage's bounds
    and statistics are the bundle's own in any case, since they are of its network.

    Raises:
        ConfigError: There is no such gate.
        BundleError: The gate's graph or the statistics cannot be read.
    """
    if name not in get_args(GateName):
        raise ConfigError(f"Unknown gate {name!r}.", hint=f"Choose one of {', '.join(get_args(GateName))}.")
    bounds = bundle.manifest.gate
    if name == "none":
        return NoGate()
    if name == "classic":
        return ClassicGate(bounds.classic)
    source = bundle if GATE_MODEL in bundle else load_bundle(resolve_bundle(DEFAULT))
    reference = FeatureReference.read(bundle.read(FEATURES)) if FEATURES in bundle else None
    return LearnedGate(source.read(GATE_MODEL), source.manifest.gate.learned, bounds.answer, reference)
