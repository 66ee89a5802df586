"""Training beside peers, in turn, with what the machine can do measured between the repeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cgpt.bench import machine, measure
from cgpt.bench.measure import Measurement, best, ratio
from cgpt.bench.shapes import SHAPES, Shape
from cgpt.bench.table import TORCH, Settings
from cgpt.bench.workers import Crew, Rounds

MEGABYTE = 1e6


def bench_train(run: Settings) -> Iterator[Measurement]:
    """Tokens a second, peak memory, GFLOP/s; ratios to the peers and to the machine's peaks."""
    shape = SHAPES[run.config]
    details = {"shape": vars(shape), "seconds": measure.LEAST_SECONDS}
    tasks: dict[str, tuple[str, dict[str, Any]]] = dict.fromkeys(
        ("cgpt", *run.peers), ("train", details)
    )
    tasks["cgpt"] = ("train", {**details, "recompute": run.recompute})
    tasks["machine"] = ("peaks", peak_details(shape, run.threads))
    with Crew(tasks, run.threads, run.tell) as crew:
        found = crew.measure(tasks, run.repeats)
    peaks = found.values.pop("machine")
    yield from compared(found, "train", "tokens/s", run.config)
    yield from memories(found, run.config)
    yield from speeds(found, shape, peaks, run.config)


def peak_details(shape: Shape, threads: int) -> dict[str, Any]:
    """What the machine's side is told: how many threads, which products of the model."""
    N, C, F = shape.tokens, shape.n_embd, shape.n_ff
    return {
        "threads": threads,
        "seconds": measure.LEAST_SECONDS,
        "products": [[N, C, 3 * C], [N, C, F], [N, F, C]],
        "reads": {"memory": machine.READ},
    }


def compared(
    found: Rounds,
    name: str,
    unit: str,
    config: str,
    group: Iterable[str] = TORCH,
    label: str = "best torch",
) -> Iterator[Measurement]:
    """The rate of every side, and cgpt's over each peer's and over the best of a group's."""
    rates = {
        side: Measurement(name, unit, values, side, config) for side, values in found.values.items()
    }
    yield from rates.values()
    for side, rate in rates.items():
        if side != "cgpt":
            yield ratio(rates["cgpt"], rate.values, side)
    fastest = best(found.values, group)
    if fastest:
        over = ratio(rates["cgpt"], rates[fastest].values, label)
        over.note = fastest
        yield over


def memories(found: Rounds, config: str) -> Iterator[Measurement]:
    """Peak and resident memory of every process; cgpt's peak over each peer's."""
    for kind, label in (("peak", "peak memory"), ("resident", "resident memory")):
        sizes = {
            side: Measurement(label, "MB", [memory[kind] / MEGABYTE], side, config, False)
            for side, memory in found.memory.items()
            if side != "machine"
        }
        yield from sizes.values()
        if kind == "peak":
            yield from (
                ratio(sizes["cgpt"], size.values, side)
                for side, size in sizes.items()
                if side != "cgpt"
            )


def speeds(
    found: Rounds, shape: Shape, peaks: list[dict[str, Any]], config: str
) -> Iterator[Measurement]:
    """GFLOP/s of every side and its share of the multiply-adds that the machine can do."""
    isa = peaks[0]["isa"]
    limits = {kind: [one[kind] for one in peaks] for kind in ("fma", "sgemm")}
    yield Measurement("multiply-add peak", "GFLOP/s", limits["fma"], "machine", note=isa)
    yield Measurement("sgemm", "GFLOP/s", limits["sgemm"], "machine", config, note="NumPy")
    yield Measurement("memory read", "GB/s", [one["read"]["memory"] for one in peaks], "machine")
    for side, values in found.values.items():
        speed = Measurement(
            "train", "GFLOP/s", [shape.token_flops * value / 1e9 for value in values], side, config
        )
        yield speed
        yield ratio(speed, limits["fma"], "multiply-add peak")
