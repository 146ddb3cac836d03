"""The public verbs: train, evaluate, audit_dataset, and a Run."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

import hilum
from hilum.errors import ConfigError, DataError, MissingExtraError, OutputError
from hilum.run_folder import RunFolder

SETTINGS = {"model.encoder": "tf_efficientnet_lite0", "augment.flip_p": 0.25}


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> hilum.Run:
    out = tmp_path_factory.mktemp("verbs") / "run"
    return hilum.train(
        phantoms, out=out, epochs=1, size=64, batch_size=8, device="cpu", random_state=3, settings=SETTINGS
    )


def test_train_leaves_a_run_with_the_settings_asked_for(run: hilum.Run) -> None:
    config = hilum.load_config("default", run.path / "config.toml")
    assert (config.training.epochs, config.training.batch_size, config.preprocess.size) == (1, 8, 64)
    assert (config.training.seed, config.split.seed, config.augment.flip_p) == (3, 3, 0.25)
    assert run.report.split.name == "test"
    assert run.load().class_names == run.report.class_names
    assert str(run.path) in repr(run)


def test_a_run_is_evaluated_and_exported(run: hilum.Run, tmp_path: Path) -> None:
    report = run.evaluate("val", out=tmp_path / "val")
    assert report.split.name == "val"
    assert (tmp_path / "val" / "report.html").is_file()
    bundle = run.export(tmp_path / "model.hilum", name="mine")
    assert hilum.load(bundle).name == "mine"
    assert hilum.load(bundle).class_names == run.load().class_names


def test_evaluate_takes_a_model_a_run_and_a_path(run: hilum.Run, phantoms: Path, tmp_path: Path) -> None:
    reports = [
        hilum.evaluate(run.load(), phantoms, tmp_path / "out"),
        hilum.evaluate(run, phantoms),
        hilum.evaluate(str(run.path), str(phantoms)),
    ]
    assert (tmp_path / "out" / "report.json").is_file()
    accuracies = [report.figure("accuracy") for report in reports]
    assert accuracies[0] is not None
    assert accuracies[0].n == 48
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert reports[0].training_overlap is not None
    assert reports[0].training_overlap.seen > 0


@pytest.mark.slow
def test_audit_dataset_audits_data_and_model(run: hilum.Run, phantoms: Path, tmp_path: Path) -> None:
    report = hilum.audit_dataset(phantoms, run.load(), tmp_path / "audit")
    assert report.data.images == 48
    assert report.model is not None
    assert (tmp_path / "audit" / "audit.html").is_file()


def test_train_refuses_what_cannot_be(run: hilum.Run, phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        hilum.train(phantoms, out=tmp_path / "a", settings={"augment.flop_p": 1})
    with pytest.raises(ConfigError):
        hilum.train(phantoms, out=tmp_path / "a", epochs=0)
    with pytest.raises(ConfigError):
        hilum.train(phantoms, resume=True)
    with pytest.raises(ConfigError, match="s3://bucket/run"):
        hilum.train(phantoms, out="s3://bucket/run", epochs=1)
    with pytest.raises(OutputError):
        hilum.train(phantoms, out=run.path)
    assert not RunFolder(tmp_path / "a").state.exists()


def test_empty_paths_are_not_the_current_folder(run: hilum.Run) -> None:
    with pytest.raises(DataError):
        hilum.evaluate(run, "")
    with pytest.raises(DataError):
        hilum.audit_dataset("")
    with pytest.raises(DataError):
        hilum.train("")
    with pytest.raises(DataError):
        hilum.train("nowhere", out=run.path / "new")
    assert not (run.path / "new").exists()
    with pytest.raises(ConfigError):
        hilum.train("", out=run.path, resume=True, epochs=2)
    with pytest.raises(ConfigError):
        hilum.train("", out=run.path, resume=True, random_state=0)


def test_a_run_is_resumed_on_the_device_asked_for(run: hilum.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("hilum.pipeline.train", lambda config, run, **more: asked.append(config.training.device))
    hilum.train("", out=run.path, resume=True)
    hilum.train("", out=run.path, resume=True, device="auto", settings={})
    assert asked == ["cpu", "auto"]


def test_settings_and_arguments_add_up(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[hilum.Config] = []
    monkeypatch.setattr("hilum.pipeline.train", lambda config, run, **more: seen.append(config))
    settings = {"training": {"early_stopping": 3}, "training.accumulate": 2}
    mine = copy.deepcopy(settings)
    hilum.train(phantoms, tmp_path / "run", batch_size=5, random_state=9, device="cpu", settings=settings)
    made = seen[0].training
    assert (made.batch_size, made.seed, made.device, made.early_stopping, made.accumulate) == (5, 9, "cpu", 3, 2)
    assert settings == mine


def test_findings_and_epochs_are_logged(phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    next((data / "Normal" / "images").iterdir()).write_bytes(b"broken")
    with caplog.at_level("INFO", logger="hilum"):
        hilum.train(data, tmp_path / "run", epochs=1, size=64, batch_size=8, device="cpu", settings=SETTINGS)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "hilum"]
    assert any(level == "WARNING" and "unreadable_image" in text for level, text in told)
    assert any(level == "INFO" and "epoch 1/1" in text for level, text in told)


def test_the_lean_install_names_the_extra(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object, **named: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("hilum.evaluation.run.evaluate_bundle", absent)
    with pytest.raises(MissingExtraError):
        hilum.evaluate("default", phantoms)
