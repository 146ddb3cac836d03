"""Processors: the affinity mask, cut by the quotas of cgroup v1 and v2, and bfloat16 from the processor's flags."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hilum import cpus
from hilum.cpus import available_cpus, available_memory, has_bfloat16, processor_name


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_affinity", lambda: 8)


def _files(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/hidden\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n3:cpuset:/\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
    ids=["no cgroup", "v2 max", "v2", "v2 above, rounded up", "v2 in a container", "v2 beyond", "v1", "v1 no limit"],
)
def test_quotas_cut_the_affinity_mask(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_cpus(_files(tmp_path, files)) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_the_affinity_mask_counts() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("processor : 0\n", None),
    ],
)
def test_bfloat16_is_read_from_the_flags(cpuinfo: str, expected: bool | None, tmp_path: Path) -> None:
    assert has_bfloat16(_files(tmp_path, {"proc/cpuinfo": cpuinfo})) is expected


def test_bfloat16_is_unknown_where_nothing_tells(tmp_path: Path) -> None:
    assert has_bfloat16(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "processor : 0\nmodel name : AMD EPYC\ncpu family : 25\nmodel : 17\nstepping : 1\n"
            "processor : 1\nmodel name : Another\nmodel : 3\n",
            "AMD EPYC (family 25, model 17, stepping 1)",
        ),
        ("model name : Some CPU\n", "Some CPU"),
        ("CPU part : 0xd0c\n", "aarch64"),
        (None, "aarch64"),
    ],
)
def test_the_name_of_the_processor(
    content: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus.platform, "processor", lambda: "")
    monkeypatch.setattr(cpus.platform, "machine", lambda: "aarch64")
    assert processor_name(_files(tmp_path, {} if content is None else {"proc/cpuinfo": content})) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 << 30),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}, 1 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999\n"}, 8 << 30),
    ],
    ids=["no cgroup", "no limit", "of a parent", "beyond the machine"],
)
def test_limits_cut_the_memory(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "_machine_memory", lambda: 8 << 30)
    assert available_memory(_files(tmp_path, files)) == expected
