"""Number and features of the processors available to this process. Uses the standard library; sets nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86, x86, Arm


def available_cpus(root: Path = Path("/")) -> int:
    """Return the number of processors available to this process, at least 1.

    This is the size of the affinity mask, limited by the CPU quotas of the process's cgroup and its parents (a
    container's limit), rounded up.

    Args:
        root: Folder that contains /proc and /sys, for tests.
    """
    quotas = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([_affinity(), *quotas]))


def has_bfloat16(root: Path = Path("/")) -> bool | None:
    """Return whether the processor has bfloat16 instructions, without which bfloat16 is slow; None if unknown."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not _BFLOAT16_FLAGS.isdisjoint(values.split())
    return None


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # pragma: no cover - macOS and Windows


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas, in processors, that cgroup v2 and v1 set for this process."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(root / "sys/fs/cgroup", path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _share(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup" / controllers, path):
                yield from _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the cgroup's folder and its parents; in a container, the mount itself may be the cgroup's folder."""
    folder = mount / path.strip("/")
    yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(mount)))


def _share(quota: str, period: str) -> Iterator[float]:
    try:
        allowed, every = int(quota), int(period)
    except ValueError:  # no such file, or "max"
        return
    if allowed > 0 and every > 0:  # -1: no limit
        yield allowed / every


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
