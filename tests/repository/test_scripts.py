"""The original project's four commands, with its flags, leave the files that it left."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hilum.config import load_config
from hilum.export.import_original import read_checkpoint
from hilum.models.build import build_model
from hilum.models.weights import read_weights
from hilum.phantoms.chest import draw_phantom, write_phantoms

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
CLASSES = ["COVID", "Normal"]  # half of the original's: names must come from the data
META_KEYS = {"class_names", "img_size", "normalization", "outputs", "opset", "dynamic_batch"}


def _run(script: str, *words: object, cwd: Path, code: int = 0) -> str:
    command = [sys.executable, str(SCRIPTS / script), *map(str, words)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    printed = done.stdout + done.stderr
    assert done.returncode == code, f"{command} ended with {done.returncode}\n{printed}"
    assert "Traceback" not in printed
    return printed


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _probabilities(rows: list[dict[str, str]]) -> NDArray[np.float64]:
    return np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in rows])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 phantoms of two classes at 256 pixels, which the gate wants. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, 16, size=256, classes=CLASSES)
    return folder


@pytest.fixture(scope="module")
def workplace(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a model was trained and exported with the commands' own defaults, but for their size."""
    folder = tmp_path_factory.mktemp("workplace")
    words = ("--num_epochs", 1, "--batch_size", 4, "--num_workers", 0, "--device", "cpu")
    printed = _run("model_arch.py", "--data_dir", phantoms, *words, cwd=folder)
    assert printed.count("best_covid_model.pth") == 1
    _run("export_to_onnx.py", cwd=folder)
    return folder


@pytest.mark.slow
def test_training_leaves_the_originals_files(workplace: Path) -> None:
    folder = workplace / "model_checkpoints"
    left = {path.name for path in folder.iterdir()}
    assert left == {"best_covid_model.safetensors", "training_curves.png", "training_summary.json", "run"}
    beside = {
        name: {path.name for path in (workplace / name).iterdir()} for name in ("metrices_outputs", "test_results")
    }
    curves = {f"{name}_curve.png" for name in ("loss", "cls_loss", "seg_loss", "accuracy", "dice", "val_auc")}
    assert beside["metrices_outputs"] == curves | {
        "training_curves.png", "confusion_matrix.png", "roc_curves.png", "sample_overlays.png",
        "metrics_epochwise.csv", "classification_report.json",
    }  # fmt: skip
    assert beside["test_results"] == {"classification_report.json", "confusion_matrix_test.png", "roc_curves_test.png"}
    for image in (
        *workplace.glob("metrices_outputs/*.png"),
        *workplace.glob("test_results/*.png"),
        *folder.glob("*.png"),
    ):
        assert cv2.imread(str(image)) is not None
    assert len(_table(workplace / "metrices_outputs" / "metrics_epochwise.csv")) == 1
    summary = json.loads((folder / "training_summary.json").read_text())
    assert summary["dataset_info"]["total_samples"] == 16
    assert sum(summary["dataset_info"][f"{name}_samples"] for name in ("train", "val", "test")) == 16
    assert summary["dataset_info"]["class_distribution"] == {"COVID": 8, "Normal": 8}
    assert summary["best_val_loss"] > 0
    assert 0 <= summary["best_val_accuracy"] <= 1
    assert summary["final_classification_report"]["macro avg"]["support"] == summary["images"]["test"]
    assert summary["parameters"] == 6_643_510 - 2 * 129  # two classes fewer


@pytest.mark.slow
def test_trained_weights_stand_alone(workplace: Path, tmp_path: Path) -> None:
    shutil.copy(workplace / "model_checkpoints" / "best_covid_model.safetensors", tmp_path / "moved.safetensors")
    read = read_checkpoint(tmp_path / "moved.safetensors")
    assert read.manifest.class_names == tuple(CLASSES)
    assert read.manifest.preprocess.size == 256
    assert read.epoch == 1
    for name, tensor in read_weights(workplace / "model_checkpoints" / "run" / "best.safetensors")[0].items():
        assert torch.equal(read.model.state_dict()[name], tensor)


@pytest.mark.slow
def test_a_second_training_goes_on_or_refuses(workplace: Path, phantoms: Path) -> None:
    before = (workplace / "model_checkpoints" / "best_covid_model.safetensors").read_bytes()
    words = ("--data_dir", phantoms, "--batch_size", 4, "--device", "cpu")
    _run("model_arch.py", *words, "--num_epochs", 2, cwd=workplace, code=2)
    _run("model_arch.py", *words, "--num_epochs", 1, cwd=workplace)  # the same again: nothing is left to train
    assert (workplace / "model_checkpoints" / "best_covid_model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_export_leaves_the_graph_and_its_meta(workplace: Path) -> None:
    graph = onnx.load(workplace / "output_results" / "covid_multitask.onnx")
    onnx.checker.check_model(graph, full_check=True)
    meta = json.loads((workplace / "output_results" / "covid_multitask.onnx.meta.json").read_text())
    assert set(meta) == META_KEYS
    assert (meta["class_names"], meta["img_size"], meta["opset"]) == (CLASSES, 256, 17)
    assert meta["dynamic_batch"] is True
    assert set(meta["outputs"]) == {"segmentation", "classification"}
    assert graph.opset_import[0].version == 17
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param


@pytest.mark.slow
def test_both_inferences_agree_and_leave_the_originals_files(workplace: Path, phantoms: Path) -> None:
    _run("run_model_pth_inference.py", "--data_dir", phantoms, "--num_samples", 5, "--device", "cpu", cwd=workplace)
    printed = _run("run_onnx_inference.py", "--data_dir", phantoms, "--num_samples", 5, "--use_cuda", cwd=workplace)
    assert torch.cuda.is_available() or "Using the CPU" in printed
    torch_rows = _table(workplace / "output_results" / "inference_predictions.csv")
    onnx_rows = _table(workplace / "onnxoutputs" / "inference_predictions.csv")
    originals = ["image_path", "true_class", "pred_class", *[f"prob_{name}" for name in CLASSES]]
    assert list(torch_rows[0]) == list(onnx_rows[0]) == [*originals, "status", "reason"]
    assert len(torch_rows) == len(onnx_rows) == 5
    np.testing.assert_allclose(_probabilities(torch_rows), _probabilities(onnx_rows), atol=1e-4)
    np.testing.assert_allclose(_probabilities(torch_rows).sum(axis=1), 1, atol=1e-5)
    for number, (row, other) in enumerate(zip(torch_rows, onnx_rows, strict=True), start=1):
        file = Path(row["image_path"])
        assert row["image_path"] == other["image_path"]
        assert row["true_class"] == file.parent.parent.name
        assert row["pred_class"] == CLASSES[_probabilities([row])[0].argmax()]
        for image in (f"output_results/sample_{number}_{file.name}", f"onnxoutputs/onnx_{number}_{file.name}"):
            assert cv2.imread(str(workplace / image)) is not None


@pytest.mark.slow
def test_what_is_refused_is_a_row_with_its_reason(workplace: Path, tmp_path: Path) -> None:
    small, text, jpeg = tmp_path / "small.png", tmp_path / "text.png", tmp_path / "image.jpg"
    cv2.imwrite(str(small), draw_phantom(1, "Normal", size=48).image)
    cv2.imwrite(str(jpeg), draw_phantom(1, "Normal", size=256).image)
    text.write_text("no image")
    images = ("--images", small, text, jpeg, tmp_path / "absent.png")
    for script, prefix in (("run_model_pth_inference.py", "sample"), ("run_onnx_inference.py", "onnx")):
        printed = _run(script, *images, "--save_dir", tmp_path / prefix, cwd=workplace)
        rows = _table(tmp_path / prefix / "inference_predictions.csv")
        assert [row["status"] for row in rows] == ["refused", "unreadable", "ok", "unreadable"]
        assert {row["true_class"] for row in rows} == {"unknown"}
        assert "shorter side, pixels: 48" in rows[0]["reason"]
        assert f"Skipped {small}: {rows[0]['reason']}" in printed
        assert rows[0]["pred_class"] == rows[0]["prob_COVID"] == rows[2]["reason"] == ""
        written = [path.name for path in (tmp_path / prefix).iterdir() if path.suffix != ".csv"]
        assert written == [f"{prefix}_3_image.jpg"]
        assert (tmp_path / prefix / written[0]).read_bytes().startswith(b"\xff\xd8\xff")


@pytest.mark.slow
def test_an_originals_checkpoint_goes_all_the_way(tmp_path: Path) -> None:
    """Four classes, named by the file; another size and opset, one image at a time."""
    manifest = read_checkpoint(_original_checkpoint(tmp_path / "best.pth")).manifest
    path = tmp_path / "out" / "model.onnx"
    flags = ("--img_size", 64, "--opset", 18, "--no_dynamic_batch", "--device", "cpu")
    _run("export_to_onnx.py", "--checkpoint", tmp_path / "best.pth", "--onnx_path", path, *flags, cwd=tmp_path)
    meta = json.loads(path.with_name("model.onnx.meta.json").read_text())
    assert (meta["img_size"], meta["opset"], meta["dynamic_batch"]) == (64, 18, False)
    assert tuple(meta["class_names"]) == manifest.class_names == ("d", "c", "b", "a")
    phantoms = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, image in enumerate(phantoms):
        cv2.imwrite(str(image), draw_phantom(seed, "Normal", size=256).image)
    both = ("--onnx_path", path, "--meta_path", path.with_name("model.onnx.meta.json"))
    _run("run_onnx_inference.py", *both, "--images", *phantoms, "--save_dir", tmp_path, cwd=tmp_path)
    rows = _table(tmp_path / "inference_predictions.csv")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert {row["pred_class"] for row in rows} <= {"a", "b", "c", "d"}


def _original_checkpoint(file: Path) -> Path:
    """A network of hilum's with the original's names; tests/export/test_import_original.py has the original's own."""
    config = load_config("original")
    torch.manual_seed(0)
    state = build_model(config.model, config.preprocess, 4).state_dict()
    torch.save({"epoch": 1, "model_state_dict": state, "class_names": ["d", "c", "b", "a"]}, file)
    return file


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        pytest.param("model_arch.py", ("--data_dir", "absent"), "absent", marks=pytest.mark.slow),
        ("model_arch.py", ("--data_dir", ".", "--num_epochs", "0"), "epochs"),
        pytest.param("export_to_onnx.py", ("--checkpoint", "absent.pth"), "absent.pth", marks=pytest.mark.slow),
        pytest.param(
            "run_model_pth_inference.py",
            ("--data_dir", ".", "--checkpoint", "text.pth"),
            "text.pth",
            marks=pytest.mark.slow,
        ),
        ("run_model_pth_inference.py", (), "--data_dir"),
        ("run_onnx_inference.py", ("--data_dir", "."), "meta.json"),
        ("run_onnx_inference.py", ("--data_dir", ".", "--meta_path", "text.pth"), "class_names"),
        ("run_onnx_inference.py", ("--data_dir", ".", "--num_samples", "0"), "--num_samples"),
    ],
)
def test_a_mistake_is_a_message(script: str, words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert message in _run(script, *words, cwd=tmp_path, code=2)


def _identity(path: Path, shape: list[int] | None, output: str = "classification") -> None:
    """A graph with the outputs' names that hands its input back."""
    names = ("input", "segmentation", output)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    nodes = [helper.make_node("Identity", ["input"], [name]) for name in names[1:]]
    graph = helper.make_graph(nodes, "identity", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize(
    ("size", "graph", "message"),
    [
        (100, "any.onnx", "multiple of 32"),
        (64, "absent.onnx", "absent.onnx"),
        (64, "meta.json", "ONNX graph"),
        (64, "unnamed.onnx", "`classification`"),
        (64, "flat.onnx", "Cannot run the ONNX graph"),
        (64, "any.onnx", "2 logits"),
    ],
)
def test_a_graph_that_is_not_of_its_meta_is_refused(size: int, graph: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"class_names": CLASSES, "img_size": size}))
    _identity(tmp_path / "any.onnx", None)
    _identity(tmp_path / "flat.onnx", [1])
    _identity(tmp_path / "unnamed.onnx", None, output="logits")
    words = ("--images", "a.png", "--meta_path", "meta.json", "--onnx_path", graph)
    assert message in _run("run_onnx_inference.py", *words, cwd=tmp_path, code=2)
