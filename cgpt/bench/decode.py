"""Decoding beside peers with the same random weights, against the memory that the weights are
read from. Greedy, 16 prompt tokens, 100 new ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from cgpt.bench import machine, measure
from cgpt.bench.measure import Measurement, Skip, ratio
from cgpt.bench.shapes import NEW, SHAPES, Shape
from cgpt.bench.table import Settings
from cgpt.bench.train import compared, memories
from cgpt.bench.workers import Crew, Rounds, Worker

# Sides whose best number of threads depends on the shape: measured with all and with one.
ALSO_ONE_THREAD = {"llama-cpp": "llama-cpp-1", "ctranslate2": "ctranslate2-1"}
# Of a weight; the scale of 64 int8 ones is a float32, q8_0's of 32 a float16.
BYTES = {"float32": 4, "float16": 2, "int8": 1 + 4 / 64}


def bench_decode(run: Settings) -> Iterator[Measurement]:
    """New tokens a second, of all rows together; memory; how much of the bandwidth is used.

    The files go to a folder in CGPT_BENCH_DIR, else in the system's own, and are deleted.
    """
    shape = SHAPES[run.config]
    peers = [
        side for peer in run.peers for side in (peer, ALSO_ONE_THREAD.get(peer)) if side is not None
    ]
    place = os.environ.get("CGPT_BENCH_DIR") or tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        make_files(shape, folder, peers, run)
        details = {
            "shape": vars(shape),
            "folder": folder,
            "weights": run.weights,
            "batch": run.batch,
            "seconds": measure.LEAST_SECONDS,
        }
        one = ALSO_ONE_THREAD.values()
        tasks: dict[str, tuple[str, dict[str, Any]]] = {
            side: (
                "decode" if side in ("cgpt", "torch") else side.removesuffix("-1"),
                {**details, "threads": 1 if side in one else run.threads},
            )
            for side in ("cgpt", *peers)
        }
        size = round(BYTES[run.weights] * shape.matmul_parameters)
        tasks["machine"] = (
            "peaks",
            {
                "threads": run.threads,
                "seconds": measure.LEAST_SECONDS,
                "products": [],
                "reads": {"memory read": machine.READ, "read of as many bytes": size},
            },
        )
        with Crew(tasks, run.threads, run.tell) as crew:
            found = crew.measure(tasks, run.repeats)
    yield from results(found, size, run)


def make_files(shape: Shape, folder: str, peers: list[str], run: Settings) -> None:
    """Write the model for every side, in a process that ends before the first is measured."""
    with Worker("maker", run.threads) as maker:
        try:
            maker.prepare(
                "make",
                {"shape": vars(shape), "folder": folder, "peers": peers, "weights": run.weights},
            )
        except Skip as reason:
            run.tell("maker", reason)


def results(found: Rounds, size: int, run: Settings) -> Iterator[Measurement]:
    """The figures; `size` is the bytes of the weights that every token reads."""
    config = run.config
    peaks = found.values.pop("machine")
    tokens = {side: values[0]["tokens"] for side, values in found.values.items()}
    found.values = {side: [one["rate"] for one in values] for side, values in found.values.items()}
    name = f"decode {run.weights} batch {run.batch}"
    peers = [side for side in found.values if side != "cgpt"]
    yield from compared(found, name, "tokens/s", config, peers, "best peer")
    yield from memories(found, config)
    for side in peers:
        same = takewhile(
            lambda pair: pair[0] == pair[1], zip(tokens["cgpt"], tokens[side], strict=True)
        )
        yield Measurement(
            "first tokens as cgpt's", f"of {NEW}", [float(len(list(same)))], side, config
        )
    reads = {what: [one["read"][what] for one in peaks] for what in peaks[0]["read"]}
    for what, values in reads.items():
        yield Measurement(what, "GB/s", values, "machine", config)
    for side, rates in found.values.items():
        speed = Measurement(
            "weights read", "GB/s", [size * rate / run.batch / 1e9 for rate in rates], side, config
        )
        yield speed
        if side == "cgpt":
            yield from (ratio(speed, values, what) for what, values in reads.items())
