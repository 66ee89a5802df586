"""How much memory this process holds."""

from __future__ import annotations

from contextlib import suppress


def resident() -> int:
    """Bytes of memory that this process holds now (where the system does not say: at most); 0
    where it says neither."""
    with suppress(OSError, ValueError, IndexError):
        import os

        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with suppress(ImportError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0


def human_size(size: int) -> str:
    """Bytes as 1.2 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
