"""Networks whose reading is known: of the border, of the lungs, of both, of nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hilum.audit import refit
from hilum.audit.conclusion import conclude
from hilum.audit.erasure import dilate
from hilum.audit.findings import judge, model_findings
from hilum.audit.model_shortcuts import ModelShortcuts, audit_model
from hilum.audit.treatments import ERASURES, HEADLINE, TREATMENTS, partners_of, trained_treatments
from hilum.backends.base import BackendOutput, Floats
from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.format import format_interval
from hilum.metrics.bootstrap import bootstrap

SIDE = 32
SPEC = PreprocessSpec(size=SIDE)
NAMES = ("a", "b")
BORDER = (slice(0, 2), slice(0, SIDE))
INSIDE = (slice(14, 18), slice(8, 12))
LUNG = np.zeros((SIDE, SIDE), bool)
LUNG[8:24, 7:14] = LUNG[8:24, 18:25] = True

Reading = Callable[[Floats], np.ndarray]


class Reader:
    """Class b where ``reading`` of the images (N, S, S) in [0, 1] is positive; keeps the sizes of its batches."""

    def __init__(self, reading: Reading, classes: int = 2) -> None:
        self.reading, self.classes, self.batches = reading, classes, list[int]()

    def run(self, images: Floats) -> BackendOutput:
        assert images.shape[1:] == (1, SIDE, SIDE)
        assert images.dtype == np.float32
        self.batches.append(len(images))
        score = np.asarray(self.reading(images[:, 0]), np.float32)
        logits = np.zeros((len(images), self.classes), np.float32)
        logits[:, 1] = score
        return BackendOutput(images, logits, None)


def _border(images: Floats) -> np.ndarray:
    return images[(slice(None), *BORDER)].mean(axis=(1, 2)) - 0.5


def _inside(images: Floats) -> np.ndarray:
    return images[(slice(None), *INSIDE)].mean(axis=(1, 2)) - 0.6  # above the gray of erase_fill


def _constant(images: Floats) -> np.ndarray:
    return np.full(len(images), -1.0)


def _images(labels: np.ndarray, *, border: bool = True, inside: bool = True) -> np.ndarray:
    """Gray images with a little noise; where asked, the border or the lungs are bright in class b."""
    images = np.random.default_rng(0).integers(98, 103, (labels.size, SIDE, SIDE)).astype(np.uint8)
    tone = np.where(labels == 1, 200, 60).astype(np.uint8)
    for row in range(labels.size):
        if inside:
            images[row][LUNG] = tone[row]
        if border:
            images[row][BORDER] = tone[row]
    return images


def _audit(reading: Reading, labels: np.ndarray, images: np.ndarray, **options: object) -> ModelShortcuts:
    lungs = np.broadcast_to(LUNG, images.shape)
    return audit_model(
        Reader(reading), images, lungs, labels, NAMES, np.arange(labels.size), SPEC, resamples=200, **options
    )  # type: ignore[arg-type]


LABELS = np.repeat([0, 1], [36, 24])


def test_a_network_that_reads_the_border_does_not_need_the_lungs() -> None:
    found = _audit(_border, LABELS, _images(LABELS))
    assert (found.images, found.left_out, found.classes) == (60, 0, 2)
    assert (found.majority_class, found.majority_share) == ("a", 0.6)
    assert found.shortcut_index.value == found.balanced_index.value == 1
    accuracies = {score.treatment: score.accuracy.value for score in found.scores}
    assert accuracies == {
        "intact": 1, "erased_inpaint": 1, "erased_mean": 1, "erased_fill": 1, "erased_blur": 1,
        "lungs_only": accuracies["lungs_only"], "border_only": 1,
        "background_other_class": 0, "background_same_class": 1,
    }  # fmt: skip
    follows = found.score("background_other_class").follows_background
    assert follows is not None
    assert follows.value == 1
    assert found.background_effect is not None
    assert found.background_effect.value == 1
    findings = model_findings(found)
    assert [(one.check, one.severity) for one in findings] == [
        ("model_shortcut", "error"), ("background_swap", "error"), ("border_alone", "warning"),
    ]  # fmt: skip
    assert all(figure in findings[0].message for figure in ("100.0%", "60%", "1.00 ("))


def test_a_network_that_reads_the_lungs_has_no_shortcut() -> None:
    found = _audit(_inside, LABELS, _images(LABELS))
    assert found.shortcut_index.value == found.balanced_index.value == 0
    assert found.score(HEADLINE).accuracy.value == 0.6
    assert found.score("lungs_only").accuracy.value == 1
    assert found.score("border_only").auc.value == 0.5
    other = found.score("background_other_class")
    assert other.accuracy.value == 1
    assert other.follows_background is not None
    assert other.follows_background.value == 0
    assert found.background_effect is not None
    assert found.background_effect.value == 0
    kept = [score.information_kept for score in found.scores if score.treatment in ("erased_fill", "border_only")]
    assert [one.value for one in kept if one] == [0, 0]
    assert [one.severity for one in model_findings(found)] == ["info"]


def test_blurred_lungs_do_not_accuse_an_honest_network_but_excuse_none() -> None:
    """How dense the lungs are survives a blur."""
    found = _audit(_inside, LABELS, _images(LABELS, border=False))
    index = found.score("erased_blur").index
    assert index is not None
    assert index.value > 0.9
    assert found.shortcut_index.value == 0
    judged = judge(found)
    assert judged.severity == "info"
    assert judged.open


def test_a_network_that_goes_flat_without_lungs_is_found_by_its_outputs() -> None:
    """It reads a marker outside the lungs, and where the surroundings of the lungs are too smooth, it gives one answer.

    By accuracy it is worse than a guess on every treated image, and it ranks them the wrong way round; what is left of
    the marker in its outputs shifts these by less than 0.01.
    """
    ring = dilate(LUNG) & ~LUNG
    images = np.random.default_rng(0).integers(90, 111, (60, SIDE, SIDE)).astype(np.uint8)
    images[:, :2] = np.where(LABELS == 1, 200, 60)[:, None, None]

    def cheat(images: Floats) -> np.ndarray:
        treated = images[:, ring].std(axis=1) * 255 < 5
        return np.where(treated, 0.5 - 0.01 * _border(images), 4 * _border(images))

    found = _audit(cheat, LABELS, images)
    assert found.score("intact").accuracy.value == 1
    for name in ERASURES:
        score = found.score(name)
        assert score.index is not None
        assert score.refitted_auc is not None
        assert (score.accuracy.value, score.auc.value, score.index.value, score.index.low) == (0.4, 0, 0, 0)
        assert score.refitted_auc.value == 1
        assert score.information_kept is not None
        assert score.information_kept.low > 0.9
    assert found.background_effect is not None
    assert found.background_effect.value == 0
    findings = {one.check: one.severity for one in model_findings(found)}
    assert findings == {"model_shortcut": "error", "border_alone": "warning"}
    assert conclude([], found, (), {}, has_model=True).model == "relies_on_them"


def test_the_refitted_figures_are_those_of_scikit_learn() -> None:
    """Uncertain outputs; groups of three images; a third class of too few groups is left out."""
    rng = np.random.default_rng(4)
    labels = np.r_[rng.choice(2, 120), [2] * 6]
    clusters = np.arange(126) // 3
    logits = rng.normal(size=(126, 3)) + np.eye(3)[labels] * [3.0, 0.5, 0]
    folds = refit.folds_of(labels, clusters)
    assert folds is not None
    assert folds.rows.tolist() == (labels < 2).tolist()
    own, fold = labels[:120], folds.fold
    assert all(np.unique(fold[clusters[:120] == group]).size == 1 for group in range(40))
    expected = np.zeros((120, 2))
    for number in range(5):
        out = fold == number
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(logits[:120][~out], own[~out])
        expected[out] = model.predict_proba(logits[:120][out])
    probabilities = refit.refitted(logits, folds)
    assert probabilities == pytest.approx(expected, abs=1e-6)
    weights = np.ones((1, 126))
    aucs = [roc_auc_score(own[fold == n], expected[fold == n, 1]) for n in range(5)]
    pairs = [np.prod(np.bincount(own[fold == n])) for n in range(5)]
    assert refit.refitted_auc(probabilities, folds, weights)[0] == pytest.approx(np.average(aucs, weights=pairs))
    entropy = log_loss(own, np.tile(np.bincount(own) / 120, (120, 1))) / np.log(2)
    assert refit.label_entropy(folds, weights)[0] == pytest.approx(entropy)
    assert refit.information(probabilities, folds, weights)[0] == pytest.approx(
        entropy - log_loss(own, expected) / np.log(2), abs=1e-5
    )


def test_outputs_that_know_nothing_carry_no_information() -> None:
    """Over many draws the cross-validated information of noise is at most 0, and the AUROC is that of chance."""
    rng = np.random.default_rng(0)
    bits, aucs = [], []
    for _ in range(30):
        labels = rng.choice(3, 150, p=[0.6, 0.3, 0.1])
        folds = refit.folds_of(labels, np.arange(150))
        assert folds is not None
        probabilities = refit.refitted(rng.normal(size=(150, 3)), folds)
        bits.append(refit.information(probabilities, folds, np.ones((1, 150)))[0])
        aucs.append(refit.refitted_auc(probabilities, folds, np.ones((1, 150)))[0])
    assert np.mean(bits) < 0
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)


def test_one_class_of_few_groups_has_no_refitted_classifier() -> None:
    assert refit.folds_of(np.repeat([0, 1], [30, 9]), np.arange(39)) is None
    labels = np.repeat([0, 1], [30, 9])
    found = _audit(_border, labels, _images(labels))
    assert found.refitted_images == 0
    assert all(score.refitted_auc is None for score in found.scores)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ((), None),
        (({},), ()),
        (({"shortcuts": {"erase_p": 0.0, "background_p": 0.0, "normal_class": "a"}},), ()),
        (({"shortcuts": {"erase_p": 0.1}}, {"shortcuts": {"erase_p": 0.0}}), ("erased_mean", "erased_fill")),
        (({"shortcuts": {"background_p": 0.2}},), ("background_other_class", "background_same_class")),
    ],
)
def test_the_treatments_of_the_training_are_known_from_its_settings(
    runs: tuple[dict[str, object], ...], expected: tuple[str, ...] | None
) -> None:
    assert trained_treatments(runs) == expected
    assert HEADLINE not in (expected or ())
    found = replace(_audit(_border, LABELS, _images(LABELS)), trained_on=expected)
    assert ("model_trained_on" in {one.check for one in model_findings(found)}) == bool(expected)


def test_a_filling_that_carries_the_surroundings_is_not_an_error() -> None:
    """A network that reads the lungs alone, on images whose surroundings have the tone of the class."""
    images = _images(LABELS)
    around = np.where(LUNG, 0, np.where(LABELS == 1, 200, 60)[:, None, None])
    found = _audit(_inside, LABELS, np.where(around > 0, around, images).astype(np.uint8))
    assert found.shortcut_index.value == 1
    assert found.score("erased_fill").auc.value == 0.5
    assert [one.severity for one in model_findings(found)] == ["warning"]


def test_a_network_without_skill_has_no_index() -> None:
    found = _audit(_constant, LABELS, _images(LABELS))
    assert np.isnan(found.shortcut_index.value)
    assert np.isnan(found.balanced_index.value)
    (finding,) = model_findings(found)
    assert (finding.check, finding.severity) == ("model_shortcut", "warning")
    assert "60.0% (56.4–62.4%†)" in finding.message


def test_the_balanced_index_answers_where_the_commonest_class_leaves_no_gain() -> None:
    """19 in 20 images are of class a; the network finds all of b by its border, at the cost of as many of a."""
    labels = np.repeat([0, 1], [228, 12])
    images = _images(labels)
    images[:12][(slice(None), *BORDER)] = 200
    found = _audit(_border, labels, images)
    assert np.isnan(found.shortcut_index.value)
    assert found.balanced_index.value == 1
    finding = next(one for one in model_findings(found) if one.check == "model_shortcut")
    assert finding.severity == "error"
    assert "1.00" in finding.message


def test_figures_and_intervals_are_those_of_scikit_learn_on_the_same_resamples() -> None:
    """A class shows in the gray of the border and in that of the lungs, both uncertain; groups of three images."""
    rng = np.random.default_rng(3)
    labels = rng.choice(3, 90, p=[0.5, 0.3, 0.2])
    radiographs = _images(labels, border=False, inside=False)
    for row, label in enumerate(labels):
        radiographs[row][BORDER], radiographs[row][LUNG] = (40 + 60 * label + rng.normal(0, 35, 2)).clip(1, 255)
        radiographs[row][4, 15] = rng.integers(1, 256)  # what a temperature needs to change an order of images
    clusters = 7 * (np.arange(90) // 3)  # numbered with gaps

    class Both(Reader):
        def run(self, images: Floats) -> BackendOutput:
            seen = np.stack([_border(images[:, 0]) + 0.5, _inside(images[:, 0]) + 0.6])[..., None]
            logits = -((seen * 255 - 40 - 60 * np.arange(3)) ** 2) / 1000
            logits[:, :, 2] += 2 * images[:, 0, 4, 15]
            return BackendOutput(images, (1.5 * logits[0] + logits[1]).astype(np.float32), None)

    found = audit_model(
        Both(_border), radiographs, np.broadcast_to(LUNG, radiographs.shape), labels, ("a", "b", "c"), clusters, SPEC,
        resamples=80, seed=5, batch_size=7, temperature=3.0,
    )  # fmt: skip
    answers = {}
    for name in ("intact", HEADLINE):
        treated = radiographs if name == "intact" else np.stack([ERASURES[name](one, LUNG) for one in radiographs])
        logits = Both(_border).run((treated / np.float32(255))[:, None]).classification.astype(float) / 3
        answers[name] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def expected(weights: np.ndarray) -> tuple[float, ...]:
        own = {"sample_weight": weights}
        accuracy = {name: accuracy_score(labels, p.argmax(axis=1), **own) for name, p in answers.items()}
        balanced = {name: balanced_accuracy_score(labels, p.argmax(axis=1), **own) for name, p in answers.items()}
        majority = max(weights[labels == k].sum() for k in range(3)) / weights.sum()
        auc = {
            name: np.mean([roc_auc_score(labels == k, p[:, k], **own) for k in range(3)]) for name, p in answers.items()
        }
        return (
            (accuracy[HEADLINE] - majority) / (accuracy["intact"] - majority),
            (balanced[HEADLINE] - 1 / 3) / (balanced["intact"] - 1 / 3),
            auc["intact"],
            auc[HEADLINE],
            accuracy[HEADLINE],
        )

    score = found.score(HEADLINE)
    intervals = (found.shortcut_index, found.balanced_index, found.score("intact").auc, score.auc, score.accuracy)
    every, classes = np.ones(90, np.bool_), [labels == k for k in range(3)]
    intact = found.score("intact")
    accuracy, balanced = intact.accuracy.value, intact.balanced_accuracy.value
    majority = np.bincount(labels).max() / 90
    bounds = [(-m / (a - m), (1 - m) / (a - m)) for a, m in ((accuracy, majority), (balanced, 1 / 3))] + [
        (0.0, 1.0)
    ] * 3
    again = bootstrap(
        lambda weights: dict(enumerate(np.array([expected(one) for one in weights]).T)), dict.fromkeys(range(5), every),
        clusters // 7, strata=labels, bounds=dict(enumerate(bounds)), sides=dict.fromkeys((1, 2, 3), classes),
        shares=[4], aurocs=(2, 3), resamples=80, seed=5,
    )  # fmt: skip
    for interval, own in zip(intervals, again.values(), strict=True):
        assert astuple(interval) == pytest.approx(astuple(own), abs=1e-9)
    assert 0 < found.shortcut_index.low < found.shortcut_index.value < found.shortcut_index.high


def test_images_without_label_or_lungs_are_left_out_and_counted() -> None:
    labels = LABELS.copy()
    labels[[0, 59]] = -1
    lungs = np.repeat(LUNG[None], 60, axis=0)
    lungs[[0, 1, 2]] = False
    images = _images(LABELS)
    images[1:3] = 255  # read wrongly, were they read
    backend = Reader(_border)
    calls: list[tuple[int, int]] = []
    found = audit_model(
        backend, images, lungs, labels, NAMES, np.arange(60), SPEC, resamples=20, batch_size=25,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert (found.images, found.left_out) == (56, 2)
    assert found.score("intact").accuracy.value == 1
    assert found.score("intact").accuracy.n == 56
    assert backend.batches == [25, 25, 6] * len(TREATMENTS)
    assert calls[0] == (25, 56 * 9)
    assert calls[-1] == (56 * 9, 56 * 9)
    assert "model_left_out" in {one.check for one in model_findings(found)}


def test_batches_change_nothing_and_the_seed_draws_the_backgrounds() -> None:
    radiographs = _images(LABELS) + np.arange(60, dtype=np.uint8)[:, None, None] % 7

    def reading(images: Floats) -> np.ndarray:
        return _border(images) + np.sin(images.sum(axis=(1, 2)))

    one = _audit(reading, LABELS, radiographs, batch_size=1)
    assert one == _audit(reading, LABELS, radiographs, batch_size=64)
    other = _audit(reading, LABELS, radiographs, seed=1)
    assert one.score("background_other_class").auc.value != other.score("background_other_class").auc.value
    assert one.score("erased_fill").auc.value == other.score("erased_fill").auc.value


def test_backgrounds_come_from_another_class_or_from_another_image_of_the_same() -> None:
    labels = np.array([2, 0, 0, 1, 0, 2])
    partners = partners_of(labels, np.random.default_rng(0))
    other, same = partners["background_other_class"], partners["background_same_class"]
    assert (labels[other] != labels).all()
    assert (labels[same] == labels).all()
    assert (same == np.arange(6)).tolist() == [False, False, False, True, False, False]  # alone in its class


def test_one_class_alone_has_no_swaps() -> None:
    labels = np.zeros(12, np.int64)
    found = _audit(_border, labels, _images(labels))
    assert [score.treatment for score in found.scores] == list(TREATMENTS[:-2])
    assert found.background_effect is None
    assert np.isnan(found.shortcut_index.value)  # nothing to gain over the majority


def test_one_group_alone_says_nothing_surely() -> None:
    images = _images(LABELS)
    lungs = np.broadcast_to(LUNG, images.shape)
    found = audit_model(Reader(_border), images, lungs, LABELS, NAMES, np.zeros(60, np.int64), SPEC, resamples=20)
    assert found.shortcut_index.value == 1
    (finding,) = model_findings(found)
    assert finding.severity == "warning"


def test_a_weak_shortcut_is_a_warning() -> None:
    """A fifth of the images shows its class at the border alone: the index is known by count."""
    labels = np.repeat([0, 1], 200)
    radiographs = _images(labels, border=False)
    radiographs[:40][(slice(None), *BORDER)], radiographs[200:240][(slice(None), *BORDER)] = 0, 255

    def reading(images: Floats) -> np.ndarray:
        border = _border(images) * (np.abs(_border(images)) > 0.4)
        return np.where(border == 0, _inside(images), border)

    found = _audit(reading, labels, radiographs)
    # Erased: 80 images by their border, the rest all called a.
    assert found.score(HEADLINE).accuracy.value == pytest.approx((40 + 160 + 40) / 400)
    assert found.shortcut_index.value == pytest.approx(0.2)
    finding = next(one for one in model_findings(found) if one.check == "model_shortcut")
    assert finding.severity == "warning"
    assert format_interval(found.shortcut_index, 2) in finding.message


def test_refusals_say_what_came() -> None:
    radiographs = _images(LABELS)
    lungs = np.broadcast_to(LUNG, radiographs.shape)
    with pytest.raises(DataError):
        audit_model(Reader(_border), radiographs, lungs, LABELS[1:], NAMES, np.arange(60), SPEC)
    with pytest.raises(DataError):
        audit_model(Reader(_border), radiographs, np.zeros_like(lungs), LABELS, NAMES, np.arange(60), SPEC)
    with pytest.raises(DataError):
        audit_model(Reader(_border, classes=3), radiographs, lungs, LABELS, NAMES, np.arange(60), SPEC)
    with pytest.raises(DataError):
        _audit(lambda images: np.full(len(images), np.nan), LABELS, radiographs)
