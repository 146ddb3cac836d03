"""Input check ("the gate") and post-inference check, shared by CLI, services and Python API."""

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
