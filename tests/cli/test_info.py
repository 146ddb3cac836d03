"""`hilum info` says what a bundle is, and loads neither torch nor ONNX Runtime for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, Manifest, write_bundle
from hilum.cli import app
from hilum.config import ModelConfig, PreprocessSpec

CARD = "# Small [bold] one\n\nWith Röntgen’s images; " + "a long line " * 20 + "\n"
HEAVY = ("torch", "timm", "onnx", "onnxruntime", "scipy")


def figure(metric: str, class_name: str | None = None, source: str | None = None, **values: Any) -> dict[str, Any]:
    known = {"value": 0.9125, "low": 0.9, "high": 0.925, "n": 1234}
    return {**known, **values, "metric": metric, "class_name": class_name, "source": source}


def make_bundle(path: Path, **changes: Any) -> Manifest:
    manifest = Manifest(
        name="Small [bold] one",
        class_names=("Normal", "[red]Opacity"),
        preprocess=PreprocessSpec(size=64),
        model=ModelConfig(name="encoder-unet", encoder="resnet18"),
        temperature=1.25,
        conformal_quantiles={"0.90": (0.25, 1.0)},
        abstention_threshold=0.625,
        metrics={
            "test": [
                figure("accuracy"),
                figure("accuracy", source="kermany", value=0.111),
                figure("recall", "[red]Opacity", value=0.5, low=None, high=None, n=7),
                figure("precision", "Normal", value=0.222),
                figure("dice", value=None, low=None, high=None, n=0),
            ]
        },
        sources=("kermany", "nih"),
        training=(
            {"training": {"epochs": 8}, "preprocess": {"size": 128}},
            {"training": {"epochs": 2}, "preprocess": {"size": 192}},
        ),
        hilum_version="0.1.0",
        created="2026-11-25T00:00:00Z",
    ).model_copy(update=changes)
    return write_bundle(path, manifest, {ONNX_MODEL: Random(0).randbytes(2_000_000), MODEL_CARD: CARD.encode()})


def said(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["info", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_says_in_short_what_it_is(tmp_path: Path) -> None:
    sealed = make_bundle(tmp_path / "bundle")
    lines = [" ".join(line.split()) for line in said(tmp_path / "bundle").splitlines()]
    assert lines[0] == "Small [bold] one: a research tool, not a medical device."
    size = sum(file.stat().st_size for file in (tmp_path / "bundle").iterdir()) / 1e6
    for line in (
        f"bundle {sealed.bundle_id[:12]}",
        "classes Normal, [red]Opacity",
        "network encoder-unet, resnet18",
        "input 1 x 64 x 64, pad",
        "created 2026-11-25T00:00:00Z, hilum 0.1.0",
        "sources kermany, nih",
        "training 8 epochs at 128 pixels, then 2 epochs at 192 pixels",
        "calibration temperature 1.250, prediction sets at 0.90 coverage, abstains below 0.625",
        f"size {size:.1f} MB, weights as float32",
        f"path {tmp_path / 'bundle'}",
        "accuracy 0.912 (0.900–0.925), n = 1,234",
        "recall, [red]Opacity 0.500 (no interval), n = 7",
        "Dice undefined, n = 0",
    ):
        assert line in lines
    assert not [line for line in lines if "0.111" in line or "0.222" in line]  # of one source; not a recall
    assert len(lines) < 20


def test_says_what_is_not_known(tmp_path: Path) -> None:
    bare = {"metrics": {}, "sources": (), "training": (), "conformal_quantiles": {}, "abstention_threshold": None}
    model = ModelConfig(name="evidence", encoder="resnet18", pooling="lse", evidence_stride=8)
    make_bundle(
        tmp_path / "b.hilum", **bare, created="", hilum_version="", model=model, weights_dtype="float16 storage"
    )
    text = " ".join(said(tmp_path / "b.hilum").split())
    assert "network evidence, resnet18, lse pooling, cells of 8 pixels" in text
    assert "sources unknown" in text
    assert "training unknown" in text
    assert "prediction sets none, abstains never" in text
    assert "created unknown, hilum unknown" in text
    assert "no test metrics" in text
    packed = (tmp_path / "b.hilum").stat().st_size / 1e6
    assert f"size {packed:.1f} MB, weights as float16 storage" in text


def test_the_manifest_and_the_card_come_whole(tmp_path: Path) -> None:
    sealed = make_bundle(tmp_path / "bundle")
    assert Manifest.model_validate(json.loads(said(tmp_path / "bundle", "--json"))) == sealed
    assert said(tmp_path / "bundle", "--card") == CARD


def test_the_card_for_the_hub_has_metadata_that_equal_the_bundle(tmp_path: Path) -> None:
    sealed = make_bundle(tmp_path / "bundle", split_digest="d" * 64)
    text = said(tmp_path / "bundle", "--card", "hf")
    _, front, body = text.split("---\n", 2)
    data = yaml.safe_load(front)
    assert body.endswith(CARD)
    assert {key: data[key] for key in ("license", "library_name", "pipeline_tag")} == {
        "license": "unknown", "library_name": "hilum", "pipeline_tag": "image-classification",
    }  # fmt: skip
    assert "image-segmentation" in data["tags"]
    assert data["metrics"] == ["accuracy", "recall", "precision"]  # Dice has no value
    (model,) = data["model-index"]
    (result,) = model["results"]
    assert model["name"] == sealed.name
    assert result["task"]["type"] == "image-classification"
    assert {key: result["dataset"][key] for key in ("split", "args")} == {
        "split": "test", "args": {"split_sha256": "d" * 64},
    }  # fmt: skip
    assert "kermany, nih" in result["dataset"]["name"]
    known = [f for f in sealed.metrics["test"] if f["source"] is None and f["value"] is not None]
    assert [metric["value"] for metric in result["metrics"]] == [f["value"] for f in known]
    assert [metric["args"]["n"] for metric in result["metrics"]] == [f["n"] for f in known]
    accuracy, recall, _ = result["metrics"]
    assert accuracy["args"] == {"n": 1234, "confidence_level": 0.95, "low": 0.9, "high": 0.925}
    assert recall["args"] == {"n": 7, "class": "[red]Opacity"}


def test_the_card_for_the_hub_is_what_the_hub_parses(tmp_path: Path) -> None:
    tiny = figure("iou", value=1e-07, low=0.0, high=1e-05)
    make_bundle(tmp_path / "b.hilum", name='Röntgen: "a" # b', metrics={"test": [figure("mcc"), tiny]})
    text = said(tmp_path / "b.hilum", "--card", "hf")
    card = ModelCard(text)
    found = [(r.task_type, r.metric_type, r.metric_value) for r in card.data.eval_results]
    assert found == [
        ("image-classification", "matthews_correlation", 0.9125), ("image-segmentation", "mean_iou", 1e-07),
    ]  # fmt: skip
    assert card.data.model_name == 'Röntgen: "a" # b'
    said(tmp_path / "b.hilum", "--card", "hf", "--output", tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


def test_the_card_for_the_hub_of_a_bundle_without_metrics(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", metrics={})
    data = yaml.safe_load(said(tmp_path / "bundle", "--card", "hf").split("---\n")[1])
    assert not {"metrics", "model-index"} & data.keys()


@pytest.mark.parametrize("words", [["--card"], ["--card", "bundle"], ["--card=bundle"]])
def test_the_card_is_the_bundles_own_where_none_is_named(words: list[str], tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    for order in ([str(tmp_path / "bundle"), *words], [*words, str(tmp_path / "bundle")]):
        assert said(*order) == CARD


def test_refusals(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", metrics={"test": {"accuracy": 0.9}})
    assert "--json" in said(tmp_path / "bundle", "--json", "--card", code=2)
    assert "--card" in said(tmp_path / "bundle", "--output", tmp_path / "out", code=2)
    for option in ((), ("--card", "hf")):
        assert "test metrics" in said(tmp_path / "bundle", *option, code=2)
    assert not (tmp_path / "out").exists()
    assert "is not a bundle" in said(tmp_path / "nothing", code=2)
    (tmp_path / "bundle" / MODEL_CARD).write_text("changed")
    assert "MODEL_CARD.md in" in (output := said(tmp_path / "bundle", "--card", code=2))
    assert "was changed" in output


@pytest.mark.parametrize("option", [None, "--json", "--card", "--card=hf"])
def test_is_lean(tmp_path: Path, option: str | None) -> None:
    make_bundle(tmp_path / "bundle")
    code = (
        "import sys; from hilum.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    words = ["info", str(tmp_path / "bundle"), *([option] if option else [])]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.decode().strip() == "[]"


def test_the_packaged_model_is_the_default() -> None:
    assert "hilum default" in said()
    assert said("--card").startswith("# Model card")
