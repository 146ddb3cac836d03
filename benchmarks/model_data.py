"""Count the images of a metadata.csv by class, source, repository, license and mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.types import SPLIT_NAMES, Record

Meta = Mapping[str, str]
"""One row of the metadata, by the names of its columns."""


def data_facts(records: Sequence[Record], meta_of: Mapping[Path, Meta]) -> dict[str, Any]:
    """Per class and split, per source, and per way in which masks were paired with images: how many images there are.

    Args:
        records: the images to count.
        meta_of: image path to its row; ``license`` and ``original_repository`` are given as they stand there.
    """
    metas = [meta_of[record.image_path] for record in records]
    masked = Counter((m["source"], m["mask_pairing"]) for r, m in zip(records, metas, strict=True) if r.mask_path)
    return {
        "images": len(records),
        "groups": len({record.group or str(record.image_path) for record in records}),
        "classes": {
            label: {name: sum(m["label"] == label and m["split"] == name for m in metas) for name in SPLIT_NAMES}
            for label in sorted({m["label"] for m in metas})
        },
        "sources": {
            name: _source([m for m in metas if m["source"] == name])
            for name, _ in Counter(m["source"] for m in metas).most_common()
        },
        "masks": [{"source": source, "pairing": kind, "images": n} for (source, kind), n in sorted(masked.items())],
        "masks_by_split": _by_split(records, [record.mask_path is not None for record in records]),
        "targets_by_split": _by_split(records, [bool(record.region_path or record.boxes) for record in records]),
    }


def _source(metas: Sequence[Meta]) -> dict[str, Any]:
    return {
        "images": len(metas),
        "classes": dict(sorted(Counter(m["label"] for m in metas).items())),
        "repositories": sorted({m["original_repository"] for m in metas}),
        "licenses": dict(Counter(m["license"] or "none stated" for m in metas).most_common()),
    }


def _by_split(records: Sequence[Record], counted: Sequence[bool]) -> dict[str, int]:
    pairs = list(zip(records, counted, strict=True))
    return {name: sum(own for record, own in pairs if record.split == name) for name in SPLIT_NAMES}
