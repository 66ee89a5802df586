"""The products of a training step beside BLAS and PyTorch; every kernel beside its roofline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cgpt.bench import machine, measure
from cgpt.bench.measure import Measurement, ratio
from cgpt.bench.shapes import SHAPES
from cgpt.bench.table import Settings
from cgpt.bench.train import compared
from cgpt.bench.workers import Crew

DIRECTIONS = ("forward", "backward_input", "backward_weight")


def bench_products(run: Settings) -> Iterator[Measurement]:
    """GFLOP/s of y = x W^T, dx = dy W and dW += dy^T x of every linear layer of a shape, of as many
    rows as a training batch has or as are asked for: cgpt, NumPy's BLAS with its own threads, the
    same with one thread on each slice, PyTorch."""
    shape = SHAPES[run.config]
    peak = (
        "peaks",
        {"threads": run.threads, "seconds": machine.PEAK_SECONDS, "products": [], "reads": {}},
    )
    with Crew(
        ("cgpt", "blas", "blas-slices-1", *run.peers, "machine"), run.threads, run.tell
    ) as crew:
        for layer, (depth, columns) in shape.linears.items():
            for direction in DIRECTIONS:
                details = {
                    "name": direction,
                    "rows": run.rows or shape.tokens,
                    "depth": depth,
                    "columns": columns,
                    "seconds": measure.LEAST_SECONDS / 4,
                }
                tasks = dict.fromkeys(crew.names, ("product", details))
                tasks["blas-slices-1"] = ("product", {**details, "parts": run.threads})
                found = crew.measure({**tasks, "machine": peak}, run.repeats)
                peaks = [one["fma"] for one in found.values.pop("machine")]
                rate, *more = compared(
                    found,
                    f"{layer} {direction}",
                    "GFLOP/s",
                    run.config,
                    crew.names[1:],
                    "best other",
                )
                yield from (rate, *more, ratio(rate, peaks, "multiply-add peak"))


def bench_roofline(run: Settings) -> Iterator[Measurement]:
    """Each kernel of a training step: milliseconds, and the least that the machine needs for it
    over that: its multiply-adds at their peak, or each of its arrays through memory once,
    whichever takes longer. What the caches hold can be faster than memory: above 1 then."""
    details = {"shape": vars(SHAPES[run.config]), "seconds": measure.LEAST_SECONDS}
    peaks: dict[str, Any] = {
        "threads": run.threads,
        "seconds": machine.PEAK_SECONDS,
        "products": [],
        "reads": {"memory": machine.READ},
    }
    with Crew(("cgpt", "machine"), run.threads, run.tell) as crew:
        found = crew.measure(
            {"cgpt": ("roofline", details), "machine": ("peaks", peaks)}, run.repeats
        ).values
    steps, limits = found["cgpt"], found["machine"]
    yield Measurement("multiply-add peak", "GFLOP/s", [one["fma"] for one in limits], "machine")
    yield Measurement("memory read", "GB/s", [one["read"]["memory"] for one in limits], "machine")
    names: list[str] = sorted(steps[0], key=lambda name: -float(steps[0][name][0]))
    least = {
        name: [
            max(step[name][1] / limit["fma"], step[name][2] / limit["read"]["memory"]) / 1e9
            for step, limit in zip(steps, limits, strict=True)
        ]
        for name in names
    }
    spent = {name: [float(step[name][0]) for step in steps] for name in names}
    for times in (spent, least):
        times["all kernels"] = [float(sum(one)) for one in zip(*times.values(), strict=True)]
    for name, seconds in spent.items():
        bound = least[name]
        yield Measurement(
            name, "ms", [1e3 * one for one in seconds], config=run.config, higher=False
        )
        yield Measurement(
            name,
            "x",
            [a / b for a, b in zip(bound, seconds, strict=True)],
            config=run.config,
            to="roofline",
        )
