"""Decode WebP and compressed TIFF and DICOM in child processes that are killed when they take too much time or memory.

A codec that hangs or crashes costs one file.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from hilum.errors import ReadError
from hilum.imaging.decoding import decoding
from hilum.imaging.read import MAX_PIXELS, is_dicom, read_radiograph, read_stored
from hilum.imaging.stored import Preset, StoredImage
from hilum.types import Radiograph

DECODE_SECONDS = 10.0
"""Time for one file. The largest radiographs take under a second."""
DECODE_BYTES = 1 << 30
"""Memory for one file, in addition to that of an idle process."""

_Kind = Literal["radiograph", "stored"]
_PREPARE = "prepare"
_READERS: dict[_Kind, Callable[..., Radiograph | StoredImage]] = {"radiograph": read_radiograph, "stored": read_stored}
_TYPES: dict[_Kind, Callable[..., Radiograph | StoredImage]] = {"radiograph": Radiograph, "stored": StoredImage}
_LENGTH = struct.Struct("<Q")
_CHILD = "from hilum.imaging.reader_pool import serve"
_START_SECONDS, _WATCH_SECONDS = 60.0, 0.1
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(1 << 26), "MALLOC_TRIM_THRESHOLD_": str(1 << 27)}
"""Environment by which glibc keeps the memory of an image for the next one, which saves a fifth of the time."""


class ReaderPool:
    """Child processes that decode one file each at a time, and are started when first needed.

    The methods may be called from several threads.

    Args:
        processes: Number of child processes, and so of files at a time.
        seconds: Time for one file; the process is then killed and replaced.
        memory: Bytes of memory for one file, where the system can limit it.
    """

    def __init__(self, processes: int, *, seconds: float = DECODE_SECONDS, memory: int = DECODE_BYTES) -> None:
        self._children = [_Child(seconds, memory) for _ in range(processes)]
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()  # the last one used is in the processor's cache
        for child in reversed(self._children):
            self._idle.put(child)
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="hilum-decode-watch", daemon=True).start()

    def read_radiograph(
        self, content: bytes, *, origin: str = "image in memory", max_pixels: int = MAX_PIXELS
    ) -> Radiograph:
        """Return what hilum.imaging.read.read_radiograph returns for the content of a file.

        Raises:
            ReadError: As there; or decoding took too much time or memory, or ended the process.
        """
        return cast(Radiograph, self._ask("radiograph", content, origin, max_pixels))

    def read_stored(
        self, content: bytes, *, origin: str = "image in memory", max_pixels: int = MAX_PIXELS
    ) -> StoredImage:
        """Return what hilum.imaging.read.read_stored returns for the content of a file.

        Raises:
            ReadError: As for ``read_radiograph``.
        """
        return cast(StoredImage, self._ask("stored", content, origin, max_pixels))

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the processes; files that are being decoded raise ReadError."""
        self._closed.set()
        for child in self._children:
            child.close()

    def _ask(self, kind: _Kind, content: bytes, origin: str, max_pixels: int) -> Radiograph | StoredImage:
        if is_bounded(content, origin):
            return _READERS[kind](content, origin=origin, max_pixels=max_pixels)
        child = self._idle.get()
        try:
            return child.ask(kind, content, origin, max_pixels)
        finally:
            self._idle.put(child)

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            for child in self._children:
                child.kill_if_late()


class _Child:
    """One process, started again after it was killed."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds, self._memory = seconds, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = self._has_dicom = self._is_closed = self._is_late = False
        self._deadline = math.inf
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        code = f"{_CHILD}\nserve({self._memory})"
        environment = os.environ | _ALLOCATION | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self._lock:
            if self._is_closed:
                raise ReadError("Decoding was stopped.")
            self._is_ready = self._has_dicom = False
            # Codecs write to standard error, past the warnings of Python.
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=environment,
            )  # fmt: skip
        for pipe in (self._process.stdin, self._process.stdout):
            _enlarge(pipe)

    def ask(self, kind: _Kind, content: bytes, origin: str, max_pixels: int) -> Radiograph | StoredImage:
        if self._process is None or self._process.poll() is not None:
            self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not self._is_ready:
                with self._limit(_START_SECONDS):
                    _receive(process.stdout)
                self._is_ready = True
            if not self._has_dicom and is_dicom(content, origin):
                with self._limit(_START_SECONDS):
                    _send(process.stdin, {"kind": _PREPARE, "content": 0})
                    process.stdin.flush()
                    _receive(process.stdout)
                self._has_dicom = True
            with self._limit(self._seconds):
                job = {"kind": kind, "origin": origin, "max_pixels": max_pixels, "content": len(content)}
                _send(process.stdin, job, [content])
                process.stdin.flush()
                header = _receive(process.stdout)
                arrays = {name: _array(process.stdout, *facts) for name, facts in header.pop("arrays", {}).items()}
        except (OSError, EOFError) as error:  # the process was killed, or has ended
            self._reap()
            reason = f"takes more than {self._seconds:g} s" if self._is_late else "ended its decoder"
            raise ReadError(f"{origin} {reason}.", hint="Check that it is a radiograph.") from error
        if self._is_late:  # killed after its answer
            self._reap()
        if "error" in header:
            raise ReadError(header["error"], hint=header["hint"])
        if "presets" in header:
            header["presets"] = tuple(Preset(*preset) for preset in header["presets"])
        return _TYPES[kind](**arrays, **header)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._reap()

    def _reap(self) -> None:
        if (process := self._process) is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    @contextmanager
    def _limit(self, seconds: float) -> Iterator[None]:
        self._is_late, self._deadline = False, time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = math.inf

    def kill_if_late(self) -> None:
        """Kill the process if the time for its file is over."""
        if time.monotonic() > self._deadline and (process := self._process) is not None:
            self._is_late = True
            process.kill()


def is_bounded(content: bytes, name: str) -> bool:
    """Return whether ``read.py`` bounds time and memory of a file by its header.

    These are all but WebP and compressed TIFF and DICOM. Passing them through a pipe would cost 5 to 25% of the time of
    a prediction; others take longer to decode.
    """
    if content and is_dicom(content, name):
        from hilum.imaging.dicom_file import is_encapsulated

        return not is_encapsulated(content, name)
    if content.startswith((b"II", b"MM")):
        return _is_raw(content)
    return not content.startswith(b"RIFF")  # WebP; what is of no known format is not decoded


def _is_raw(content: bytes) -> bool:
    """Return whether a TIFF is uncompressed, so that libtiff does not see it."""
    with contextlib.suppress(ReadError), decoding("image"):
        image = Image.open(io.BytesIO(content), formats=("TIFF",))
        return isinstance(image, ImageFile.ImageFile) and all(tile.codec_name == "raw" for tile in image.tile)
    return True  # the reader refuses it by its header


def serve(memory: int) -> None:
    """Decode the files that come through standard input until it ends; runs in the child process.

    Args:
        memory: Bytes of memory for one file.
    """
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # for codecs that write to standard output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the children too; the service ends them
    import cv2

    cv2.setNumThreads(1)
    _limit_memory(memory)
    _send(sink, {})
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = _receive(source)
            _send(sink, *_answer(job, _read(source, job["content"])))


def _answer(job: dict[str, Any], content: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return the header of an answer, and the arrays that follow it."""
    if job["kind"] == _PREPARE:
        import hilum.imaging.dicom  # noqa: F401 - takes longer than most files

        return {}, []
    try:
        with decoding(job["origin"]):
            found = _READERS[job["kind"]](content, origin=job["origin"], max_pixels=job["max_pixels"])
    except ReadError as error:
        return {"error": error.message, "hint": error.hint}, []
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    header: dict[str, Any] = {name: value for name, value in values.items() if name not in arrays}
    header["arrays"] = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    return header, [*arrays.values()]


def _limit_memory(memory: int) -> None:
    """Limit the address space to what the process has now and ``memory``, where the system can."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    except (ImportError, OSError, ValueError):  # not Linux; the pixel limit applies everywhere
        return


def _send(pipe: IO[bytes], header: Mapping[str, Any], parts: Sequence[bytes | NDArray[Any]] = ()) -> None:
    """Write the length of a header, the header as JSON, and parts."""
    text = json.dumps(header).encode()
    views = [memoryview(part) if isinstance(part, bytes) else part.reshape(-1).view(np.uint8).data for part in parts]
    for left in (memoryview(_LENGTH.pack(len(text)) + text), *views):
        while left:
            left = left[pipe.write(left) :]


def _receive(pipe: IO[bytes]) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(_read(pipe, _LENGTH.size))
    header: dict[str, Any] = json.loads(_read(pipe, length))
    return header


def _read(pipe: IO[bytes], length: int) -> bytes:
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError("the pipe was closed")
    return content


def _array(pipe: IO[bytes], dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    left = array.reshape(-1).view(np.uint8).data
    while left:
        if not (count := cast(io.BufferedReader, pipe).readinto(left)):
            raise EOFError("the pipe was closed")
        left = left[count:]
    return array


def _enlarge(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold a megabyte, so that an image passes in few steps; Linux only."""
    if pipe is not None and sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
