"""Planted copies are found, other images are not; clusters and counts against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from hilum.audit.candidates import COMPARE_ALL, NEIGHBORS, _neighbors, find_candidates
from hilum.audit.duplicates import Pair, find_duplicates, joined, summarize
from hilum.audit.verify import THRESHOLD, similarity
from hilum.data.fingerprint import Prints, fingerprint, stack
from hilum.errors import DataError
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom
from hilum.types import NO_LABEL, Record, SplitName

Image = np.ndarray


def _rotated(image: Image) -> Image:
    side = image.shape[0]
    return cv2.warpAffine(image, cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, 3, 1), (side, side))


CHANGES: dict[str, Callable[[Image], Image]] = {
    "smaller": lambda image: cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, None, fx=1.3, fy=1.3),
    "cropped": lambda image: image[5:-5, 5:-5],
    "darker": lambda image: np.rint(255 * (image / 255) ** 1.7).astype(np.uint8),
    "jpeg": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0),
    "rotated": _rotated,
    "framed": lambda image: cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=255),
}


def _prints(images: Sequence[Image]) -> Prints:
    return stack(fingerprint(np.ascontiguousarray(pixels)) for pixels in images)


def _image(seed: int) -> Image:
    return draw_phantom(seed, PHANTOM_CLASSES[seed % 4], size=128).image


def _another_day(image: Image) -> Image:
    """The same chest with each part moved by up to 4% of the side, as breathing and posture do."""
    random, side = np.random.default_rng(0), image.shape[0]
    coarse = random.uniform(-1, 1, (2, 5, 5)).astype(np.float32)
    move = [cv2.resize(axis, (side, side), interpolation=cv2.INTER_CUBIC) * 0.04 * side for axis in coarse]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return cv2.remap(image, x + move[0], y + move[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("changes", [*[(name,) for name in CHANGES], ("cropped", "jpeg"), ("darker", "rotated")])
def test_a_changed_copy_is_the_same_image(changes: tuple[str, ...]) -> None:
    copy = _image(6)
    for name in changes:
        copy = CHANGES[name](copy)
    prints = _prints([_image(6), copy])
    assert [(pair.first, pair.second, pair.exact) for pair in find_duplicates(prints, "ab")] == [(0, 1, False)]


def test_other_images_are_not_nor_is_another_day() -> None:
    images = [_image(seed) for seed in range(8)]
    assert not find_duplicates(_prints(images), [str(row) for row in range(8)])
    prints = _prints([images[2], _another_day(images[2])])
    assert max(similarity(prints, 0, 1), similarity(prints, 1, 0)) < THRESHOLD


def test_flat_images_match_nothing_but_their_bytes() -> None:
    flat = np.full((64, 64), 9, np.uint8)
    pairs = find_duplicates(_prints([flat, flat + 1, flat, _image(0)]), ["a", "b", "a", "c"])
    assert pairs == (Pair(0, 2, True, 1.0),)


def test_the_search_finds_the_planted_copies_among_more_images() -> None:
    images = [_image(0), *(_image(seed) for seed in range(40))]  # rows 0 and 1 are equal files
    changed = [0, *range(2, 1 + len(CHANGES))]  # row 1 is not compared: row 0 stands for it
    images += [change(images[row]) for row, change in zip(changed, CHANGES.values(), strict=True)]
    planted = {(row, 41 + number) for number, row in enumerate(changed)}
    prints = _prints(images)
    assert len(images) - 1 > COMPARE_ALL
    found = find_candidates(prints)
    keys = {*zip(found.first.tolist(), found.second.tolist(), strict=True)}
    assert len(keys) == found.first.size <= 2 * NEIGHBORS * len(images)
    assert all(one != two and (two, one) not in keys for one, two in keys)
    calls: list[tuple[int, int]] = []
    digests = [str(max(row, 1)) for row in range(len(images))]
    pairs = find_duplicates(prints, digests, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] <= 2 * NEIGHBORS * (len(images) - 1)
    assert {(pair.first, pair.second) for pair in pairs if not pair.exact} == planted
    assert [(pair.first, pair.second) for pair in pairs if pair.exact] == [(0, 1)]


def test_a_small_set_is_compared_whole() -> None:
    found = find_candidates(_prints([_image(seed) for seed in range(4)]))
    assert {frozenset(pair) for pair in zip(found.first.tolist(), found.second.tolist(), strict=True)} == {
        frozenset(pair) for pair in itertools.combinations(range(4), 2)
    }
    assert found.zoomed.sum() == 2 * 6  # either of two may be the enlarged one


def test_neighbors_are_those_of_brute_force() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    queries = vectors + np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32)
    nearest, cosines = _neighbors(queries, vectors)
    for row, query in enumerate(queries):
        products = [(float(query @ vector), other) for other, vector in enumerate(vectors) if other != row]
        best = sorted(products, reverse=True)[:NEIGHBORS]
        assert sorted(nearest[row].tolist()) == sorted(other for _, other in best)
        assert np.allclose(np.sort(cosines[row])[::-1], [value for value, _ in best], atol=1e-5)


def test_equal_files_are_paired_with_the_first_which_alone_is_compared() -> None:
    image, other = _image(1), _image(2)
    prints = _prints([other, image, image, CHANGES["darker"](image), image])
    pairs = find_duplicates(prints, ["o", "f", "f", "d", "f"])
    assert [(pair.first, pair.second, pair.exact) for pair in pairs] == [(1, 2, True), (1, 3, False), (1, 4, True)]
    assert all(pair.similarity == 1.0 for pair in pairs if pair.exact)
    assert all(THRESHOLD <= pair.similarity <= 1 for pair in pairs if not pair.exact)


def test_nothing_and_one_image_have_no_pairs_and_digests_must_fit() -> None:
    assert find_duplicates(stack([]), []) == ()
    assert find_duplicates(_prints([_image(0)]), ["a"]) == ()
    with pytest.raises(DataError):
        find_duplicates(_prints([_image(0)]), ["a", "b"])


def _random_pairs(count: int, edges: int) -> list[Pair]:
    random = np.random.default_rng(edges)
    ends = np.sort(random.integers(0, count, (edges, 2)), axis=1)
    return [Pair(int(one), int(two), bool(one % 2), 1.0) for one, two in ends if one != two]


@pytest.mark.parametrize("edges", [0, 10, 40])
def test_clusters_are_the_connected_components(edges: int) -> None:
    pairs = _random_pairs(50, edges)
    ends = np.array([(pair.first, pair.second) for pair in pairs], int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(50, 50))
    names = connected_components(graph, directed=False)[1]
    expected = [int(np.flatnonzero(names == name)[0]) for name in names]
    assert joined(pairs, 50).tolist() == expected


def test_the_summary_counts_what_a_loop_counts() -> None:
    random, pairs = np.random.default_rng(0), _random_pairs(50, 30)
    labels = random.choice(["A", "B", ""], 50).tolist()
    records = [Record(Path(f"{row}.png"), label=label or None) for row, label in enumerate(labels)]
    names: tuple[SplitName, ...] = ("train", "test")
    splits: list[SplitName | None] = [(*names, None)[code] for code in random.integers(0, 3, 50)]
    summary = summarize(pairs, records, splits)
    cluster = joined(pairs, 50)
    together = [(one, two) for one, two in itertools.combinations(range(50), 2) if cluster[one] == cluster[two]]
    assert summary.class_names == ("A", "B", NO_LABEL)
    assert summary.split_names == names
    kinds = [label or NO_LABEL for label in labels]
    for table, own, keys in (
        (summary.by_class, kinds, summary.class_names),
        (summary.by_split, splits, summary.split_names),
    ):
        for (row, one), (column, two) in itertools.product(enumerate(keys), repeat=2):
            expected = sum({own[a], own[b]} == {one, two} for a, b in together)
            assert table[row, column] == expected, (one, two)
    involved = {row for pair in together for row in pair}
    assert summary.images == len(involved)
    assert summary.clusters == len({int(cluster[row]) for row in involved})
    assert summary.surplus == summary.images - summary.clusters
    assert summary.exact_pairs + summary.near_pairs == len(pairs)


def test_the_summary_of_nothing_is_zero() -> None:
    summary = summarize([], [Record(Path("a.png"))], [None])
    assert (summary.clusters, summary.images, summary.class_names, summary.split_names) == (0, 0, (), ())
    with pytest.raises(DataError):
        summarize([], [Record(Path("a.png"))], [])
