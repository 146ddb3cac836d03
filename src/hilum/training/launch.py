"""Start the processes of a training run on this machine, and end all of them when one fails.

``torchrun`` can start them as well: a process finds the others by the same environment variables
(hilum.training.processes).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import cuda
from torch.multiprocessing.spawn import ProcessContext, ProcessException, spawn

from hilum.config import Config
from hilum.cpus import available_cpus
from hilum.errors import ConfigError, DeviceError, HilumError
from hilum.storage import write_json
from hilum.training.processes import LostProcessError, Processes, check_parts, require_distributed

_GRACE_SECONDS = 5.0
"""How long the others may take to notice that a process has ended, before they are ended as well."""
_PORT = "29500"


def launch(function: Callable[..., None], arguments: Sequence[Any], config: Config, devices: int, nodes: int) -> None:
    """Run ``function(*arguments)`` in ``devices`` processes of this machine, which join each other, and wait for them.

    Args:
        function: A function of a module.
        arguments: Its arguments; they are pickled.
        config: Settings of the run, for its device and batch size.
        devices: Number of processes, each with its own GPU or its share of the processors.
        nodes: Number of machines. With more than one, MASTER_ADDR names the first machine, MASTER_PORT a port of it
            (29500 by default), and NODE_RANK is the number of this one.

    Raises:
        ConfigError: The processes cannot share a batch equally, there are fewer processors, a variable is not set, or
            the system is Windows.
        DeviceError: There are fewer GPUs, or a process was killed.
        HilumError: As raised by a process.
    """
    require_distributed()
    check_parts(config.training.batch_size, Processes(size=devices * nodes))
    _require_devices(config, devices)
    node, variables = _place_of(nodes)
    variables |= {"WORLD_SIZE": str(devices * nodes), "LOCAL_WORLD_SIZE": str(devices)}
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        reports = Path(folder)
        work = function, arguments, variables, node * devices, reports
        context: ProcessContext = spawn(_work, work, devices, join=False)  # type: ignore[no-untyped-call]
        try:
            while not context.join(grace_period=_GRACE_SECONDS):
                pass
        except ProcessException as error:
            raise _error_of(context, error, node * devices, devices * nodes, reports) from error
        finally:  # where this process is interrupted
            for process in context.processes:
                process.terminate()
                process.join()


def _require_devices(config: Config, devices: int) -> None:
    from hilum.training.device import device_of  # here, since each process imports this module before it starts

    if device_of(config).type == "cuda":
        if devices > (found := cuda.device_count()):
            raise DeviceError(
                f"--devices is {devices}, but PyTorch finds {found} GPUs.", hint=f"Use --devices {found}."
            )
    elif devices > (found := available_cpus()):
        raise ConfigError(
            f"--devices is {devices}, but this process may use {found} processors.", hint=f"Use --devices {found}."
        )


def _place_of(nodes: int) -> tuple[int, dict[str, str]]:
    """Return the number of this machine, and where its processes find the first one."""
    if nodes == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return 0, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    node = os.environ.get("NODE_RANK", "")
    address = os.environ.get("MASTER_ADDR", "")
    if not address or not node.isdecimal() or int(node) >= nodes:
        raise ConfigError(
            f"--num-nodes {nodes} needs the environment variables MASTER_ADDR, the address of the first machine, and "
            f"NODE_RANK, from 0 to {nodes - 1}; they are {address!r} and {node!r}.",
            hint="Set them on each machine, and MASTER_PORT if 29500 is in use.",
        )
    return int(node), {"MASTER_ADDR": address, "MASTER_PORT": os.environ.get("MASTER_PORT") or _PORT}


def _work(
    number: int,
    function: Callable[..., None],
    arguments: Sequence[Any],
    variables: dict[str, str],
    first: int,
    reports: Path,
) -> None:
    os.environ.update(variables, LOCAL_RANK=str(number), RANK=str(first + number))
    # Ctrl+C, and the end of the parent (see torch's spawn), end a process at once, also one that waits for others
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        function(*arguments)
    except Exception as error:
        if isinstance(error, HilumError):
            message, hint = error.message, error.hint
        else:
            traceback.print_exc()
            message, hint = f"Process {first + number} failed: {type(error).__name__}.", "Its traceback is above."
        lost = isinstance(error, LostProcessError)
        write_json(reports / f"{number}.json", {"message": message, "hint": hint, "lost": lost})
        sys.exit(2)


def _error_of(context: ProcessContext, error: ProcessException, first: int, size: int, reports: Path) -> HilumError:
    """Return the error of the process that failed first: one that lost another did not."""
    known = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(reports.iterdir())]
    for report in known:
        if not report["lost"]:
            return HilumError(report["message"], hint=report["hint"])
    codes = [process.exitcode for process in context.processes]
    killed = [number for number, code in enumerate(codes) if code is not None and code < 0 and -code != signal.SIGTERM]
    if not killed and known:
        return LostProcessError(known[0]["message"], hint=known[0]["hint"])
    number = (killed or [error.error_index])[0]
    code = codes[number] or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return DeviceError(
        f"Process {first + number} of {size} {how}; the others were stopped.",
        hint="The system kills a process if memory runs out. Continue with `hilum train --resume RUN`.",
    )
