"""The targets use the cases of tests/hostile as seeds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "hostile"))
