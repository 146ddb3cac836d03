"""One predictor: both backends agree on files, and a bad file stops nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from hilum.backends.base import BackendOutput
from hilum.bundle.bundle import Bundle, Manifest, load_bundle
from hilum.bundle.gate import open_gate
from hilum.bundle.prediction_sets import softmax
from hilum.config import ModelConfig, PreprocessSpec
from hilum.cpus import available_cpus
from hilum.errors import ConfigError
from hilum.gate import ClassicGate, GateThresholds, NoGate, OrientationFix, Reading, Thresholds, Verdict
from hilum.imaging.read import read_radiograph
from hilum.inference.predictor import Predictor, Source
from hilum.inference.result import Prediction, Result
from hilum.phantoms.chest import draw_phantom
from hilum.run_folder import RunFolder
from hilum.types import Radiograph

NAMES = ("dark", "bright")


class Bright:
    """A network of one line: lung where it is bright; the class by the mean. It remembers its batch sizes."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        self.batches.append(len(images))
        mean = images.mean((1, 2, 3))
        evidence = np.stack([-images[:, 0, ::8, ::8], images[:, 0, ::8, ::8]], axis=1)
        return BackendOutput(images[:, :1], np.stack([0.3 - mean, mean - 0.3], 1) * np.float32(9), evidence)


def bundle(spec: PreprocessSpec | None = None, **fields: object) -> Bundle:
    manifest = Manifest.model_validate(
        {
            "name": "bright",
            "class_names": NAMES,
            "preprocess": spec or PreprocessSpec(size=64),
            "model": ModelConfig(),
            "bundle_id": "b" * 64,
            **fields,
        }
    )
    return Bundle(manifest, {}, Path("bright"))


def predictor(spec: PreprocessSpec | None = None, batch_size: int = 4, **fields: object) -> Predictor:
    return Predictor(bundle(spec, **fields), backend=Bright(), gate=NoGate(), batch_size=batch_size)


def phantom(seed: int = 0, size: int = 64) -> NDArray[np.uint8]:
    return draw_phantom(seed, "Normal", size=size).image


def write(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


def write_dicom(path: Path, pixels: NDArray[np.uint16], photometric: str = "MONOCHROME2") -> Path:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    path.write_bytes(stream.getvalue())
    return path


def answered(answer: Result) -> Prediction:
    assert isinstance(answer, Prediction), answer
    return answer


# One image


def test_answers_in_the_bundles_terms(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", phantom())
    prediction = answered(predictor(temperature=2.0).predict(path))
    mean = phantom().mean(dtype=np.float64) / 255
    expected = softmax(np.array([[0.3 - mean, mean - 0.3]], np.float32) * np.float32(9), temperature=2.0)[0]
    np.testing.assert_allclose(list(prediction.probabilities.values()), expected, atol=1e-6)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert prediction.label == NAMES[int(expected.argmax())]
    assert prediction.prediction_set == (prediction.label,)
    assert prediction.origin == str(path)
    assert prediction.bundle_id == "b" * 64
    assert prediction.evidence is not None
    assert prediction.evidence.shape == (2, 8, 8)


def test_mask_threshold_is_the_bundles(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[10:50, 10:30], pixels[10:50, 30:40] = 100, 200
    path = write(tmp_path / "image.png", pixels)
    low, high = (answered(predictor(mask_threshold=value).predict(path)) for value in (0.2, 0.6))
    np.testing.assert_array_equal(low.mask, pixels > 0.2 * 255)
    np.testing.assert_array_equal(high.mask, pixels > 0.6 * 255)
    assert low.lung_fraction == low.mask.mean() > high.lung_fraction


def test_specks_are_removed_from_the_mask(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[10:50, 10:30] = 255  # 800 pixels
    pixels[20:23, 40:43] = 255  # 9 pixels stay
    whole = pixels > 0
    pixels[5:7, 50:52] = 255  # 4 do not
    prediction = answered(predictor().predict(write(tmp_path / "image.png", pixels)))
    np.testing.assert_array_equal(prediction.mask, whole)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (31, 200), (513, 300), (1, 1), (1, 300), (400, 2)])
def test_mask_has_the_files_own_size(tmp_path: Path, shape: tuple[int, int], fit: str) -> None:
    pixels = np.zeros(shape, np.uint8)
    pixels[:, shape[1] // 2 :] = 255  # the right half is bright
    path = write(tmp_path / "image.png", pixels)
    prediction = answered(predictor(PreprocessSpec(size=64, fit=fit)).predict(path))  # type: ignore[arg-type]
    assert prediction.mask.shape == shape
    assert prediction.mask.dtype == np.bool_
    if min(shape) > 30:
        assert (prediction.mask == (pixels > 0)).mean() > 0.95


def test_a_radiograph_is_a_source_too() -> None:
    radiograph = Radiograph(phantom(), origin="upload 7")
    assert answered(predictor().predict(radiograph)).origin == "upload 7"


# Prediction sets and abstention


def test_the_prediction_set_is_of_the_bundles_level(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", phantom())
    plain = answered(predictor().predict(path))
    likely, other = plain.label, next(name for name in NAMES if name != plain.label)
    score = float(1 - plain.probabilities[other])
    assert 0.5 < score < 0.999
    quantiles = {"0.90": (score - 0.01,) * 2, "0.95": (score + 0.001,) * 2, "0.99": (1.0, 1.0)}
    sets = {
        level: answered(
            predictor(conformal_quantiles=quantiles, prediction_set_level=level).predict(path)
        ).prediction_set
        for level in ("0.90", "0.95", "0.99", "0.80")
    }
    alone, both = (likely,), (likely, other)
    assert sets == {"0.90": alone, "0.95": both, "0.99": both, "0.80": alone}
    assert answered(predictor(conformal_quantiles=quantiles).predict(path)).prediction_set == alone  # 0.90
    assert answered(predictor(conformal_quantiles={"0.90": (0.0, 0.0)}).predict(path)).prediction_set == alone


def test_each_class_has_its_own_quantile(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", phantom())
    dark, bright = (
        answered(predictor(conformal_quantiles={"0.90": quantiles}).predict(path)).prediction_set
        for quantiles in ((1.0, 0.0), (0.0, 1.0))
    )
    label = answered(predictor().predict(path)).label
    assert {*dark} == {"dark", label}
    assert {*bright} == {"bright", label}
    assert dark != bright


def test_a_prediction_below_the_threshold_abstains_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "image.png", phantom())
    plain = answered(predictor().predict(path))
    best = plain.probability
    assert not plain.abstained
    assert not answered(predictor(abstention_threshold=best).predict(path)).abstained  # at the threshold it answers
    doubtful = answered(predictor(abstention_threshold=best + 0.001).predict(path))
    assert doubtful.abstained
    assert doubtful.label == plain.label
    (finding,) = doubtful.findings
    assert (finding.check, finding.severity, finding.records) == ("low_confidence", "warning", (str(path),))
    assert f"{best:.4g}" in finding.message
    assert f"{best + 0.001:.4g}" in finding.message
    temperate = answered(predictor(abstention_threshold=best, temperature=3.0).predict(path))
    assert temperate.abstained  # the probability after temperature counts


def test_the_predicted_class_sets_temperature_and_threshold(tmp_path: Path) -> None:
    """The answer stays; another class's temperature and threshold are no matter."""
    path = write(tmp_path / "image.png", phantom())
    plain = answered(predictor().predict(path))
    own, other = plain.class_names.index(plain.label), 1 - plain.class_names.index(plain.label)

    def with_own(mine: float | None, theirs: float | None) -> tuple[float | None, ...]:
        return (mine, theirs) if own == 0 else (theirs, mine)

    expected = answered(predictor(temperature=3.0).predict(path))
    warm = answered(
        predictor(class_temperatures=with_own(3.0, 0.1), class_thresholds=with_own(0.0, None)).predict(path)
    )
    assert warm.label == plain.label == expected.label
    assert warm.probabilities == expected.probabilities
    assert not warm.abstained
    names = {"class_temperatures": (3.0, 3.0), "temperature": 0.1, "abstention_threshold": 0.0}
    for threshold in (expected.probability + 0.001, None):
        doubtful = answered(predictor(class_thresholds=with_own(threshold, 0.0), **names).predict(path))
        assert doubtful.abstained
        assert doubtful.probabilities == expected.probabilities
        (finding,) = doubtful.findings
        assert (finding.check, finding.severity, finding.records) == ("low_confidence", "warning", (str(path),))
    assert plain.class_names[other] not in finding.message


# Depth and format


def test_depth_and_format_do_not_change_the_answer(tmp_path: Path) -> None:
    """A 16-bit PNG and 12-bit DICOMs of both polarities that hold the same image as an 8-bit PNG."""
    gray = phantom(size=96)
    twelve = np.rint(gray.astype(np.float64) * 4095 / 255).astype(np.uint16)
    files = [
        write(tmp_path / "image8.png", gray),
        write(tmp_path / "image16.png", gray.astype(np.uint16) * 257),
        write_dicom(tmp_path / "image.dcm", twelve),
        write_dicom(tmp_path / "inverted.dcm", 4095 - twelve, "MONOCHROME1"),
    ]
    reference, *others = (answered(answer) for answer in predictor().predict_many(files))
    for other in others:
        assert other.label == reference.label
        np.testing.assert_allclose(
            list(other.probabilities.values()), list(reference.probabilities.values()), atol=0.01
        )
        assert (other.mask == reference.mask).mean() > 0.995
        assert other.mask.shape == (96, 96)


def test_color_and_transparency_are_read_as_gray(tmp_path: Path) -> None:
    gray = Image.fromarray(phantom())
    gray.save(tmp_path / "gray.png")
    gray.convert("RGB").save(tmp_path / "rgb.png")
    gray.convert("RGBA").save(tmp_path / "rgba.png")
    gray.convert("RGB").convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    names = ("gray.png", "rgb.png", "rgba.png", "cmyk.jpg")
    reference, *others = predictor().predict_many([tmp_path / name for name in names])
    for other in others:
        np.testing.assert_allclose(
            list(answered(other).probabilities.values()), list(answered(reference).probabilities.values()), atol=0.02
        )


# Many images


def test_a_bad_file_in_the_middle_becomes_a_refusal_and_the_order_is_kept(tmp_path: Path) -> None:
    good = [write(tmp_path / f"{number}.png", phantom(number)) for number in range(5)]
    torn = tmp_path / "torn.png"
    torn.write_bytes(good[0].read_bytes()[:300])
    text = tmp_path / "text.jpg"
    text.write_text("Dear colleague")
    (tmp_path / "folder.png").mkdir()
    sources = [good[0], torn, good[1], text, tmp_path / "folder.png", tmp_path / "absent.png", *good[2:]]
    answers = list(predictor(batch_size=3).predict_many(sources))
    assert [answer.origin for answer in answers] == [str(path) for path in sources]
    bad = [index for index, answer in enumerate(answers) if not answer.ok]
    assert bad == [1, 3, 4, 5]
    for index in bad:
        refusal = answers[index]
        assert not refusal.ok
        assert refusal.status == "unreadable"
        assert str(sources[index]) in refusal.reason
        assert answers[index].radiograph is None
        assert refusal.findings[0].severity == "error"
    alone = [list(answered(predictor().predict(path)).probabilities.values()) for path in good]
    together = [list(answered(answers[index]).probabilities.values()) for index in (0, 2, 6, 7, 8)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_only_bad_files_and_none_at_all(tmp_path: Path) -> None:
    engine = Bright()
    predict = Predictor(bundle(), backend=engine, gate=NoGate())
    answers = list(predict.predict_many([tmp_path / "a.png", tmp_path / "b.png"]))
    assert [answer.origin for answer in answers] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert list(predict.predict_many([])) == []
    assert engine.batches == []  # nothing was left to run on


def test_the_bundles_gate_refuses_with_its_reasons(tmp_path: Path) -> None:
    flat = write(tmp_path / "flat.png", np.full((300, 300), 100, np.uint8))
    small = write(tmp_path / "small.png", phantom(size=64))
    strict = bundle(gate=GateThresholds(classic=Thresholds(minimum_side=80)))
    predict = Predictor(strict, backend=Bright(), gate=open_gate(strict, "classic"))
    first, second = (answer for answer in predict.predict_many([flat, small]))
    assert not first.ok
    assert first.status == "refused"
    assert {"contrast", "entropy", "gray_levels"} <= {finding.check for finding in first.findings}
    assert "standard deviation 0" in first.reason
    assert not second.ok
    assert "64 px (64 x 64), expected at least 80 px" in second.reason
    lenient = Predictor(bundle(), backend=Bright(), gate=ClassicGate(Thresholds(minimum_side=64)))
    assert isinstance(lenient.predict(small), Prediction)


class Upends:
    """A gate that finds every wide image rotated, and adds a finding to each after the network has run."""

    name = "upends"

    def __call__(self, radiograph: Radiograph) -> Verdict:
        height, width = radiograph.shape
        turned = Reading("rotated", "wide", "tall", width <= height)
        return Verdict.of((turned,), radiograph.origin, None if turned.passed else OrientationFix(1))

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        return (Reading("odd_lungs", "odd", "even", passed=False),)


def test_what_is_refused_after_it_was_put_right_says_both() -> None:
    wide = Radiograph(phantom(size=64)[:32], origin="wide.png")
    plain = Predictor(bundle(), backend=Bright(), gate=Upends()).predict(wide)
    assert [finding.check for finding in plain.findings] == ["rotated"]
    fixed = Predictor(bundle(), backend=Bright(), gate=Upends(), fix_orientation=True).predict(wide)
    assert not fixed.ok
    assert [finding.check for finding in fixed.findings] == ["orientation_fixed", "odd_lungs"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 50])
def test_batches_are_as_asked_and_change_nothing(batch_size: int) -> None:
    radiographs = [Radiograph(phantom(number, size=32), origin=str(number)) for number in range(7)]
    engine = Bright()
    answers = list(Predictor(bundle(), backend=engine, gate=NoGate(), batch_size=batch_size).predict_many(radiographs))
    assert engine.batches == [batch_size] * (7 // batch_size) + ([7 % batch_size] if 7 % batch_size else [])
    alone = [answered(predictor().predict(image)) for image in radiographs]
    for answer, expected in zip(answers, alone, strict=True):
        assert answered(answer).label == expected.label
        np.testing.assert_allclose(
            list(answered(answer).probabilities.values()), list(expected.probabilities.values()), atol=1e-6
        )


@pytest.mark.parametrize("is_threaded", [False, True])
def test_sources_are_taken_as_they_are_needed(is_threaded: bool) -> None:
    """Memory must not grow with the number of images: a million of them, of which a few are looked at."""
    taken = 0

    def endless() -> Iterator[Radiograph]:
        nonlocal taken
        while True:
            taken += 1
            yield Radiograph(phantom(0, size=32), origin=str(taken))

    engine = Threaded() if is_threaded else Bright()
    ahead = 4 * (available_cpus() + 3) if is_threaded else 4 * 4
    answers = Predictor(bundle(), backend=engine, gate=NoGate(), batch_size=4).predict_many(endless())
    for number in range(1, 41):
        assert next(answers).origin == str(number)
        assert taken <= number + ahead
    answers.close()  # type: ignore[attr-defined]


class Threaded(Bright):
    """Counts the forward passes of its network on one thread, which all threads share."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = Bright()

    def on_one_thread(self) -> Bright:
        return self.alone


def test_each_processor_takes_a_few_images_and_the_order_is_kept(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number:02}.png", phantom(number, size=32)) for number in range(21)]
    files[7].write_bytes(b"no image")
    engine = Threaded()
    predict = Predictor(bundle(), backend=engine, gate=NoGate(), batch_size=8)
    pairs = list(predict.process(files, lambda source, result: (source, result.origin)))
    assert [made for _, made in pairs] == [(file, str(file)) for file in files]
    assert [result.origin for result, _ in pairs] == [str(file) for file in files]
    assert [n for n, (result, _) in enumerate(pairs) if not result.ok] == [7]
    assert engine.batches == []
    assert sorted(engine.alone.batches) == [1, 3, 4, 4, 4, 4]
    plain = Predictor(bundle(), backend=Bright(), gate=NoGate(), batch_size=8)
    for (result, _), expected in zip(pairs, plain.predict_many(files), strict=True):
        assert result.probabilities == expected.probabilities
        assert result.reason == expected.reason


def test_few_images_use_the_network_on_all_threads() -> None:
    engine = Threaded()
    radiographs = [Radiograph(phantom(number, size=32), origin=str(number)) for number in range(4)]
    assert len(list(Predictor(bundle(), backend=engine, gate=NoGate()).predict_many(radiographs))) == 4
    assert (engine.batches, engine.alone.batches) == ([4], [])


@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("engine", [Bright(), Threaded()], ids=["one network", "one per processor"])
def test_an_error_of_the_work_comes_after_the_pairs_before_it(engine: Bright, count: int) -> None:
    def work(source: Source, result: Result) -> str:
        if result.origin == str(count - 2):
            raise LookupError
        return result.origin

    images = (Radiograph(phantom(0, size=32), origin=str(number)) for number in range(count))
    found: list[str] = []
    with pytest.raises(LookupError):
        found.extend(made for _, made in Predictor(bundle(), backend=engine, gate=NoGate()).process(images, work))
    assert found == [str(number) for number in range(count - 2)]


# A real bundle


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve phantoms of several sizes, which the gate lets pass."""
    folder = tmp_path_factory.mktemp("radiographs")
    labels = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    return [
        write(folder / f"{number}.png", draw_phantom(100 + number, labels[number % 4], size=256 + 24 * number).image)
        for number in range(12)
    ]


def test_both_backends_agree_on_files(trained_run: RunFolder, radiographs: list[Path]) -> None:
    opened = load_bundle(trained_run.bundle)
    one, two = (list(Predictor(opened, backend=name).predict_many(radiographs)) for name in ("pytorch", "onnxruntime"))
    for first, second, path in zip(one, two, radiographs, strict=True):
        reference, candidate = answered(first), answered(second)
        assert candidate.label == reference.label
        np.testing.assert_allclose(
            list(candidate.probabilities.values()), list(reference.probabilities.values()), atol=1e-4
        )
        assert candidate.mask.shape == read_radiograph(path).shape
        assert (candidate.mask == reference.mask).mean() >= 0.9999
        assert candidate.evidence is not None
        assert reference.evidence is not None
        np.testing.assert_allclose(candidate.evidence, reference.evidence, atol=1e-4)


def test_any_batch_size_gives_the_same_labels(trained_run: RunFolder, radiographs: list[Path]) -> None:
    opened = load_bundle(trained_run.bundle)
    runs = [list(Predictor(opened, batch_size=size).predict_many(radiographs)) for size in (1, 5, 12)]
    for answers in zip(*runs, strict=True):
        first, *others = (answered(answer) for answer in answers)
        for other in others:
            assert other.label == first.label
            np.testing.assert_allclose(
                list(other.probabilities.values()), list(first.probabilities.values()), atol=1e-5
            )


def test_what_a_bundle_does_not_hold_of_an_answer_is_told() -> None:
    assert Predictor(bundle(), backend=Bright()).settings == ""
    assert Predictor(bundle(), backend=Bright(), gate=NoGate()).settings == "gate:none"
    both = Predictor(bundle(), backend=Bright(), gate=Upends(), fix_orientation=True)
    assert both.settings == "gate:upends fix_orientation"
    reduced = Bright()
    reduced.precision = "bf16"  # type: ignore[attr-defined]
    assert Predictor(bundle(), backend=reduced, gate=NoGate()).settings == "gate:none precision:bf16"
    for blind in (ClassicGate(), NoGate()):
        with pytest.raises(ConfigError, match="needs the learned gate"):
            Predictor(bundle(), backend=Bright(), gate=blind, fix_orientation=True)
