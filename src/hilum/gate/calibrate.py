"""Setting the learned gate's bounds on films that it was not trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hilum.gate.kinds import FLAGS, FRONTAL
from hilum.gate.learned import GateReading, LearnedThresholds

REFUSED = 0.002
"""Share of good films that each check of the network may refuse."""
WARNED = 0.01
"""Share of good films that each warning may be given to."""


def fit_thresholds(films: GateReading) -> LearnedThresholds:
    """The bounds for the readings of frontal films that lie as they should.

    Each lies at the quantile that lets all but REFUSED or WARNED of the films pass, and never beyond even odds: a
    picture that the network thinks more likely wrong than right does not pass for being rare among good films.
    """
    flags = {name: films.flags[:, column] for column, name in enumerate(FLAGS)}
    return LearnedThresholds(
        frontal=_least(films.kind[:, FRONTAL]),
        upright=_least(films.turn[:, 0]),
        inverted=_most(flags["inverted"], REFUSED),
        cropped=_most(flags["cropped"], REFUSED),
        mirrored=_most(flags["mirrored"], WARNED),
        annotated=_most(flags["annotated"], WARNED),
    )


def _least(good: NDArray[np.float32]) -> float:
    return round(min(0.5, float(np.quantile(good, REFUSED))), 4)


def _most(good: NDArray[np.float32], share: float) -> float:
    return round(max(0.5, float(np.quantile(good, 1 - share))), 4)
