"""Threads follow the affinity mask and the cgroups' CPU quota, of both versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgpt.runtime import processors
from cgpt.runtime.processors import available, quota

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 {base} {mount} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)


def tree(root: Path, own: str, mounts: str, files: dict[str, str]) -> Path:
    """A folder as / would be; `files` by their paths."""
    for name, text in {"proc/self/cgroup": own, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity mask of eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "300000 100000"}, 3),
        ({"cpu.max": "299999 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({}, 8),
        ({"cpu.max": "9000000 100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu.max": ""}, 8),
        ({"cpu.max": "100000 0"}, 8),
        ({"app/cpu.max": "400000 100000"}, 4),
        ({"app/job/cpu.max": "500000 100000", "app/cpu.max": "200000 100000"}, 2),
        ({"app/job/cpu.max": "200000 100000", "app/cpu.max": "max 100000", "cpu.max": "7 1"}, 2),
        ({"app/other/cpu.max": "100000 100000"}, 8),
    ],
)
def test_version_2(tmp_path: Path, files: dict[str, str], wanted: int) -> None:
    """The least of the process' own cgroup and all above it."""
    root = tree(
        tmp_path,
        "0::/app/job\n",
        V2,
        {f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    )
    assert available(root) == wanted


@pytest.mark.parametrize(
    ("base", "mount"),
    [
        ("/", "/sys/fs/cgroup/cpu,cpuacct/docker/1f"),  # the host's own view
        ("/docker/1f", "/sys/fs/cgroup/cpu,cpuacct"),  # a container's: its cgroup is the top
        ("/docker", "/sys/fs/cgroup/cpu/1f"),
        ("/other/one", "/sys/fs/cgroup/cpu"),  # no part of the path is seen
        ("/docker/1f", "/run/my\\040groups"),
    ],
)
@pytest.mark.parametrize(("limit", "wanted"), [("250000", 2), ("-1", 8), ("10000", 1)])
def test_version_1(tmp_path: Path, base: str, mount: str, limit: str, wanted: int) -> None:
    folder = mount.replace("\\040", " ").lstrip("/")
    point = mount.removesuffix("/docker/1f") if base == "/" else mount.removesuffix("/1f")
    root = tree(
        tmp_path,
        "5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n0::/system.slice\n",
        V1.format(base=base, mount=point),
        {f"{folder}/cpu.cfs_quota_us": limit + "\n", f"{folder}/cpu.cfs_period_us": "100000\n"},
    )
    assert available(root) == wanted


def test_a_name_from_outside_the_namespace(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/../../elsewhere\n", V2, {"sys/fs/cgroup/cpu.max": "150000 100000"})
    assert quota(root) == 1.5 and available(root) == 1


def test_the_affinity_mask_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": "600000 100000"})
    assert available(root) == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert available(root) == 2


def test_without_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quota(tmp_path) is None and available(tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available(tmp_path) == (os.cpu_count() or 1)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(b"\xff\xfe\x00 nonsense\n:::\n")
    (tmp_path / "proc/self/mountinfo").write_text("a - cgroup2\n\n1 2 3 4 5 - cgroup2 x y\n")
    assert quota(tmp_path) is None


@pytest.mark.parametrize(
    ("said", "wanted"),
    [({}, 3), ({"OMP_NUM_THREADS": "5"}, 5), ({"CGPT_THREADS": "4", "OMP_NUM_THREADS": "5"}, 4)],
)
def test_the_environment_decides_first(tmp_path: Path, said: dict[str, str], wanted: int) -> None:
    """Kernels read it when they are first imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CGPT_THREADS", "OMP_NUM_THREADS")
    }
    code = (
        "import os; os.sched_getaffinity = lambda pid: set(range(8))\n"
        "from cgpt.runtime import processors; processors.quota = lambda root: 3.9\n"
        "import cgpt; print(cgpt.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **said},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) == wanted


def test_info_shows_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from cgpt.cli import main

    monkeypatch.setattr(processors, "quota", lambda root="/": 2.5)
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable_cpus"] == 2 and found["cpu_quota"] == 2.5
