"""Processors and memory available to this process. Uses the standard library; sets nothing."""

from __future__ import annotations

import math
import os
import platform
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


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory of the machine, limited by the process's cgroup v2 and its parents.

    Args:
        root: Folder that contains /proc and /sys, for tests.
    """
    limits = [int(limit) for limit in _memory_limits(root) if limit.isdecimal()]
    return min([_machine_memory(), *limits])


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # pragma: no cover - Windows
        return 8 << 30


def _memory_limits(root: Path) -> Iterator[str]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from (_read(folder / "memory.max") for folder in _upwards(root / "sys/fs/cgroup", path))


def processor_name(root: Path = Path("/")) -> str:
    """Return the name of the processor with the numbers that tell models of one name apart, where the system has them.

    For example ``AMD EPYC (family 25, model 17, stepping 1)``; the architecture where /proc/cpuinfo has no name.
    """
    facts: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    kinds = {"family": "cpu family", "model": "model", "stepping": "stepping"}
    numbers = ", ".join(f"{kind} {facts[key]}" for kind, key in kinds.items() if key in facts)
    return f"{facts['model name']} ({numbers})" if numbers else facts["model name"]


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
