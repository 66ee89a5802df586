"""Training steps: of one shape, of grids of shapes, with one thread and several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from cgpt.bench import machine, measure
from cgpt.bench.measure import Measurement, Skip, ratio
from cgpt.bench.shapes import SHAPES, Shape
from cgpt.bench.table import Settings
from cgpt.bench.workers import CGPT, MACHINE, ONE_THREAD, Rounds, Side, WorkerPool
from cgpt.errors import ConfigError

HEAD = 64  # width of an attention head
MOST_FLOPS = 3e12  # of a step: what takes longer than about half a minute is left out
LOGITS = 4  # copies of the logits that a side may hold at once
THREAD_COUNTS = (1, 2, 3, 4)  # that must give the same bits
STEPS = 3


def bench_train(run: Settings) -> Iterator[Measurement]:
    """Tokens a second, peak memory, GFLOP/s, and these over the machine's multiply-adds."""
    shape, sides = SHAPES[run.config], {"cgpt": CGPT, **run.peers, "machine": MACHINE}
    N, C, F = shape.tokens, shape.n_embd, shape.n_ff
    tasks: dict[str, Any] = dict.fromkeys(sides, ("train", details_of(shape)))
    tasks["cgpt"] = ("train", details_of(shape) | {"recompute": run.recompute})
    products = [[N, C, 3 * C], [N, C, F], [N, F, C]]
    tasks["machine"] = machine.peaks_task(run.threads, measure.LEAST_SECONDS, products)
    with WorkerPool(sides, run.threads, run.on_skip) as pool:
        found = pool.measure(tasks, run.repeats)
    peaks = found.values.pop("machine")
    for side, values in found.values.items():
        yield Measurement("train", "tokens/s", values, side, run.config)
    yield from memories(found, run.config)
    yield from speeds(found, shape, peaks, run.config)


def details_of(shape: Shape) -> dict[str, Any]:
    """What a side is told of the task `train`, `share` or `roofline`."""
    return {"shape": vars(shape), "seconds": measure.LEAST_SECONDS}


def memories(found: Rounds, config: str) -> Iterator[Measurement]:
    """Peak and resident memory of every process."""
    for kind in ("peak", "resident"):
        for side, memory in found.memory.items():
            if side != "machine":
                yield Measurement(f"{kind} memory", "MB", [memory[kind] / 1e6], side, config, False)


def speeds(
    found: Rounds, shape: Shape, peaks: list[dict[str, Any]], config: str
) -> Iterator[Measurement]:
    """GFLOP/s of every side and its share of the multiply-adds that the machine can do."""
    limits = {kind: [one[kind] for one in peaks] for kind in ("fma", "sgemm")}
    isa = peaks[0]["isa"]
    yield Measurement("multiply-add peak", "GFLOP/s", limits["fma"], "machine", note=isa)
    yield Measurement("sgemm", "GFLOP/s", limits["sgemm"], "machine", config, note="NumPy")
    yield Measurement("memory read", "GB/s", [one["read"]["memory"] for one in peaks], "machine")
    for side, rates in found.values.items():
        values = [shape.token_flops * rate / 1e9 for rate in rates]
        speed = Measurement("train", "GFLOP/s", values, side, config)
        yield speed
        yield ratio(speed, limits["fma"], "multiply-add peak")


def bench_small(run: Settings) -> Iterator[Measurement]:
    """Small steps: width 256 and 512, 2 and 4 layers, vocabulary 10,000, B 1-4, T 16-64."""
    sizes = (
        (C, L, B, T) for C in (256, 512) for L in (2, 4) for B in (1, 2, 4) for T in (16, 32, 64)
    )
    yield from bench_grid((grid_shape(C, L, 10_000, B, T) for C, L, B, T in sizes), run)


def bench_sweep(run: Settings) -> Iterator[Measurement]:
    """T 16 to 1024, B 1 to 32: 4 layers, width 256, vocabulary 8192."""
    sizes = ((B, T) for T in (16, 64, 256, 1024) for B in (1, 8, 32))
    yield from bench_grid((grid_shape(256, 4, 8192, B, T) for B, T in sizes), run)


def grid_shape(width: int, layers: int, vocab_size: int, B: int, T: int) -> Shape:
    """A GPT of this width with four times the width in its MLP."""
    return Shape(layers, width // HEAD, width, 4 * width, vocab_size, T, B)


def bench_grid(shapes: Iterable[Shape], run: Settings) -> Iterator[Measurement]:
    """Tokens a second at every shape, all sides in turn."""
    with WorkerPool({"cgpt": CGPT, **run.peers}, run.threads, run.on_skip) as pool:
        for shape in shapes:
            name = f"C{shape.n_embd} L{shape.n_layer} B{shape.B} T{shape.T}"
            try:
                require_room(shape)
            except Skip as reason:
                run.on_skip(name, reason)
                continue
            tasks = dict.fromkeys(pool.sides, ("train", details_of(shape)))
            for side, values in pool.measure(tasks, run.repeats).values.items():
                yield Measurement(name, "tokens/s", values, side)


def require_room(shape: Shape) -> None:
    """Raises Skip for a step that would take too long or too much memory."""
    flops = shape.tokens * shape.token_flops
    if flops > MOST_FLOPS:
        raise Skip("a step of {size:.1f} TFLOP takes too long", size=flops / 1e12)
    needed = LOGITS * 4.0 * shape.tokens * shape.vocab_size
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free / 2:
            raise Skip(
                "a step may need {needed:.1f} GB, of which {free:.1f} are free",
                needed=needed / 1e9,
                free=free / 1e9,
            )


def bench_threads(run: Settings) -> Iterator[Measurement]:
    """All threads against one, in turn: tokens a second of whole training steps."""
    if run.threads < 2:
        raise ConfigError("bench: threads compares several threads with one; use --threads 2")
    sides = {"all": CGPT, "one": Side(CGPT.module, environment=ONE_THREAD)}
    tasks = dict.fromkeys(sides, ("train", details_of(SHAPES[run.config])))
    with WorkerPool(sides, run.threads, run.on_skip) as pool:
        rates = pool.measure(tasks, run.repeats).values
    name = f"train, {run.threads} threads"
    every = Measurement(name, "tokens/s", rates["all"], config=run.config)
    one = Measurement("train, 1 thread", "tokens/s", rates["one"], config=run.config)
    yield from (every, one, ratio(every, one.values, "1 thread"))


def bench_bits(run: Settings) -> Iterator[Measurement]:
    """Whether losses and weights after three steps are the same with 1, 2, 3 and 4 threads."""
    details = {"shape": vars(SHAPES[run.config]), "counts": THREAD_COUNTS, "steps": STEPS}
    (digests,) = cgpt_alone("bits", details, run, 1)
    name = f"same bits with {', '.join(map(str, THREAD_COUNTS))} threads"
    yield Measurement(name, "yes", [float(len(set(digests)) == 1)], config=run.config)


def bench_share(run: Settings) -> Iterator[Measurement]:
    """The share of a training step that is spent outside the kernels, in per cent."""
    shares = cgpt_alone("share", details_of(SHAPES[run.config]), run, run.repeats)
    values = [100 * share for share in shares]
    yield Measurement("Python's share of a step", "%", values, config=run.config, higher=False)


def cgpt_alone(task: str, details: dict[str, Any], run: Settings, repeats: int) -> list[Any]:
    """What a task of cgpt measures, nothing beside it."""
    with WorkerPool({"cgpt": CGPT}, run.threads, run.on_skip) as pool:
        return pool.measure({"cgpt": (task, details)}, repeats).values["cgpt"]
