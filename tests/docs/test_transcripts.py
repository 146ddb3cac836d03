"""scripts/transcripts.py runs the blocks of a page and puts what they print below them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from transcripts import comparable, transcribed

PAGE = """
```sh
exit 1
```

```console
$ sleep 60 &
$ cat \\
  file
old
$ pwd >&2
```

```python
print(open("file").read().strip(), 1 + 1)
```

```text
```
"""


def test_outputs_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("c\n")
    once = transcribed(PAGE, tmp_path)
    assert once == PAGE.replace("old\n$ pwd >&2\n", "c\n$ pwd >&2\n/home/me\n").replace("text\n", "text\nc 2\n")
    assert transcribed(once, tmp_path) == once


def test_a_program_that_fails_stops_the_page(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        transcribed("```python\n1 / 0\n```\n", tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("accuracy 0.967 (0.899–0.990), n = 60", "accuracy 1.000 (0.9–1), n = 5", True),
        ("22:09:38 * epoch 1/8  14 s", "02:00:00 * epoch 1/8  9 s", True),
        ("bundle 9b488e6f9a76", "bundle 012345678901", True),
        ("│ COVID │ 100    │", "│ COVID │ 96 │", True),
        ("Normal  0.955", "COVID  0.955", False),
        ("Wrote a.csv.", "Wrote b.csv.", False),
    ],
)
def test_numbers_may_differ_and_words_may_not(one: str, other: str, same: bool) -> None:
    assert (comparable(one) == comparable(other)) is same
