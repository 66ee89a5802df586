"""One epoch of fine-tuning on dialogues: packed by cgpt, padded as usual in PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import compared
from benchmarks.peers.sides import SIDES
from cgpt.bench.measure import Measurement
from cgpt.bench.table import Settings
from cgpt.bench.workers import Worker, WorkerPool


def bench_packing(run: Settings, data: Sequence[str] = ()) -> Iterator[Measurement]:
    """Seconds of one epoch, `small` preset, the same tokens and targets on both sides.

    cgpt packs 2048 tokens a step without padding; PyTorch takes 16 dialogues a step, padded to
    the longest, and ignores the padding in its loss. Encoding is not counted on either side.
    """
    paths = [str(Path(path).resolve()) for path in data]
    sides = {"cgpt": SIDES["cgpt"], **run.peers}
    with tempfile.TemporaryDirectory() as folder:
        details: dict[str, Any] = {"folder": folder, "paths": paths}
        with Worker("cgpt", SIDES["cgpt"], run.threads) as maker:
            maker.prepare("make_dialogues", details)
        tasks: dict[str, Any] = dict.fromkeys(sides, ("padded", {"folder": folder}))
        tasks["cgpt"] = ("packed", details)
        with WorkerPool(sides, run.threads, run.on_skip) as pool:
            found = pool.measure(tasks, run.repeats)
    times = [
        Measurement(
            "one epoch",
            "s",
            [one["seconds"] for one in values],
            side,
            higher=False,
            note=f"{values[0]['steps']} steps, {values[0]['tokens']} tokens, "
            f"{values[0]['counted']} with a target",
        )
        for side, values in found.values.items()
    ]
    yield from compared(times)
