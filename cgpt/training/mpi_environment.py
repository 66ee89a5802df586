"""What a launcher of MPI (mpiexec, srun) leaves in the environment of what it starts."""

from __future__ import annotations

import os

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
