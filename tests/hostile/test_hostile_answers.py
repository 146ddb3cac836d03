"""Answers that a DICOMweb server could give end in an error of hilum."""

from __future__ import annotations

import pytest
from answering import answering
from hostile_answers import ANSWERS, Answer
from hostile_case import bounded

from hilum.errors import HilumError


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer.name for answer in ANSWERS])
def test_answer(answer: Answer) -> None:
    found = "ok"
    with bounded(), answering(answer.body, answer.kind) as server:
        try:
            answer.request(server)
        except HilumError as error:
            found = type(error).__name__
    assert found == answer.answer
