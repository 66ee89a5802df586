"""Decoding beside peers."""

from __future__ import annotations

from collections.abc import Iterator

from cgpt.cli.bench import measure
from cgpt.cli.bench.measure import Measurement
from cgpt.cli.bench.shapes import SHAPES
from cgpt.cli.bench.table import Settings
from cgpt.cli.bench.train import compared, memories
from cgpt.cli.bench.workers import Crew


def bench_decode(run: Settings) -> Iterator[Measurement]:
    """New tokens a second and peak memory, beside the peers."""
    details = {"shape": vars(SHAPES[run.config]), "seconds": measure.LEAST_SECONDS}
    tasks = dict.fromkeys(("cgpt", *run.peers), ("decode", details))
    with Crew(tasks, run.threads, run.tell) as crew:
        found = crew.measure(tasks, run.repeats)
    yield from compared(found, "decode", "tokens/s", run.config)
    yield from memories(found, run.config)
