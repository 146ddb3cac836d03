"""ONNX Runtime's builds keep a device identifier and a queue of events in the user's home unless told not to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hilum.run_folder import RunFolder

_RUN = (
    "import sys; from pathlib import Path; from hilum import Predictor, load_bundle;"
    "Predictor(load_bundle(Path(sys.argv[1])))"
)


def test_a_predictor_leaves_nothing_in_the_home(trained_run: RunFolder, tmp_path: Path) -> None:
    dropped = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _RUN, str(trained_run.bundle)], env=environment, cwd=tmp_path, check=True)
    assert [*tmp_path.iterdir()] == []
