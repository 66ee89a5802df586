"""`--parallel mpi`: one training by several processes, of which only the first writes and prints.

What ends one of them ends all: a signal after the step, which is then saved; a failure, or a
process that is gone, with what was reached until then.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cgpt.errors import CgptError, ConfigError
from cgpt.locale import t
from cgpt.training.mpi_environment import discard_output, run_in_own_session, started_as

if TYPE_CHECKING:
    from cgpt.cli.ui.signals import StopRequest
    from cgpt.training.callbacks import FitResult
    from cgpt.training.mpi import Ranks
    from cgpt.training.run import TrainingRun


class Team:
    """The processes of one command; `ranks` is None where it is alone.

    cache   --cache, where it is given
    rescue  of process 0: saves what was reached when another process has failed
    """

    def __init__(self, ranks: Ranks | None = None, cache: str | None = None) -> None:
        self.ranks = ranks
        self.cache = Path(cache) if cache else None
        self.rescue: Callable[[], object] | None = None
        self._shared = False

    def share(self, run: TrainingRun) -> None:
        """Process 0: give the others the run."""
        if self.ranks is not None:
            from cgpt.training.broadcast import send_run

            self._shared = True
            send_run(run, self.ranks)

    def stopped(self, stop: StopRequest, result: FitResult) -> bool:
        """Whether a signal to any of them ends the training; all then have the same exit code."""
        if self.ranks is not None:
            stop.number = int(self.ranks.gather([stop.number]).max())
        return stop() or result.stopped == "interrupted"

    def lead(self, command: Callable[[], int]) -> int:
        """Process 0: the command as it is without the others."""
        if self.ranks is None:
            return command()
        code = command()
        if not self._shared:
            from cgpt.training.broadcast import send_nothing

            send_nothing(self.ranks)
        return code

    def follow(self) -> int:
        """The others: train along."""
        from cgpt.cli.ui.signals import StopRequest
        from cgpt.training.broadcast import receive_run

        run = None if self.ranks is None else receive_run(self.ranks, self.cache)
        if run is None:
            return 0
        with StopRequest(sys.stderr) as stop:
            for phase in tuple(run.phases):
                result = run.fit_phase(phase, should_stop=stop)
                if self.stopped(stop, result):
                    return stop.exit_code
        return 0


def in_parallel(function: Callable[..., int]) -> Callable[..., int]:
    """Decorator of a command with --parallel; the command gets its Team in values["team"]."""

    @wraps(function)
    def command(parallel: str | None, **values: Any) -> int:
        if parallel != "mpi":
            if parallel is None and started_as()[1] > 1:
                raise ConfigError(
                    "mpiexec started {n} processes that know nothing of each other; add "
                    "--parallel mpi, or --parallel none where each is to train for itself",
                    n=started_as()[1],
                )
            return function(**values, team=Team())
        from cgpt.cli.ui.terminal import Terminal
        from cgpt.training.mpi import connect

        ranks = connect()
        if ranks.rank:  # where a file of settings asked for it, prepare() did not know
            discard_output()
        share_processors(ranks)
        team = Team(ranks if ranks.size > 1 else None, values["cache"])
        if ranks.size == 1:
            return function(**values, team=team)
        Terminal(sys.stderr).note(
            t(
                "{n} processes train together ({machines} machines, {threads} threads each)",
                n=ranks.size,
                machines=ranks.machines,
                threads=ranks.threads,
            )
        )
        return together(
            team,
            ranks,
            (lambda: team.lead(lambda: function(**values, team=team)))
            if ranks.rank == 0
            else team.follow,
        )

    return command


def together(team: Team, ranks: Ranks, work: Callable[[], int]) -> int:
    """The exit code of work(), when all processes are done with theirs; a failure ends all."""
    try:
        code = work()
        ranks.any(False)
        return code
    except BaseException as error:
        end_all(team, ranks, error)


def end_all(team: Team, ranks: Ranks, error: BaseException) -> NoReturn:
    """Tell the others, save what was reached, leave without waiting for anybody."""
    from cgpt.cli import sentence_of
    from cgpt.runtime.process_group import PeerError

    if ranks.orphaned:
        discard_output()
    if not isinstance(error, PeerError):
        ranks.fail(sentence_of(error))
    code = told(error)
    if ranks.rank:
        ranks.wait_for_release()
    else:
        unexpected = isinstance(error, PeerError) or not isinstance(error, CgptError)
        if team.rescue is not None and unexpected and isinstance(error, Exception):
            try:
                team.rescue()
            except Exception as second:
                told(second)
        ranks.release()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # MPI_Finalize would wait for sums that will never be there.
    os._exit(code)


def told(error: BaseException) -> int:
    """The exit code of an error that was said where somebody still listens."""
    from cgpt.cli import guard

    def again() -> int:
        raise error

    try:
        return guard(again, click.get_current_context().obj or {})
    except BrokenPipeError:
        discard_output()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    return 1


def share_processors(ranks: Ranks) -> None:
    """Each process takes its share of this machine, unless the user has said how many threads."""
    from cgpt import kernels

    source = click.get_current_context().get_parameter_source("threads")
    if source in (None, click.core.ParameterSource.DEFAULT) and "OMP_NUM_THREADS" not in os.environ:
        kernels.set_num_threads(ranks.threads)
    ranks.threads = kernels.get_num_threads()


def asked(args: Sequence[str]) -> bool:
    """Whether the command line or the environment asks for processes that work together."""
    return (
        os.environ.get("CGPT_PARALLEL") == "mpi"
        or "--parallel=mpi" in args
        or ("--parallel", "mpi") in pairwise(args)
    )


def prepare() -> None:
    """Of a process that works with others, before anything is parsed or computed."""
    if started_as()[0]:
        discard_output()
    else:
        run_in_own_session()
