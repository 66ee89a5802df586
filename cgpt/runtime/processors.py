"""How many processors this process may keep busy: its affinity mask and its cgroups' CPU quota.

A container's limit ("--cpus 2", a Kubernetes limit) is such a quota. More threads than it allows
are stopped together for the rest of each period, and all wait for the one that was stopped.
Source: Documentation/admin-guide/cgroup-v2.rst, cpu.max, and scheduler/sched-bwc.rst,
cpu.cfs_quota_us, in the Linux kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_ESCAPED = re.compile(r"\\([0-7]{3})")  # a blank in a mount point is "\040"


def available(root: str | os.PathLike[str] = "/") -> int:
    """Processors that the affinity mask and the quota allow, at least 1.

    root  the folder in which /proc and the cgroups' mount points lie
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    limit = quota(root)
    return allowed if limit is None else max(1, min(allowed, int(limit)))


def quota(root: str | os.PathLike[str] = "/") -> float | None:
    """The least CPU quota, in processors, of this process' cgroups and all that they lie in.

    None where there is none, or no cgroups. Of both versions; root as of `available`.
    """
    limits = [
        limit for folder in _folders(Path(root)) for limit in (_limit(folder),) if limit is not None
    ]
    return min(limits, default=None)


def _folders(root: Path) -> Iterator[Path]:
    """The cgroups of this process that may have a quota, and all that they lie in."""
    own = dict(_memberships(root))
    for version, base, mount in _mounts(root):
        path = own.get(version, "")
        # A container may see its own cgroup as the top of the mount, and its name from outside.
        inside = path[len(base.rstrip("/")) :] if _is_inside(path, base) else "/"
        folder = root / mount.lstrip("/")
        yield folder
        for part in Path(inside).parts[1:]:
            folder /= part
            yield folder


def _is_inside(path: str, base: str) -> bool:
    return ".." not in path.split("/") and f"{path}/".startswith(f"{base.rstrip('/')}/")


def _memberships(root: Path) -> Iterator[tuple[int, str]]:
    """(version, path) of the cgroups that control this process' time."""
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            yield 2, path
        elif "cpu" in controllers.split(","):
            yield 1, path


def _mounts(root: Path) -> Iterator[tuple[int, str, str]]:
    """(version, cgroup at the top, mount point) of what may hold quotas."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if len(fields) < 5 or len(kinds) < 3 or not kinds[0].startswith("cgroup"):
            continue
        if kinds[0] == "cgroup2" or "cpu" in kinds[2].split(","):
            base, mount = (
                _ESCAPED.sub(lambda found: chr(int(found[1], 8)), one) for one in fields[3:5]
            )
            yield 2 if kinds[0] == "cgroup2" else 1, base, mount


def _limit(folder: Path) -> float | None:
    """The quota of one cgroup in processors; None where there is none."""
    try:
        found, period = (*_words(folder / "cpu.max"), "", "")[:2]
        if not found:
            (found,) = _words(folder / "cpu.cfs_quota_us")
            (period,) = _words(folder / "cpu.cfs_period_us")
        limit = int(found) / int(period)  # "max" is none
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return limit if limit > 0 else None  # -1 is none


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    """The lines of a file, none where it cannot be read."""
    try:
        return file.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
