"""cgpt against itself: threads, the same bits with any number of them, Python's share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cgpt.bench import measure
from cgpt.bench.measure import Measurement, ratio
from cgpt.bench.shapes import SHAPES
from cgpt.bench.table import Settings
from cgpt.bench.workers import Crew
from cgpt.errors import ConfigError

COUNTS = (1, 2, 3, 4)  # threads that must give the same bits
STEPS = 3


def bench_threads(run: Settings) -> Iterator[Measurement]:
    """All threads against one, in turn: tokens a second of whole training steps."""
    if run.threads < 2:
        raise ConfigError("bench: threads compares several threads with one; use --threads 2")
    details = {"shape": vars(SHAPES[run.config]), "seconds": measure.LEAST_SECONDS}
    with Crew(("cgpt", "cgpt-1"), run.threads, run.tell) as crew:
        found = crew.measure(dict.fromkeys(crew.names, ("train", details)), run.repeats)
    many = Measurement(
        f"train, {run.threads} threads", "tokens/s", found.values["cgpt"], config=run.config
    )
    one = Measurement("train, 1 thread", "tokens/s", found.values["cgpt-1"], config=run.config)
    yield from (many, one, ratio(many, one.values, "1 thread"))


def bench_bits(run: Settings) -> Iterator[Measurement]:
    """Whether losses and weights after three steps are the same with 1, 2, 3 and 4 threads."""
    details = {"shape": vars(SHAPES[run.config]), "counts": COUNTS, "steps": STEPS}
    (digests,) = alone("bits", details, run, 1)
    yield Measurement(
        f"same bits with {', '.join(map(str, COUNTS))} threads",
        "yes",
        [float(len(set(digests)) == 1)],
        config=run.config,
    )


def bench_share(run: Settings) -> Iterator[Measurement]:
    """The share of a training step that is spent outside the kernels, in per cent."""
    details = {"shape": vars(SHAPES[run.config]), "seconds": measure.LEAST_SECONDS}
    values = alone("share", details, run, run.repeats)
    yield Measurement(
        "Python's share of a step",
        "%",
        [100 * value for value in values],
        config=run.config,
        higher=False,
    )


def alone(task: str, details: dict[str, Any], run: Settings, repeats: int) -> list[Any]:
    """What cgpt's side alone measures."""
    with Crew(("cgpt",), run.threads, run.tell) as crew:
        return crew.measure({"cgpt": (task, details)}, repeats).values["cgpt"]
