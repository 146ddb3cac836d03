"""Scores are the same after they are written to predictions.csv and read, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import odd_text
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hilum.evaluation.predictions import is_own_column, read_predictions, write_predictions
from hilum.metrics.scores import Scores


@st.composite
def scores(draw: st.DrawFn) -> Scores:
    classes = draw(st.lists(odd_text.text.filter(bool), min_size=1, max_size=4, unique=True))
    images = draw(st.integers(1, 6))
    texts = st.lists(odd_text.text, min_size=images, max_size=images)
    values = draw(hnp.arrays(np.float64, (images, len(classes)), elements=st.floats(1e-6, 1)))
    dice = draw(hnp.arrays(np.float64, images, elements=st.floats(0, 1) | st.just(np.nan)))
    names = draw(st.lists(odd_text.text.filter(lambda name: name and not is_own_column(name)), max_size=3, unique=True))
    finite = st.floats(-1e300, 1e300)
    return Scores(
        files=tuple(draw(texts)),
        labels=draw(hnp.arrays(np.int64, images, elements=st.integers(-1, len(classes) - 1))),
        probabilities=values / values.sum(axis=1, keepdims=True),
        class_names=tuple(classes),
        groups=tuple(draw(texts)),
        sources=tuple(source or None for source in draw(texts)),
        dice=dice,
        iou=dice / (2 - dice),
        split="test",
        logits=draw(st.none() | hnp.arrays(np.float64, values.shape, elements=finite)),
        hd95_share=draw(st.none() | hnp.arrays(np.float64, images, elements=st.floats(0, 10) | st.just(np.nan))),
        seen=draw(st.none() | hnp.arrays(np.bool_, images)),
        columns={name: tuple(draw(texts)) for name in names},
    )


@given(scores())
def test_scores_are_read_as_they_were(tmp_path: Path, found: Scores) -> None:
    write_predictions(found, tmp_path / "predictions.csv")
    read = read_predictions(tmp_path / "predictions.csv", "test")
    for name, value in vars(found).items():
        own = getattr(read, name)
        if isinstance(value, np.ndarray):
            assert np.array_equal(own, value, equal_nan=value.dtype.kind == "f"), name
        else:
            assert own == value, name
