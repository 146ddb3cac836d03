"""Start a command of hilum, kill it, or disturb its disk.

Most commands are forked from this process, which has imported what they need, since an import of PyTorch takes longer
than a command on phantoms. The disk is disturbed by faults.c, which is preloaded into this process and its children.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
PRELOADED = "HILUM_KILL_FAULTS"
"""Environment variable with the path of the preloaded library; absent where no compiler is installed."""
LIMIT_SECONDS = 900.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_COUNTERS = struct.Struct("QQ")


def preload(place: Path) -> None:
    """Start this process again with faults.c and one thread; without a C compiler, without faults.c."""
    if "HILUM_KILL_STARTED" in os.environ:
        return
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HILUM_KILL_STARTED": "1"}
    environment = {**os.environ, **one_thread, "PYTHONWARNINGS": "ignore", "HILUM_KILL_PLACE": str(place)}
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    library = place / "faults.so"
    if sys.platform != "linux" or compiler is None:
        print("No C compiler, or not Linux: no faults, and kills by the clock alone.", file=sys.stderr)
    else:
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        environment |= {"LD_PRELOAD": str(library), PRELOADED: str(library)}
    os.execve(sys.executable, sys.orig_argv, environment)


@dataclass(frozen=True)
class Fault:
    """What happens from an operation on the disk on.

    Attributes:
        kind: As in faults.c.
        number: The operation, counted from 0.
        once: Whether only one operation is disturbed.
    """

    kind: str
    number: int = 0
    once: bool = False

    def text(self, counters: Path, folder: Path) -> str:
        """The setting for faults.c."""
        return f"{self.kind} {self.number} {int(self.once)} {counters} {folder}"

    def __str__(self) -> str:
        return f"{self.kind}{' once' if self.once else ''} at operation {self.number}"


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code, or minus the signal.
        seconds: How long it ran.
        said: Its output.
        operations: Its operations on the disk.
        disturbed: How many of them were disturbed.
        orphans: Whether other processes of its group were alive 10 seconds after it.
    """

    code: int
    seconds: float
    said: str
    operations: int = 0
    disturbed: int = 0
    orphans: bool = False


@dataclass
class Attempt:
    """Folders of one attempt: ``place`` is disturbed and holds out/, cache/ and tmp/; ``beside`` holds the logs."""

    place: Path
    beside: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.place / "tmp", self.place / "cache", self.beside):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """Work done, one line each, written by the hooks of a case."""
        return self.beside / "work.log"

    def variables(self) -> dict[str, str]:
        """Environment of the command."""
        own = {"HILUM_CACHE": str(self.place / "cache"), "TMPDIR": str(self.place / "tmp")}
        return {**own, "MPLCONFIGDIR": str(self.beside), "HILUM_KILL_LOG": str(self.log), **self.environment}


def run(
    attempt: Attempt,
    arguments: Sequence[str],
    hooks: Callable[[], None],
    *,
    fault: Fault | None = None,
    kill_after: float | None = None,
    whole_group: bool = True,
    real: bool = False,
) -> Ended:
    """Run a command to its end, or to SIGKILL after ``kill_after`` seconds.

    Args:
        attempt: Its folders.
        arguments: The command line, without ``hilum``.
        hooks: Called in the process before the command, to log its work; not with ``real``.
        fault: Disturbance of the disk.
        kill_after: Seconds; None never kills.
        whole_group: Whether its child processes are killed too.
        real: Start Python anew instead of forking.
    """
    counters, said = attempt.beside / "counters", attempt.beside / "said"
    counters.write_bytes(bytes(_COUNTERS.size))
    said.touch()  # a process can be killed before it opens it
    told = fault.text(counters, attempt.place) if fault and PRELOADED in os.environ else None
    began = time.monotonic()
    start = _start if real else _fork
    pid = start(attempt, arguments, hooks, said, told)
    code = _wait(pid, kill_after, whole_group)
    seconds = time.monotonic() - began
    operations, disturbed = _COUNTERS.unpack(counters.read_bytes())
    orphans = _outlived(pid)
    return Ended(code, seconds, said.read_text(errors="replace"), operations, disturbed, orphans)


def _fork(attempt: Attempt, arguments: Sequence[str], hooks: Callable[[], None], said: Path, fault: str | None) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with suppress(OSError):  # it may have done so itself, and be gone
            os.setpgid(pid, pid)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.chdir(attempt.place)
        os.environ.update(attempt.variables())
        tempfile.tempdir = None
        hooks()
        if fault:
            os.environ["HILUM_FAULT"] = fault  # for the processes that it starts
            ctypes.CDLL(os.environ[PRELOADED]).hilum_fault(fault.encode())
        code = _call(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def build_cache(data: str, side: str) -> None:
    """Decode a dataset into the cache, as training and evaluation do; not a command of its own."""
    from hilum.config import PreprocessSpec
    from hilum.data.cache import open_cache
    from hilum.data.index import build_index
    from hilum.errors import HilumError
    from hilum.storage import cache_folder

    try:
        open_cache(build_index(Path(data), check=False).records, PreprocessSpec(size=int(side)), cache_folder())
    except HilumError as error:
        print(f"Error: {error.message}")
        sys.exit(2)


def _call(arguments: Sequence[str]) -> int:
    from hilum.cli import main

    sys.argv = ["hilum", *arguments]
    try:
        if arguments[0] == "cache":
            build_cache(*arguments[1:])
        else:
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _start(attempt: Attempt, arguments: Sequence[str], hooks: Callable[[], None], said: Path, fault: str | None) -> int:
    variables = {**os.environ, **attempt.variables(), **({"HILUM_FAULT": fault} if fault else {})}
    command = [sys.executable, "-c", "from hilum.cli import main; main()", *arguments]
    with said.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=attempt.place, env=variables, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    process.returncode = 0  # waited for by _wait
    return process.pid


def _wait(pid: int, kill_after: float | None, whole_group: bool) -> int:
    began = time.monotonic()
    killed = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if not killed and passed >= (LIMIT_SECONDS if kill_after is None else kill_after):
            killed = True
            (os.killpg if whole_group else os.kill)(pid, signal.SIGKILL)
        time.sleep(0.005)


def adopt() -> None:
    """Become the parent of the processes that killed ones leave, to notice their end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _outlived(group: int) -> bool:
    """Wait until no process of a group is left; kill it and return True after 10 seconds."""
    for _ in range(1000):
        with suppress(ChildProcessError):
            os.waitpid(-group, os.WNOHANG)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    os.killpg(group, signal.SIGKILL)
    return True
