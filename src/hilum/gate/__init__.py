"""The gate: what an image must pass before it reaches the network; the same object wherever a file comes in."""

from __future__ import annotations

from hilum.gate.checks import Thresholds
from hilum.gate.gate import ClassicGate, Gate, NoGate
from hilum.gate.learned import LearnedGate, LearnedThresholds
from hilum.gate.thresholds import GateThresholds
from hilum.gate.verdict import OrientationFix, Reading, Verdict

__all__ = [
    "ClassicGate",
    "Gate",
    "GateThresholds",
    "LearnedGate",
    "LearnedThresholds",
    "NoGate",
    "OrientationFix",
    "Reading",
    "Thresholds",
    "Verdict",
]
