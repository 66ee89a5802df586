"""A run that all processes of a parallel training have: process 0 makes it, the others get it.

They get the model with its training state as process 0 has it, of an adapter that and the model
that it belongs to, and read the data themselves. So only process 0 needs the checkpoint that a
training resumes from, and all start with the same bits.
"""

from __future__ import annotations

from pathlib import Path

from cgpt.errors import DataError
from cgpt.llm import LLM
from cgpt.training.mpi import Ranks
from cgpt.training.run import TrainingRun


def send_run(run: TrainingRun, ranks: Ranks) -> None:
    """Process 0: give the others this run, in which they then take part. Raises PeerError."""
    ranks.broadcast(run.llm.to_bytes())
    run.parallel = ranks


def send_nothing(ranks: Ranks) -> None:
    """Process 0: there is nothing to train."""
    ranks.broadcast(b"")


def receive_run(ranks: Ranks, cache: Path | None = None) -> TrainingRun | None:
    """The others: the run of process 0, None where there is nothing to train.

    cache  folder of the tokens of a large corpus, as in `TrainingRun.start`
    Raises DataError where the data here is not that of process 0, PeerError where that fails.
    """
    data = ranks.broadcast(None)
    if not data:
        return None
    llm = LLM.from_bytes(data)
    del data
    run = TrainingRun.resume(llm, new_data=True, cache=cache)
    if run.changed:
        paths = [path for name in run.changed for path in run.config.data(name)]
        raise DataError(
            "{path}: not the data that process 0 has; give all processes the same files",
            path=list(paths),
        )
    run.parallel = ranks
    return run
