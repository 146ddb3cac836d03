"""Measure the memory of an engine in its own process, ``python -m hilum.backends.memory BUNDLE BACKEND PRECISION``.

The last line of its output is a number, MiB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def memory_of(bundle: Path, backend: str, precision: str) -> float | None:
    """Return the growth of the peak resident memory, MiB, while an engine is loaded and runs as ``hilum predict`` does.

    None where the engine fails, or the system has no /proc.

    Args:
        bundle: Path of the bundle.
        backend: Name of the backend.
        precision: Its precision.
    """
    command = [sys.executable, "-m", __name__, str(bundle), backend, precision]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    return float(lines[-1]) if done.returncode == 0 and lines and lines[-1] else None


def main() -> None:
    """Load and run the engine that the arguments name, and write the growth of the memory to stdout."""
    from hilum.backends.measure import as_predict_runs, phantom_batch, run_burst
    from hilum.backends.open import open_backend
    from hilum.bundle.bundle import load_bundle

    if not _STATUS.is_file():  # pragma: no cover - macOS and Windows
        return
    path, backend, precision = sys.argv[1:]
    bundle = load_bundle(path)
    images = phantom_batch(bundle.manifest.preprocess, 8)
    before = _status("VmRSS")
    network, workers, batch = as_predict_runs(open_backend(bundle, backend, "cpu", precision))  # type: ignore[arg-type]
    run_burst(network, images[:batch], workers)
    sys.stdout.write(f"{_status('VmHWM') - before:.1f}\n")


def _status(name: str) -> float:
    """Return a figure of /proc/self/status in MiB."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return float(value.split()[0]) / 1024
    raise KeyError(name)


if __name__ == "__main__":
    main()
