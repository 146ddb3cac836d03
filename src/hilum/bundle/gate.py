"""Open the input check of a bundle by name. The checks themselves are in hilum.gate."""

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
    """Return a gate with the thresholds of a bundle.

    A bundle without a learned gate of its own uses that of the packaged model. Thresholds and feature statistics of the
    post-inference check always come from the bundle, since they depend on its network.

    Args:
        bundle: The bundle.
        name: ``learned``, ``classic`` or ``none``.

    Raises:
        ConfigError: There is no gate of that name.
        BundleError: The gate's network or the statistics cannot be read.
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
