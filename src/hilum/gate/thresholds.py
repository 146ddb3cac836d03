"""Thresholds of all input checks, as stored in a bundle."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hilum.gate.checks import Thresholds
from hilum.gate.learned import LearnedThresholds
from hilum.gate.post_check import AnswerThresholds


class GateThresholds(BaseModel):
    """Thresholds of the input checks and the post-inference check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classic: Thresholds = Field(default_factory=Thresholds, description="Thresholds of the classic gate.")
    learned: LearnedThresholds | None = Field(None, description="Thresholds of the learned gate; None: not in bundle.")
    answer: AnswerThresholds = Field(default_factory=AnswerThresholds, description="Of the post-inference check.")
