"""All bounds of all gates, as a bundle keeps them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hilum.gate.checks import Thresholds
from hilum.gate.learned import LearnedThresholds
from hilum.gate.post_check import AnswerThresholds


class GateThresholds(BaseModel):
    """Bounds by gate and stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classic: Thresholds = Field(default_factory=Thresholds, description="Of the nine checks.")
    learned: LearnedThresholds | None = Field(None, description="Of the learned gate; None: it is not in this bundle.")
    answer: AnswerThresholds = Field(default_factory=AnswerThresholds, description="Of the second stage.")
