"""The service answers the self-test of its bundle before it is ready, and does not start where it fails."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from hilum.bundle.bundle import SELF_TEST, load_bundle, write_bundle
from hilum.bundle.self_test import SelfTest, self_test_of
from hilum.errors import SelfTestError
from hilum.run_folder import RunFolder
from hilum.service.api import create_app
from hilum.service.settings import ServeSettings


def rewritten(run: RunFolder, path: Path, test: bytes | None) -> Path:
    """The run's bundle with another self-test, or none."""
    bundle = load_bundle(run.bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files if name != SELF_TEST}
    write_bundle(path, bundle.manifest, files | ({} if test is None else {SELF_TEST: test}))
    return path


def test_a_bundle_that_fails_does_not_start(trained_run: RunFolder, tmp_path: Path) -> None:
    test = self_test_of(load_bundle(trained_run.bundle))
    assert test is not None
    features = test.expected["features"].copy()
    features[7] += 1
    other = SelfTest(test.image, {**test.expected, "features": features})
    path = rewritten(trained_run, tmp_path / "bundle", other.content())
    with pytest.raises(SelfTestError, match=r"features\[7\]"):
        create_app(ServeSettings(bundle=path, measure=0))


@pytest.mark.parametrize("state", ["passed", "none"])
def test_the_log_says_whether_there_was_one(
    trained_run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    test = self_test_of(load_bundle(trained_run.bundle))
    assert test is not None
    assert all(np.isfinite(values).all() for values in test.expected.values())
    path = rewritten(trained_run, tmp_path / "bundle", test.content() if state == "passed" else None)
    caplog.set_level(logging.INFO)
    with TestClient(create_app(ServeSettings(bundle=path, measure=0))) as client:
        assert client.get("/readyz").status_code == 200
    (facts,) = [record.facts for record in caplog.records if record.message == "started"]  # type: ignore[attr-defined]
    assert facts["self_test"] == state
