"""The gate: what an image must pass before it reaches the network; the same object wherever a file comes in."""

from __future__ import annotations

from hilum.gate.checks import Thresholds
from hilum.gate.gate import ClassicGate, Gate, OpenGate

__all__ = ["ClassicGate", "Gate", "OpenGate", "Thresholds"]
