"""The public object: what it takes, what it gives, what it refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_images import content_of, phantom_image
from PIL import Image
from pydicom import dcmread

import hilum
from hilum.errors import BundleError, ConfigError, DataError, OutputError
from hilum.phantoms.chest import draw_phantom

SIZE = 288


@pytest.fixture(scope="module")
def model() -> hilum.Model:
    return hilum.load()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return draw_phantom(4, "Normal", size=SIZE).image


@pytest.fixture(scope="module")
def png(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "phantom.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def expected(model: hilum.Model, png: Path) -> hilum.Result:
    return model.predict(png)


def close(result: hilum.Result, expected: hilum.Result) -> None:
    assert result.status == expected.status == "ok"
    assert result.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert np.mean(result.mask != expected.mask) < 1e-3


def test_a_result_has_all_that_a_prediction_is(expected: hilum.Result, model: hilum.Model, png: Path) -> None:
    assert expected.ok
    assert expected.origin == str(png)
    assert expected.bundle_id == model.bundle_id
    assert expected.label == max(expected.probabilities, key=expected.probabilities.__getitem__)
    assert expected.probability == expected.probabilities[expected.label]
    assert tuple(expected.probabilities) == model.class_names == expected.class_names
    assert sum(expected.probabilities.values()) == pytest.approx(1)
    assert expected.label in expected.prediction_set
    assert expected.mask.shape == (SIZE, SIZE)
    assert expected.mask.dtype == bool
    assert expected.lung_fraction == pytest.approx(expected.mask.mean())
    assert expected.evidence.shape[0] == len(model.class_names)
    assert expected.evidence_map().shape == (SIZE, SIZE)
    assert expected.label in repr(expected)


def test_every_kind_of_source_gives_the_same(model: hilum.Model, png: Path, expected: hilum.Result) -> None:
    gray = np.array(Image.open(png))
    sources = [
        str(png),
        png.read_bytes(),
        gray,
        np.repeat(gray[:, :, None], 3, axis=2),
        gray.astype(np.uint16) * 257,
        gray / 255,
        (gray / 255).astype(np.float32),
        Image.open(png),
        Image.fromarray(gray).convert("RGB"),
        hilum.read_radiograph(png),
    ]
    for result in model.predict(sources):
        close(result, expected)
    for source in sources:
        close(model.predict(source), expected)


@pytest.mark.parametrize("meta", [True, False])
def test_a_pydicom_dataset_is_read_as_its_file(model: hilum.Model, tmp_path: Path, meta: bool) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(content_of(phantom_image(4, size=SIZE)))
    dataset = dcmread(path)
    if not meta:
        del dataset.file_meta
    close(model.predict(dataset), model.predict(path))


def test_stream_takes_no_more_than_it_needs(model: hilum.Model, png: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield png

    results = model.stream(endless())
    assert next(results).ok
    assert taken < 100
    results.close()


def test_bad_files_are_results_and_stop_nothing(model: hilum.Model, png: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(png.read_bytes()[:300])
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE), np.uint8)
    broken, absent, refused, good = model.predict([tmp_path / "broken.png", tmp_path / "absent.png", noise, png])
    assert [broken.status, absent.status, refused.status, good.status] == ["unreadable", "unreadable", "refused", "ok"]
    for result in (broken, absent, refused):
        assert result.label is result.probabilities is result.mask is result.evidence is result.prediction_set is None
        assert result.reason
        assert result.to_dict()["predicted_label"] is None
        assert result._repr_png_() is None
        with pytest.raises(DataError):
            result.overlay()
    assert broken.radiograph is None
    assert refused.radiograph is not None


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((2, 3, 4, 5), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((64, 64), np.int32),
        np.zeros((64, 64), bool),
        np.full((64, 64), 1.5),
        np.full((64, 64), np.nan),
        "",
        3,
        None,
        {"image": 1},
    ],
    ids=repr,
)
def test_what_is_no_image_is_refused(model: hilum.Model, source: object) -> None:
    with pytest.raises(DataError) as caught:
        model.predict(source)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_folder_is_refused_with_the_way_to_do_it(model: hilum.Model, png: Path) -> None:
    with pytest.raises(DataError) as caught:
        model.predict(png.parent)
    assert "hilum.find_images" in caught.value.hint
    assert [result.ok for result in model.stream(hilum.find_images([png.parent]))] == [True]


def test_to_dict_is_json_and_saves(expected: hilum.Result, tmp_path: Path) -> None:
    content = json.loads(expected.to_json())
    assert content == expected.to_dict()
    assert content["predicted_label"] == expected.label
    assert content["probabilities"] == expected.probabilities
    assert "label" not in content
    expected.save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == content
    expected.save(tmp_path / "overlay.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "overlay.png")), np.array(expected.overlay()))
    assert Image.open(io.BytesIO(expected._repr_png_())).size == expected.overlay().size
    with pytest.raises(OutputError):
        expected.save(tmp_path / "overlay.xyz")
    assert not (tmp_path / "overlay.xyz").exists()


def test_overlays_are_of_any_class_and_no_other(expected: hilum.Result) -> None:
    other = next(name for name in expected.class_names if name != expected.label)
    assert not np.array_equal(np.array(expected.overlay(other)), np.array(expected.overlay()))
    with pytest.raises(DataError):
        expected.overlay("Fracture")


def test_to_dataframe_has_the_columns_of_the_table(model: hilum.Model, png: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = hilum.to_dataframe(model.predict([png, tmp_path / "absent.png"]))
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["status"]) == ["ok", "unreadable"]
    assert frame[[f"prob_{name}" for name in model.class_names]].iloc[0].sum() == pytest.approx(1)
    assert frame["predicted_label"].isna().tolist() == [False, True]


def test_load_takes_a_name_a_path_and_a_run(model: hilum.Model, trained_run: object, tmp_path: Path) -> None:
    assert hilum.load("default").bundle_id == model.bundle_id
    run = hilum.Run(trained_run.root)  # type: ignore[attr-defined]
    own = hilum.load(run.path)
    assert own.bundle_id == hilum.load(str(run.path / "bundle")).bundle_id == run.load().bundle_id
    packed = run.export(tmp_path / "model.hilum")
    assert hilum.load(packed).class_names == own.class_names
    with pytest.raises(BundleError):
        hilum.load(tmp_path / "nothing")
    with pytest.raises(ConfigError):
        hilum.load(backend="tensorflow")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        hilum.load(gate="open")  # type: ignore[arg-type]


def test_the_readmes_example_runs(png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    assert "hilum.load()" in code
    (name,) = re.findall(r'predict\("(.*?)"\)', code)
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE), np.uint8)
    for status in ("ok", "refused"):
        if status == "ok":
            Path(name).write_bytes(png.read_bytes())
        else:
            Image.fromarray(noise).save(name)
        names: dict[str, Any] = {}
        exec(compile(code, "README.md", "exec"), names)
        assert names["result"].status == status
    assert Path("overlay.png").is_file()


SCRIPT = """
import hilum

model = hilum.load()
reveal_type(model)
result = model.predict("a.png")
reveal_type(result)
reveal_type(model.predict(["a.png", b""]))
reveal_type(result.probabilities)
reveal_type(hilum.train)
reveal_type(hilum.Run("a").evaluate())
"""
REVEALED = (
    '"hilum.model.Model"', '"hilum.inference.result.Result"', '"list[hilum.inference.result.Result]"',
    '"typing.Mapping[str, float] | None"', "hilum.verbs.Run", '"hilum.evaluation.report.Report"',
)  # fmt: skip


@pytest.mark.slow
def test_a_users_script_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    revealed = [line for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(REVEALED), done.stdout
    for line, kind in zip(revealed, REVEALED, strict=True):
        assert kind in line.replace("Union[typing.Mapping[str, float], None]", "typing.Mapping[str, float] | None")


def test_what_find_images_gives_is_predicted_on_as_a_list(model: hilum.Model, png: Path) -> None:
    (result,) = model.predict(hilum.find_images(png.parent))
    assert result.ok


@pytest.mark.parametrize("one", ["a.png", b"x", np.zeros((64, 64), np.uint8)], ids=["path", "bytes", "array"])
def test_stream_refuses_one_image_at_once(model: hilum.Model, one: object) -> None:
    with pytest.raises(DataError):
        model.stream(one)  # type: ignore[arg-type]


def test_arguments_that_cannot_be_are_refused_when_loading() -> None:
    for arguments in ({"batch_size": 0}, {"gate": "none", "fix_orientation": True}):
        with pytest.raises(ConfigError):
            hilum.load(**arguments)  # type: ignore[arg-type]
    with pytest.raises(BundleError):
        hilum.load("")


def test_names_are_taken_as_strings(png: Path, tmp_path: Path) -> None:
    assert hilum.read_radiograph(str(png)).shape == (SIZE, SIZE)
    assert hilum.Predictor(hilum.load().bundle).predict(str(png)).ok
    bundle = hilum.load_bundle(str(hilum.load().bundle.path))
    assert bundle.manifest.bundle_id == hilum.load().bundle_id
    (tmp_path / "c.toml").write_text("[training]\nepochs = 3\n")
    assert hilum.load_config("default", str(tmp_path / "c.toml")).training.epochs == 3
    with pytest.raises(ConfigError):
        hilum.load_config("orignal")  # type: ignore[arg-type]


def test_one_result_is_a_data_frame_too(expected: hilum.Result) -> None:
    assert list(hilum.to_dataframe(expected)["predicted_label"]) == [expected.label]


def test_what_comes_before_a_faulty_source_is_given(model: hilum.Model, png: Path) -> None:
    results = model.stream([png] * 11 + [png.parent])
    assert [next(results).ok for _ in range(11)] == [True] * 11
    with pytest.raises(DataError):
        next(results)
