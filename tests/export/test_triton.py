"""The Triton model repository of a bundle, read by the definitions of Triton's own client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.errors import ConfigError, OutputError
from hilum.export.triton import model_config, write_triton_repository
from hilum.run_folder import RunFolder


def parsed(text: str) -> Any:
    definitions = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse(text, definitions.ModelConfig())


@pytest.mark.parametrize("which", ["packaged", "trained"])
def test_the_config_describes_the_graph(which: str, trained_run: RunFolder, tmp_path: Path) -> None:
    bundle = load_bundle(resolve_bundle(DEFAULT) if which == "packaged" else trained_run.bundle)
    folder = write_triton_repository(bundle, tmp_path, "chest")
    config = parsed((folder / "config.pbtxt").read_text())
    assert (config.name, config.backend) == ("chest", "onnxruntime")
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    for tensors, values in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in tensors] == [value.name for value in values]
        for tensor, value in zip(tensors, values, strict=True):
            own = [-1] if tensor.name == "features" else value.shape[1:]
            assert list(tensor.dims) == own
    (labeled,) = (tensor for tensor in config.output if tensor.label_filename)
    assert labeled.name == "classification"
    assert tuple((folder / labeled.label_filename).read_text().splitlines()) == bundle.manifest.class_names
    assert config.parameters["bundle_id"].string_value == bundle.manifest.bundle_id
    assert json.loads(config.parameters["preprocess_spec"].string_value) == bundle.manifest.preprocess.model_dump()
    assert json.loads(config.parameters["temperature"].string_value) == bundle.manifest.applied_temperature
    images = np.zeros((3, *config.input[0].dims), np.float32)
    assert len(session.run(None, {"input": images})[0]) == 3 <= config.max_batch_size


def test_strange_class_names_and_temperatures_per_class_stay_readable() -> None:
    manifest = load_bundle(resolve_bundle(DEFAULT)).manifest
    strange = manifest.model_copy(
        update={"class_temperatures": (1.0, 2.0, 0.5, 1.5), "outputs": {"classification": '"\\\n'}}
    )
    config = parsed(model_config(strange, "a"))
    assert json.loads(config.parameters["temperature"].string_value) == [1.0, 2.0, 0.5, 1.5]
    assert config.parameters["output_classification"].string_value == '"\\\n'


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b"])
def test_a_name_that_is_no_folder_is_refused(name: str, trained_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_triton_repository(load_bundle(trained_run.bundle), tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_there_is_not_replaced(trained_run: RunFolder, tmp_path: Path) -> None:
    bundle = load_bundle(trained_run.bundle)
    write_triton_repository(bundle, tmp_path)
    with pytest.raises(OutputError, match="exists"):
        write_triton_repository(bundle, tmp_path)


@pytest.mark.parametrize("which", ["default", "run", "bundle"])
def test_the_command_takes_a_run_and_a_bundle(
    which: str, trained_run: RunFolder, tmp_path: Path, hilum: Callable[..., str]
) -> None:
    source = {"default": "default", "run": trained_run.root, "bundle": trained_run.bundle}[which]
    hilum("export", source, "--triton", tmp_path, "--name", "chest")
    expected = load_bundle(resolve_bundle(DEFAULT if which == "default" else trained_run.bundle))
    assert (tmp_path / "chest" / "1" / "model.onnx").read_bytes() == expected.read("model.onnx")
    hilum("export", source, "--triton", tmp_path, "--name", "chest", code=2)


def test_options_of_a_bundle_are_refused(tmp_path: Path, hilum: Callable[..., str]) -> None:
    output = hilum("export", "default", "--triton", tmp_path, "--int8", code=2)
    assert "--triton writes no bundle" in output
    assert not list(tmp_path.iterdir())
