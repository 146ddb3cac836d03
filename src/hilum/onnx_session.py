"""ONNX Runtime sessions whose graphs may be hostile: bounded memory and time, and one type of error.

Needs onnxruntime, which is imported when a session is opened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.cpus import available_memory
from hilum.errors import BundleError, DeviceError

RUN_SECONDS = 120.0
"""Time limit of one forward pass, seconds; ONNX Runtime ends it before the next operator."""

_WATCH_SECONDS = 0.25
_CPU = "CPUExecutionProvider"
_HINT = "Export the bundle again."
_REASON_CHARACTERS = 200


class OutOfMemoryError(DeviceError):
    """A graph asks for more memory than the device has, or than the sessions of this process may have."""


class OnnxSession:
    """A session. Those on the CPU share at most half of the memory that is available to the process.

    Args:
        model: Content of an ONNX file with embedded weights.
        what: Name of the graph in messages.
        threads: Threads of the CPU provider.
        providers: Execution providers with their options, in order of preference.

    Attributes:
        inputs: Shape of each input by name; a dimension without a number is a name or None.
        outputs: Names of the outputs.

    Raises:
        BundleError: The graph cannot be loaded.
    """

    inputs: dict[str, list[int | str | None]]
    outputs: list[str]

    def __init__(
        self,
        model: bytes,
        what: str,
        *,
        threads: int,
        providers: Sequence[tuple[str, dict[str, Any]]] = ((_CPU, {}),),
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A thread that spins while it waits takes the processor from those that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised; ONNX Runtime would also write them to the terminal
        if providers[0][0] == _CPU:
            _limit_memory()
            options.add_session_config_entry("session.use_env_allocators", "1")
        self._what = what
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=list(providers))
            self.inputs = {value.name: value.shape for value in self._session.get_inputs()}
            self.outputs = [value.name for value in self._session.get_outputs()]
        except _onnx_errors() as error:  # also for names that are not UTF-8
            raise BundleError(f"Cannot load {what}: {_reason(error)}.", hint=_HINT) from error

    @property
    def providers(self) -> list[str]:
        """Execution providers that are in use."""
        return list(self._session.get_providers())

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[Any]:
        """Return the outputs for inputs by name.

        Raises:
            OutOfMemoryError: The memory is exhausted.
            BundleError: The graph cannot be run on these inputs, or takes longer than RUN_SECONDS.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        _watch.begin(options)
        try:
            return list(self._session.run(None, dict(inputs), options))
        except _onnx_errors() as error:
            # ONNX Runtime's own error has neither a type nor a code.
            if isinstance(error, MemoryError) or "memory" in str(error).lower():
                raise OutOfMemoryError(f"Out of memory in {self._what}: {_reason(error)}.") from error
            raise BundleError(f"Cannot run {self._what}: {_reason(error)}.", hint=_HINT) from error
        finally:
            _watch.end(options)


class _Watch:
    """One thread that ends the forward passes of all sessions when their time is over."""

    def __init__(self) -> None:
        self._ends: dict[int, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, options: Any) -> None:
        """Start the time of a pass with these RunOptions."""
        with self._lock:
            self._ends[id(options)] = (time.monotonic() + RUN_SECONDS, options)
            if self._thread is None or not self._thread.is_alive():  # also in a forked process
                self._thread = threading.Thread(target=self._run, name="hilum-network-watch", daemon=True)
                self._thread.start()

    def end(self, options: Any) -> None:
        """End the time of a pass."""
        with self._lock:
            del self._ends[id(options)]

    def _run(self) -> None:
        while True:
            time.sleep(_WATCH_SECONDS)
            with self._lock:
                late = [options for end, options in self._ends.values() if end < time.monotonic()]
            for options in late:
                options.terminate = True


_watch = _Watch()


@cache
def _limit_memory() -> None:
    """Register the arena of all CPU sessions of this process, unless its application has registered one."""
    import onnxruntime

    kind = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0,
                                     onnxruntime.OrtMemType.DEFAULT)  # fmt: skip
    with suppress(*_onnx_errors()):
        onnxruntime.create_and_register_allocator(kind, onnxruntime.OrtArenaCfg({"max_mem": available_memory() // 2}))


@cache
def _onnx_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no common base but Exception, and those of its bindings."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, MemoryError, RuntimeError, TypeError, ValueError)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_REASON_CHARACTERS]
