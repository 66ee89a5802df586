"""Decoding with random weights, against the memory that the weights are read from. Greedy, 16
prompt tokens, 100 new ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

from cgpt.bench import machine, measure
from cgpt.bench.measure import Measurement, ratio
from cgpt.bench.shapes import SHAPES
from cgpt.bench.table import Settings
from cgpt.bench.train import memories
from cgpt.bench.workers import CGPT, MACHINE, Rounds, Worker, WorkerPool

# Of a weight; the scale of 64 int8 ones is a float32.
BYTES = {"float32": 4, "float16": 2, "int8": 1 + 4 / 64}


def bench_decode(run: Settings) -> Iterator[Measurement]:
    """New tokens a second, of all rows together; memory; how much of the bandwidth is used."""
    with tempfile.TemporaryDirectory(dir=bench_folder()) as folder:
        make_model(folder, run)
        found = decode_rounds(folder, run)
    yield from results(found, run)


def bench_folder() -> str:
    """Where files are written and deleted: CGPT_BENCH_DIR, else the system's own folder."""
    return os.environ.get("CGPT_BENCH_DIR") or tempfile.gettempdir()


def make_model(folder: str, run: Settings) -> None:
    """Write the model, in a process that ends before the first side is measured."""
    details = {"shape": vars(SHAPES[run.config]), "folder": folder, "weights": run.weights}
    with Worker("cgpt", CGPT, run.threads) as maker:
        maker.prepare("make", details)


def weight_bytes(run: Settings) -> int:
    """Bytes of the weights that every token reads."""
    return round(BYTES[run.weights] * SHAPES[run.config].matmul_parameters)


def decode_rounds(folder: str, run: Settings) -> Rounds:
    """Decode with every side the model of its own that is in the folder; "machine" measures peaks.

    Values of a side: Decoded.
    """
    details = {
        "shape": vars(SHAPES[run.config]),
        "folder": folder,
        "weights": run.weights,
        "batch": run.batch,
        "seconds": measure.LEAST_SECONDS,
        "threads": run.threads,
    }
    sides = {"cgpt": CGPT, **run.peers, "machine": MACHINE}
    tasks: dict[str, Any] = dict.fromkeys(sides, ("decode", details))
    reads = {"memory read": machine.READ, "read of as many bytes": weight_bytes(run)}
    tasks["machine"] = machine.peaks_task(run.threads, measure.LEAST_SECONDS, reads=reads)
    with WorkerPool(sides, run.threads, run.on_skip) as pool:
        return pool.measure(tasks, run.repeats)


def results(found: Rounds, run: Settings) -> Iterator[Measurement]:
    """The figures."""
    config, peaks = run.config, found.values["machine"]
    name = f"decode {run.weights} batch {run.batch}"
    decoded = {side: values for side, values in found.values.items() if side != "machine"}
    rates = {side: [one["rate"] for one in values] for side, values in decoded.items()}
    for side, values in rates.items():
        yield Measurement(name, "tokens/s", values, side, config)
    yield from memories(found, config)
    reads = {what: [one["read"][what] for one in peaks] for what in peaks[0]["read"]}
    for what, values in reads.items():
        yield Measurement(what, "GB/s", values, "machine", config)
    for side, values in rates.items():
        bandwidth = [weight_bytes(run) * rate / run.batch / 1e9 for rate in values]
        speed = Measurement("weights read", "GB/s", bandwidth, side, config)
        yield speed
        if side == "cgpt":
            yield from (ratio(speed, values, what) for what, values in reads.items())
