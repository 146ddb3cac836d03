"""``hilum.ray.Predictor`` for ``ray.data.Dataset.map_batches``; see hilum.inference.ray."""

from hilum.inference.ray import Predictor

__all__ = ["Predictor"]
