"""Each kernel on its own, on the rows of a training batch, and within a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cgpt import kernels as K
from cgpt.bench import machine, measure
from cgpt.bench.machine import best_set, multiply_adds
from cgpt.bench.measure import Measurement, ratio, repeated
from cgpt.bench.shapes import SHAPES, Shape
from cgpt.bench.table import Settings
from cgpt.bench.train import details_of
from cgpt.bench.workers import CGPT, MACHINE, WorkerPool


def bench_kernels(run: Settings) -> Iterator[Measurement]:
    """Each kernel on the rows of a training batch: milliseconds; products also in GFLOP/s and as
    a share of the multiply-adds that the machine can do, measured in turn."""
    isa, module = best_set(run.threads)

    def peak() -> float:
        return multiply_adds(module, run.threads, machine.PEAK_SECONDS)

    values = [peak() for _ in range(run.repeats)]
    yield Measurement("multiply-add peak", "GFLOP/s", values, "machine", note=isa)
    for label, work, action in kernel_actions(SHAPES[run.config]):
        once = repeated(action, measure.LEAST_SECONDS)
        times, peaks = [], []
        for _ in range(run.repeats):
            times.append(once())
            if work:
                peaks.append(peak())
        values = [1e3 * value for value in times]
        yield Measurement(label, "ms", values, config=run.config, higher=False)
        if work:
            values = [work / value / 1e9 for value in times]
            speed = Measurement(label, "GFLOP/s", values, config=run.config)
            yield speed
            yield ratio(speed, peaks, "multiply-add peak")


def bench_roofline(run: Settings) -> Iterator[Measurement]:
    """Each kernel of a training step: milliseconds, and the least that the machine needs for it
    over that: its multiply-adds at their peak, or each of its arrays through memory once,
    whichever takes longer. What the caches hold can be faster than memory: above 1 then."""
    tasks = {
        "cgpt": ("roofline", details_of(SHAPES[run.config])),
        "machine": machine.peaks_task(run.threads, machine.PEAK_SECONDS),
    }
    with WorkerPool({"cgpt": CGPT, "machine": MACHINE}, run.threads, run.on_skip) as pool:
        found = pool.measure(tasks, run.repeats).values
    steps, limits = found["cgpt"], found["machine"]
    peaks, reads = ([one["fma"] for one in limits], [one["read"]["memory"] for one in limits])
    yield Measurement("multiply-add peak", "GFLOP/s", peaks, "machine")
    yield Measurement("memory read", "GB/s", reads, "machine")
    spent: dict[str, list[float]] = {}
    least: dict[str, list[float]] = {}
    for name in sorted(steps[0], key=lambda name: -float(steps[0][name][0])):
        calls = [step[name] for step in steps]  # (seconds, operations, bytes) of each repeat
        bounds = zip(calls, peaks, reads, strict=True)
        spent[name] = [float(seconds) for seconds, _, _ in calls]
        least[name] = [max(work / fma, size / read) / 1e9 for (_, work, size), fma, read in bounds]
    for times in (spent, least):
        times["all kernels"] = [float(sum(one)) for one in zip(*times.values(), strict=True)]
    for name, seconds in spent.items():
        times_ms = [1e3 * one for one in seconds]
        yield Measurement(name, "ms", times_ms, config=run.config, higher=False)
        bound = [a / b for a, b in zip(least[name], seconds, strict=True)]
        yield Measurement(name, "x", bound, config=run.config, to="roofline")


def kernel_actions(shape: Shape) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """(name, floating-point operations or 0, call) of every kernel worth watching."""
    N, C, F, V, H = shape.B * shape.T, shape.n_embd, shape.n_ff, shape.vocab_size, shape.n_head
    rng = np.random.default_rng(0)

    def array(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes, dtype=np.float32)

    for label, (k, m) in shape.linears.items():
        x, y, weight, bias = array(N, k), array(N, m), array(m, k), array(m)
        dx, dw = array(N, k), array(m, k)
        work = 2.0 * N * k * m
        yield f"linear_forward {label}", work, lambda: K.linear_forward(x, weight, bias, y)  # noqa: B023
        yield (
            f"linear_backward_input {label}",
            work,
            lambda: K.linear_backward_input(y, weight, dx),  # noqa: B023
        )
        yield (
            f"linear_backward_weight {label}",
            work,
            lambda: K.linear_backward_weight(y, x, dw, bias),  # noqa: B023
        )
    qkv, out, lse, dqkv = array(N, 3 * C), array(N, C), array(H, N), array(N, 3 * C)
    offsets = np.arange(0, N + 1, shape.T, dtype=np.int32)
    work = 2.0 * N * shape.T * C
    yield "attention_forward", work, lambda: K.attention_forward(qkv, offsets, H, out, lse)
    yield (
        "attention_backward",
        2.5 * work,
        lambda: K.attention_backward(out, qkv, out, lse, offsets, H, dqkv),
    )
    x, y, weight, bias = array(N, C), array(N, C), array(C), array(C)
    mean, rstd = array(N), array(N)
    yield "layernorm_forward", 0, lambda: K.layernorm_forward(x, weight, bias, y, mean, rstd)
    flat = array(N * F)
    yield "gelu_forward", 0, lambda: K.gelu_forward(flat, flat)
    logits, losses = array(N, V), array(N)
    targets = rng.integers(0, V, N, dtype=np.int32)
    yield "cross_entropy", 0, lambda: K.cross_entropy(logits, targets, losses, 1.0, False)
    size = 1 << 22
    data, grad, mean1, mean2 = (np.zeros(size, np.float32) for _ in range(4))
    yield (
        "adamw 4M",
        0,
        lambda: K.adamw(data, grad, mean1, mean2, 1e-4, 0.9, 0.95, 1e-8, 0.1, 1, 1.0, size),
    )
