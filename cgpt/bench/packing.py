"""One epoch of fine-tuning on dialogues: packed by cgpt, padded as usual in PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgpt.bench.measure import Measurement
from cgpt.bench.table import Settings
from cgpt.bench.workers import Crew, Worker


def bench_packing(run: Settings) -> Iterator[Measurement]:
    """Seconds of one epoch, `small` preset, the same tokens and targets on both sides.

    cgpt packs 2048 tokens a step without padding; PyTorch takes 16 dialogues a step, padded to
    the longest, and ignores the padding in its loss. Encoding is not counted on either side.
    """
    paths = [str(Path(path).resolve()) for path in run.data]
    with tempfile.TemporaryDirectory() as folder:
        with Worker("dialogues", run.threads) as maker:
            maker.prepare("make", {"folder": folder, "paths": paths})
        details: dict[str, Any] = {"folder": folder, "paths": paths}
        tasks = {
            "dialogues": ("packed", details),
            **dict.fromkeys(run.peers, ("padded", {"folder": folder})),
        }
        with Crew(tasks, run.threads, run.tell) as crew:
            found = crew.measure(tasks, run.repeats)
    times = {
        side: Measurement(
            "one epoch",
            "s",
            [one["seconds"] for one in values],
            "cgpt" if side == "dialogues" else side,
            higher=False,
            note=f"{values[0]['steps']} steps, {values[0]['tokens']} tokens, "
            f"{values[0]['counted']} with a target",
        )
        for side, values in found.values.items()
    }
    yield from times.values()
    for side, time in times.items():
        if side != "dialogues":
            yield Measurement(
                "one epoch, speed",
                "x",
                [
                    theirs / ours
                    for theirs, ours in zip(time.values, times["dialogues"].values, strict=True)
                ],
                to=side,
            )
