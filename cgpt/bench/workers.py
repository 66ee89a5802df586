"""The command's end of the workers: one process a side, measured in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import IO, Any, cast

from cgpt.bench.measure import Skip
from cgpt.errors import CgptError, ConfigError

# glibc then neither maps large blocks one by one nor gives memory back: no page faults after the
# first step.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
# Seconds between two turns. The threads of a BLAS spin for up to 2**26 cycles after their last
# product; without a rest the side whose turn comes next pays for them.
REST = 0.1
PLACE = "cgpt.bench."  # where the modules of the sides are
THREAD_VARIABLES = ("CGPT_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD: dict[str, str] = dict.fromkeys(THREAD_VARIABLES, "1")


@dataclass(frozen=True)
class Side:
    """Where a side's tasks are, what it needs, what it is told and its environment."""

    module: str
    package: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


SIDES = {
    "cgpt": Side("ours"),
    "cgpt-1": Side("ours", environment=ONE_THREAD),
    "machine": Side("machine"),
    "blas": Side("machine"),
    "blas-slices-1": Side("machine", environment=ONE_THREAD),
    "torch": Side("torch_side", "torch"),
    "torch-malloc": Side("torch_side", "torch", {}, KEEP_MEMORY),
    "torch-compile": Side("torch_side", "torch", {"compiled": True}),
    "maker": Side("formats"),
    "dialogues": Side("dialogues"),
    "transformers": Side("decoders", "transformers"),
    "llama-cpp": Side("decoders", "llama_cpp"),
    "llama-cpp-1": Side("decoders", "llama_cpp", {}, ONE_THREAD),
    # Its own threads and those of its MKL get in each other's way: with several, oneDNN. With
    # one, MKL has to be told so too, or it starts several.
    "ctranslate2": Side("decoders", "ctranslate2", {}, {"CT2_USE_MKL": "0"}),
    "ctranslate2-1": Side("decoders", "ctranslate2", {}, ONE_THREAD),
}


def require_package(side: str) -> None:
    """Raises ConfigError where the package of a peer is not installed."""
    package = SIDES[side].package
    if package and find_spec(package) is None:
        raise ConfigError(f"bench: the peer {side} is not installed; pip install 'cgpt[peers]'")


def environment_of(side: str, threads: int) -> dict[str, str]:
    """The environment of a side's process."""
    found = {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        **SIDES[side].environment,
    }
    if SIDES[side].package:
        found.pop("GOMP_SPINCOUNT", None)  # cgpt's own; a peer keeps its default
    return found


class Worker:
    """One side in a process of its own; a context manager.

    Raises ConfigError where the package of a peer is not installed.
    """

    def __init__(self, name: str, threads: int) -> None:
        require_package(name)
        self.name, self.side = name, SIDES[name]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cgpt.bench.worker", PLACE + self.side.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_of(name, threads),
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
            raise CgptError(f"bench: the side {self.name} ended with an error (shown above)")
        answer = json.loads(line)
        if "skip" in answer:
            raise Skip(answer["skip"])
        if "error" in answer:
            raise ConfigError(answer["error"])
        return answer["value"]

    def prepare(self, task: str, details: dict[str, Any]) -> None:
        """Build what is measured and warm up."""
        self.ask(do="prepare", task=task, **details, **self.side.details)

    def measure(self) -> Any:
        """One repeat, in the unit of the task."""
        return self.ask(do="measure")

    def memory(self) -> dict[str, float]:
        """Bytes: "peak" and "resident" now."""
        return cast("dict[str, float]", self.ask(do="memory"))


@dataclass
class Rounds:
    """What a crew measured: values a side, in the order of the repeats; memory a side."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)


class Crew:
    """Sides that are measured in turn; a context manager.

    tell  is given the name of a side that cannot do a task, and why
    """

    def __init__(
        self, names: Iterable[str], threads: int, tell: Callable[[str, Skip], object]
    ) -> None:
        self.names, self.threads, self.tell = list(names), threads, tell
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> Crew:
        self._stack = ExitStack()
        with ExitStack() as stack:
            for name in self.names:
                self.workers[name] = stack.enter_context(Worker(name, self.threads))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def measure(self, tasks: dict[str, tuple[str, dict[str, Any]]], repeats: int) -> Rounds:
        """Prepare (task, details) of each side, then measure all in turn, `repeats` times,
        with a rest before each turn."""
        found = Rounds()
        for name, (task, details) in tasks.items():
            try:
                self.workers[name].prepare(task, details)
                found.values[name] = []
            except Skip as reason:
                self.tell(name, reason)
        for _ in range(repeats):
            for name, values in found.values.items():
                time.sleep(REST)
                values.append(self.workers[name].measure())
        found.memory = {name: self.workers[name].memory() for name in found.values}
        return found
