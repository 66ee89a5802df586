"""Both ends of the processes that measure: `WorkerPool` starts one for each side and measures them
in turn; `python -m cgpt.bench.workers MODULE` is such a process.

It reads one JSON object a line on stdin and answers each with one on stdout, until stdin ends:
    {"do": "prepare", "task": ..., details}  MODULE.TASKS[task](**details) builds, warms up and
                                             returns the function that "measure" calls
    {"do": "measure"}                        what that function returns
    {"do": "memory"}                         {"peak", "resident"} in bytes
An answer is {"value": ...}, {"skip": why this side cannot} or {"error": the user's mistake}.
What libraries print on stdout goes to stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any, cast

from cgpt.bench.measure import Skip
from cgpt.errors import CgptError, ConfigError, as_dict, phrase_of
from cgpt.runtime.memory import resident

# Seconds between two turns. The threads of a BLAS spin for up to 2**26 cycles after their last
# product; without a rest the side whose turn comes next pays for them.
REST = 0.1
THREAD_VARIABLES = ("CGPT_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD: dict[str, str] = dict.fromkeys(THREAD_VARIABLES, "1")

Tasks = Mapping[str, tuple[str, Mapping[str, Any]]]  # (task, its details) of each side


@dataclass(frozen=True)
class Side:
    """Who is measured: the module with its TASKS, the package that these need, details for every
    task and variables of its environment."""

    module: str
    package: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def process_environment(self, threads: int) -> dict[str, str]:
        """The environment of a process of this side. Another library's does not learn how long
        the threads of cgpt spin (GOMP_SPINCOUNT)."""
        found = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **self.environment}
        if self.package:
            found.pop("GOMP_SPINCOUNT", None)
        return found


CGPT = Side("cgpt.bench.tasks")
MACHINE = Side("cgpt.bench.machine")


class Worker:
    """One side in a process of its own; a context manager.

    Raises ConfigError where the package that the side needs is not installed.
    """

    def __init__(self, name: str, side: Side, threads: int) -> None:
        if side.package and find_spec(side.package) is None:
            raise ConfigError(
                "bench: the peer {peer} is not installed; pip install 'cgpt[peers]'", peer=name
            )
        self.name, self.side = name, side
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cgpt.bench.workers", side.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=side.process_environment(threads),
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        cast(IO[str], self.process.stdin).close()
        if any(error):
            self.process.kill()
        self.process.wait()
        cast(IO[str], self.process.stdout).close()

    def ask(self, **request: Any) -> Any:
        """The answer to one line. Raises Skip, or CgptError where the process has ended."""
        stdin, stdout = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise CgptError(
                "bench: the side {side} ended with an error (shown above)", side=self.name
            )
        answer = json.loads(line)
        if "skip" in answer:
            reason = phrase_of(answer["skip"])
            raise Skip(reason.template, **reason.fields)
        if "error" in answer:
            reason = phrase_of(answer["error"])
            raise ConfigError(reason.template, **reason.fields)
        return answer["value"]

    def prepare(self, task: str, details: Mapping[str, Any]) -> None:
        """Build what is measured and warm up."""
        self.ask(do="prepare", task=task, **details, **self.side.details)


@dataclass
class Rounds:
    """What was measured: values of each side, in the order of the repeats; its memory in bytes."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)


class WorkerPool:
    """A worker for each side, measured in turn; a context manager.

    on_skip  is given the name of a side that cannot do a task, and why
    """

    def __init__(
        self, sides: Mapping[str, Side], threads: int, on_skip: Callable[[str, Skip], object]
    ) -> None:
        self.sides, self.threads, self.on_skip = sides, threads, on_skip
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> WorkerPool:
        with ExitStack() as stack:
            for name, side in self.sides.items():
                self.workers[name] = stack.enter_context(Worker(name, side, self.threads))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def measure(self, tasks: Tasks, repeats: int) -> Rounds:
        """Prepare the task of each side, then measure all in turn, `repeats` times, with a rest
        before each turn."""
        found = Rounds()
        for name, task in tasks.items():
            try:
                self.workers[name].prepare(*task)
                found.values[name] = []
            except Skip as reason:
                self.on_skip(name, reason)
        for _ in range(repeats):
            for name, values in found.values.items():
                time.sleep(REST)
                values.append(self.workers[name].ask(do="measure"))
        found.memory = {name: self.workers[name].ask(do="memory") for name in found.values}
        return found


def memory() -> dict[str, float]:
    """Most bytes of this process that were in memory at once, and those that are now.

    Where the system does not tell them apart, both are what `resident` says.
    """
    with suppress(OSError):
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file)
        keys = {"peak": "VmHWM", "resident": "VmRSS"}
        return {name: 1024.0 * int(lines[key].split()[0]) for name, key in keys.items()}
    return dict.fromkeys(("peak", "resident"), float(resident()))


def serve(module: str) -> None:
    """Answer lines until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measure: Callable[[], Any] | None = None
    for line in sys.stdin:
        details = json.loads(line)
        do = details.pop("do")
        answer: dict[str, Any] = {"value": None}
        try:
            if do == "prepare":
                measure = None  # frees what it holds before the next is built
                measure = import_module(module).TASKS[details.pop("task")](**details)
            elif do == "memory":
                answer["value"] = memory()
            elif measure is not None:
                answer["value"] = measure()
        except Skip as reason:
            answer = {"skip": as_dict(reason)}
        except CgptError as error:
            answer = {"error": as_dict(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
