"""Measure the learned input check and the original project's nine checks on the same held-out files.

    python benchmarks/gate.py metadata.csv --others gate_samples.csv --others-root DIR --native DIR
    python benchmarks/gate.py ... --json benchmarks/results/gate.json

Radiographs are those of the test split, one per group, and the native files. Negative examples are those of the table's
test split, which `hilum train-gate` does not train on, and images drawn from seeds that it does not use. `learned` is
the bundle's whole input check, before and after prediction; `classic` is `--gate classic`. Images of the test split are
stored at 224 pixels and enlarged to 288, since the classic check refuses sides below 256. Intervals of shares are exact
(Clopper & Pearson 1934), those of AUROCs come from 1,000 resamples. The AUROC ranks by the probability of a frontal
radiograph; the score of the classic check is how many of its checks pass. Milliseconds are the median of 60 calls, both
checks in turn, with the range of the middle 95%.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import proportion
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.bundle.gate import open_gate
from hilum.config import SplitConfig
from hilum.data.index import build_index
from hilum.data.split import make_split
from hilum.format import format_interval
from hilum.gate import ClassicGate, LearnedGate, Verdict
from hilum.gate_training.body_parts import BODY_PARTS, lateral_chest
from hilum.gate_training.negatives import NEGATIVES, SLICES
from hilum.gate_training.samples import Other, counts, read_others
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph
from hilum.inference.predictor import Predictor
from hilum.storage import write_json
from hilum.types import Radiograph

IMAGES = 400
ENLARGED = 288
SIDES = (256, 512, 1024, 2500)
DRAWN, DRAWN_SEED = 40, 2_000_000
RESAMPLES = 1000
ADULTS_APART = "kermany"
"""The source whose images are of children."""


@dataclass(frozen=True)
class Image:
    """A frontal radiograph and what is known of it."""

    radiograph: Radiograph
    source: str
    view: str


class Gates:
    """Both input checks, each run once per image."""

    def __init__(self, bundle: str) -> None:
        opened = load_bundle(resolve_bundle(bundle))
        self.first = open_gate(opened, "learned")
        assert isinstance(self.first, LearnedGate)
        self.predictor = Predictor(opened, gate=self.first)
        self.classic_gate = ClassicGate(opened.manifest.gate.classic)

    def learned(self, image: Radiograph) -> Verdict:
        return self.predictor.examine(image)

    def classic(self, image: Radiograph) -> Verdict:
        return self.classic_gate(image)

    def score(self, image: Radiograph) -> float:
        """The first stage's probability of a frontal radiograph; 0 for what its plain measurements refuse."""
        values = [reading.value for reading in self.first(image).readings if reading.check == "frontal"]
        return values[0] if values else 0.0


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> dict[str, Any]:
    """The area under the ROC curve with its bootstrap interval, each side resampled."""
    random = np.random.default_rng(0)

    def area(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(roc_auc_score(np.r_[np.ones(a.size), np.zeros(b.size)], np.r_[a, b]))

    draws = [
        area(random.choice(positive, positive.size), random.choice(negative, negative.size)) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return {"value": area(positive, negative), "low": low, "high": high, "n": int(positive.size + negative.size)}


def draw_images(metadata: Path, count: int | None, keep: Callable[[Image], bool]) -> list[Image]:
    """Frontal images of the test split, one a group, in a fixed random order, enlarged."""
    index = build_index(metadata, check=False)
    with metadata.open(encoding="utf-8", newline="") as stream:
        views = {row["image"]: row["view"] for row in csv.DictReader(stream)}
    seen: set[str] = set()
    images: list[Image] = []
    rows = [record for record in index.records if record.split == "test"]
    for position in np.random.default_rng(0).permutation(len(rows)).tolist():
        record = rows[position]
        if record.group in seen:
            continue
        view = views[record.image_path.relative_to(metadata.parent.resolve()).as_posix()]
        blank = Image(Radiograph(np.zeros((1, 1), np.uint8)), record.source or "", view)
        if not keep(blank):
            continue
        seen.add(record.group or str(record.image_path))
        images.append(replace(blank, radiograph=scaled(read_radiograph(record.image_path), ENLARGED, shorter=True)))
        if len(images) == count:
            break
    return images


def scaled(radiograph: Radiograph, side: int, *, shorter: bool = False) -> Radiograph:
    """An image with its longer (or shorter) side at ``side`` pixels."""
    gray = to_uint8(radiograph)
    factor = side / (min(gray.shape) if shorter else max(gray.shape))
    shape = (round(gray.shape[1] * factor), round(gray.shape[0] * factor))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return Radiograph(np.asarray(cv2.resize(gray, shape, interpolation=way), np.uint8), origin=radiograph.origin)


def turned(image: Radiograph, quarters: int) -> Radiograph:
    return replace(image, pixels=np.ascontiguousarray(np.rot90(image.pixels, -quarters)))


def inverted(image: Radiograph) -> Radiograph:
    return replace(image, pixels=255 - to_uint8(image))


def others_of(others: Sequence[Other]) -> dict[str, list[Radiograph]]:
    """The held-out images by collection, no side below 288, so that size refuses none of them."""
    found: dict[str, list[Radiograph]] = {}
    for other in others:
        if other.split == "test":
            image = read_radiograph(other.path)
            if min(image.shape) < ENLARGED:
                image = replace(scaled(image, ENLARGED, shorter=True), color_difference=image.color_difference)
            found.setdefault(other.collection, []).append(image)
    return found


def drawn() -> tuple[dict[str, list[Radiograph]], dict[str, list[Radiograph]]]:
    """Drawn images, and drawn images of other parts and of the side, of seeds that training does not use."""
    random = np.random.default_rng(DRAWN_SEED)
    draw = {
        name: [Radiograph(make(random, 320)) for _ in range(DRAWN)] for name, make in {**NEGATIVES, **SLICES}.items()
    }
    parts = {**BODY_PARTS, "chest from the side": lateral_chest}
    return draw, {name: [Radiograph(make(random, 320)) for _ in range(DRAWN)] for name, make in parts.items()}


class Table:
    """Rows of both gates."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        section: str,
        figure: str,
        images: Sequence[Radiograph],
        hit: Callable[[Verdict], bool] = lambda verdict: verdict.accepted,
        must: str = "",
    ) -> None:
        """How many of the images each gate gives such a verdict."""
        entry: dict[str, Any] = {"section": section, "figure": figure, "must": must}
        for name, gate in (("classic", self.gates.classic), ("learned", self.gates.learned)):
            entry[name] = proportion(sum(hit(gate(image)) for image in images), len(images))
        self.put(entry)

    def put(self, entry: dict[str, Any]) -> None:
        """A row, printed as it is found."""
        self.rows.append(entry)
        cells = "   ".join(f"{name} {format_interval(entry[name], 4)}" for name in ("classic", "learned"))
        print(f"{entry['section']}, {entry['figure']}: {cells}  {entry['must']}", flush=True)


def accepted(table: Table, drawn: list[Image], native: list[Radiograph], metadata: Path) -> None:
    images = [image.radiograph for image in drawn]
    table.add("accepted, frontal radiographs", "native files", native, must="≥ 0.99")
    table.add("accepted, frontal radiographs", "test split, enlarged", images, must="≥ 0.99")
    table.add("accepted, frontal radiographs", "both", [*native, *images], must="≥ 0.99")
    children = draw_images(metadata, IMAGES, lambda image: image.source == ADULTS_APART)
    adults = draw_images(metadata, IMAGES, lambda image: image.source != ADULTS_APART)
    portable = draw_images(metadata, None, lambda image: image.source != ADULTS_APART and image.view.startswith("AP"))
    for name, group in (("adults", adults), ("children", children), ("adults, AP (portable)", portable)):
        table.add(
            "accepted, by kind of image", name, [image.radiograph for image in group], must="within 1 point of adults"
        )


def refused(table: Table, others: dict[str, list[Radiograph]]) -> None:
    """Measure how many negative examples are accepted."""
    draw, parts = drawn()
    far = {name: images for name, images in others.items() if name not in ("cxr_lateral", "mammogram")}
    near = {name: others[name] for name in ("cxr_lateral", "mammogram") if name in others}
    for section, sets in (
        ("accepted, negative examples", far),
        ("accepted, other radiographs", near),
        ("accepted, drawn", draw),
        ("accepted, drawn images", parts),
    ):
        for name, images in sets.items():
            table.add(section, name, images)
        table.add(section, "all of these", _all(sets))
    table.add("accepted, all", "negative examples, real and drawn", [*_all(far), *_all(draw)], must="≤ 0.01")
    table.add("accepted, all", "other radiographs, real", _all(near), must="≤ 0.10")


def _all(sets: dict[str, list[Radiograph]]) -> list[Radiograph]:
    return [image for images in sets.values() for image in images]


def geometry(table: Table, images: list[Radiograph]) -> None:
    """Measure how many rotated and inverted images are refused for that reason."""

    def says(words: str) -> Callable[[Verdict], bool]:
        return lambda verdict: not verdict.accepted and verdict.reason == words

    table.add(
        "caught, right reason", "inverted", [inverted(image) for image in images], says("inverted gray scale"), "≥ 0.98"
    )
    for quarters in (1, 2, 3):
        words = f"rotated {90 * quarters} degrees clockwise"
        table.add(
            "caught, right reason", f"rotated by {90 * quarters}", [turned(image, quarters) for image in images],
            says(words), "≥ 0.98",
        )  # fmt: skip
    mirrored = [replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1])) for image in images]

    def warned(verdict: Verdict) -> bool:
        return any(finding.check == "mirrored" for finding in verdict.findings)

    table.add("warned", "mirrored", mirrored, warned)
    table.add("warned", "mirrored, of images that are not", images, warned)


def sizes(table: Table, images: list[Radiograph]) -> None:
    """Measure how often the verdict is the same at four sizes."""
    entry: dict[str, Any] = {"section": "same verdict", "figure": "at 256, 512, 1024 and 2500 px", "must": "≥ 0.99"}
    same: dict[str, list[bool]] = {"classic": [], "learned": []}
    for image in images:
        copies = [scaled(image, side) for side in SIDES]
        same["classic"].append(len({table.gates.classic(copy).reason for copy in copies}) == 1)
        same["learned"].append(len({table.gates.learned(copy).reason for copy in copies}) == 1)
    table.put({**entry, **{name: proportion(sum(hits), len(hits)) for name, hits in same.items()}})


def ranking(table: Table, good: list[Radiograph], sets: dict[str, tuple[list[Radiograph], str]]) -> None:
    """Measure the AUROC of each check's score."""

    def classic(image: Radiograph) -> float:
        return -float(len(table.gates.classic(image).findings))

    for name, (bad, must) in sets.items():
        entry: dict[str, Any] = {"section": "AUROC", "figure": name, "must": must}
        for gate, score in (("classic", classic), ("learned", table.gates.score)):
            entry[gate] = auroc(np.array([score(i) for i in good]), np.array([score(i) for i in bad]))
        table.put(entry)


def times(table: Table, image: Radiograph, rounds: int = 60) -> None:
    """Milliseconds of the first stage for one decoded image on one core, both gates in turn."""
    cv2.setNumThreads(1)
    for side in (288, 1024, 2500):
        enlarged = scaled(image, side)
        taken: dict[str, list[float]] = {"classic": [], "learned": []}
        for _ in range(rounds):
            for name, gate in (("classic", table.gates.classic_gate), ("learned", table.gates.first)):
                started = time.perf_counter()
                gate(enlarged)
                taken[name].append(1000 * (time.perf_counter() - started))
        entry: dict[str, Any] = {
            "section": "milliseconds",
            "figure": f"an image of {side} px",
            "must": "≤ 5",
        }
        for name, values in taken.items():
            low, high = np.quantile(values, [0.025, 0.975]).tolist()
            entry[name] = {"value": statistics.median(values), "low": low, "high": high, "n": rounds}
        table.put(entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metadata", type=Path)
    parser.add_argument("--others", type=Path, required=True)
    parser.add_argument("--others-root", type=Path)
    parser.add_argument("--native", type=Path, required=True, help="folder of frontal radiographs at their own size")
    parser.add_argument("--bundle", default=DEFAULT)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()

    table = Table(Gates(options.bundle))
    native = [read_radiograph(path) for path in sorted(options.native.rglob("*")) if path.suffix not in (".csv", "")]
    drawn = draw_images(options.metadata, IMAGES, lambda image: True)
    images = [image.radiograph for image in drawn]
    others = others_of(read_others(options.others, options.others_root))
    accepted(table, drawn, native, options.metadata)
    refused(table, others)
    geometry(table, images)
    sizes(table, [*native, *images[:100]])
    near = [image for name in ("cxr_lateral", "mammogram") for image in others.get(name, [])]
    far = [image for name, held in others.items() if name not in ("cxr_lateral", "mammogram") for image in held]
    ranking(
        table,
        [*native, *images],
        {"far: negative examples": (far, "≥ 0.995"), "near: other radiographs": (near, "≥ 0.97")},
    )
    times(table, native[0])
    if options.json:
        command = "python benchmarks/gate.py metadata.csv --others gate_samples.csv --others-root DIR --native DIR"
        split = {"name": "test", "digest": make_split(build_index(options.metadata, check=False), SplitConfig()).digest}
        learned = [other for other in read_others(options.others) if other.split == "train"]
        facts = {"command": command, "split": split, "learned_from": counts(learned)}
        write_json(options.json, {**facts, "rows": table.rows})


if __name__ == "__main__":
    sys.exit(main())
