"""The products of a training step beside BLAS and PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers.compare import compared
from benchmarks.peers.sides import SIDES
from cgpt.bench import machine, measure
from cgpt.bench.measure import Measurement, ratio
from cgpt.bench.shapes import SHAPES
from cgpt.bench.table import Settings
from cgpt.bench.workers import MACHINE, WorkerPool

DIRECTIONS = ("forward", "backward_input", "backward_weight")


def bench_products(run: Settings, rows: int = 0) -> Iterator[Measurement]:
    """GFLOP/s of y = x W^T, dx = dy W and dW += dy^T x of every linear layer of a shape, of as many
    rows as a training batch has or as are asked for: cgpt, NumPy's BLAS with its own threads, the
    same with one thread on each slice, PyTorch."""
    shape = SHAPES[run.config]
    sides = {
        "cgpt": SIDES["cgpt"],
        "blas": SIDES["blas"],
        "blas-slices-1": SIDES["blas-slices-1"],
        **run.peers,
        "machine": MACHINE,
    }
    with WorkerPool(sides, run.threads, run.on_skip) as pool:
        for layer, (depth, columns) in shape.linears.items():
            for direction in DIRECTIONS:
                details = {
                    "name": direction,
                    "rows": rows or shape.tokens,
                    "depth": depth,
                    "columns": columns,
                    "seconds": measure.LEAST_SECONDS / 4,
                }
                tasks: dict[str, Any] = dict.fromkeys(sides, ("product", details))
                tasks["blas-slices-1"] = ("product", {**details, "parts": run.threads})
                tasks["machine"] = machine.peaks_task(run.threads, machine.PEAK_SECONDS, reads={})
                found = pool.measure(tasks, run.repeats)
                peaks = [one["fma"] for one in found.values.pop("machine")]
                rates = [
                    Measurement(f"{layer} {direction}", "GFLOP/s", values, side, run.config)
                    for side, values in found.values.items()
                ]
                yield from compared(rates)
                yield ratio(rates[0], peaks, "multiply-add peak")


def operands(rows: int, depth: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (rows, depth), weight (columns, depth) and y (rows, columns) of a linear layer."""
    rng = np.random.default_rng(3)
    x, weight, y = (
        rng.standard_normal(sizes, dtype=np.float32)
        for sizes in ((rows, depth), (columns, depth), (rows, columns))
    )
    return x, weight, y
