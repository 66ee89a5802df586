"""What a launcher of MPI (mpiexec, srun) leaves in the environment of what it starts, and how such
a process outlives it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

# (rank, size) as MPICH and Intel, Open MPI, and MVAPICH name them.
_NAMES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)


def started_as() -> tuple[int, int]:
    """(rank, size) of this process; (0, 1) where no launcher started it."""
    for names in _NAMES:
        rank, size = (os.environ.get(name, "") for name in names)
        if rank.isdecimal() and size.isdecimal():
            return int(rank), int(size)
    return 0, 1


def launched() -> bool:
    """Whether a launcher started this process."""
    return "PMIX_RANK" in os.environ or any(rank in os.environ for rank, _ in _NAMES)


def discard_output() -> None:
    """For all processes but the first, and where nobody reads any more."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def run_in_own_session() -> None:
    """Go on in a child with a session of its own, for which this process waits.

    Where a process is killed mpiexec kills all others at once, by the groups that it knows; the
    child is in none of them and lives to save what was reached.
    """
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if not child:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return
    for one in signals:
        signal.signal(one, lambda number, frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        with suppress(OSError):  # of SIGKILL there is no other
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
