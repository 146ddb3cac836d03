"""Targets: tables of datasets and of predictions. What is read is written and read again, and must be the same."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import numpy as np
from fuzz_case import Target
from fuzz_images import contents_of
from image_writing import encode, gray
from PIL import Image

from hilum.data.index import Index, build_index, load_index, save_index
from hilum.evaluation.predictions import read_predictions, write_predictions
from hilum.types import Record

_METADATA = (
    b"image,mask,label,group,source,split,region,boxes,label_2,mask_2,age\n"
    b'a.png,m.png,x,p1,s,train,,,y,,5\nb.png,,y,p2,t,val,m.png,"[[0.1, 0.2, 0.3, 0.4]]",,m.png,"6,0"\n',
    b'image,label,"note ""one"""\n"a.png",x,"two\nlines"\nb.png,\'=1+1,\xc3\xa9\n',
)
_PREDICTIONS = (
    b"file,label,predicted_label,group,source,prob_x,prob_y,logit_x,logit_y,dice,iou,hd95_share,in_training_data,sex\n"
    b"a.png,x,x,p1,s,0.75,0.25,1.5,0.4,0.9,0.8,0.01,1,F\nb.png,y,x,p2,,0.6,0.4,0.4,0,,,,0,M\n",
    b"file,label,prob_x,prob_y\na,x,1,0\nb,y,0.25,0.75\n",
)


def metadata() -> Target:
    """Tables of datasets; two images and a mask are beside them."""
    from hostile_tables import TABLES

    folder = Path(tempfile.mkdtemp(prefix="hilum-fuzz-"))
    for seed, name in enumerate(("a.png", "b.png")):
        (folder / name).write_bytes(encode(Image.fromarray(np.roll(gray(), seed))))
    (folder / "m.png").write_bytes(encode(Image.fromarray(gray()).convert("1")))
    table, again = folder / "data.csv", folder / "again.csv"

    def run(content: bytes) -> Hashable:
        table.write_bytes(content)
        index = build_index(table)
        save_index(index, again)
        if (found := load_index(again)).digest != index.digest or not _same(found, index):
            raise AssertionError(f"written and read again: {found.records} instead of {index.records}")
        return len(index.records), index.class_names, len(index.findings)

    seeds = [*_METADATA, *(content for content in contents_of(TABLES) if len(content) < 5_000)]
    return Target("metadata", seeds, run)


def _same(one: Index, other: Index) -> bool:
    """Return whether the records of two indexes are equal; other columns have the order of the table."""

    def of(index: Index) -> list[Record]:
        return [replace(record, columns=tuple(sorted(record.columns))) for record in index.records]

    return of(one) == of(other)


def predictions() -> Target:
    """Tables of predictions with the truth, from which reports are made."""
    folder = Path(tempfile.mkdtemp(prefix="hilum-fuzz-"))
    table, again = folder / "a.csv", folder / "b.csv"

    def run(content: bytes) -> Hashable:
        table.write_bytes(content)
        scores = read_predictions(table, "test")
        write_predictions(scores, again)
        found = read_predictions(again, "test")
        if found.files != scores.files or not np.array_equal(found.probabilities, scores.probabilities):
            raise AssertionError("the table that was written reads differently")
        return len(scores.files), scores.class_names, tuple(scores.columns)

    return Target("predictions", [*_PREDICTIONS], run)
