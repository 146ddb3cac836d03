"""All bounds of all gates, as a bundle keeps them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hilum.gate.checks import Thresholds
from hilum.gate.learned import LearnedThresholds
from hilum.gate.post_check import AnswerThresholds


class GateThresholds(BaseModel):
    """Bounds by gate and stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classic: Thresholds = Field(default_factory=Thresholds, description="Of the nine checks.")
    learned: LearnedThresholds | None = Field(None, description="Of the learned gate; None: it is not in this bundle.")
    answer: AnswerThresholds = Field(default_factory=AnswerThresholds, description="Of the second stage.")

    @model_validator(mode="before")
    @classmethod
    def _from_the_first_format(cls, value: Any) -> Any:
        """Bundles of before the learned gate have the classic bounds alone."""
        return {"classic": value} if isinstance(value, dict) and "minimum_side" in value else value
