"""Each kernel on its own, on the rows of a training batch."""

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


def bench_kernels(run: Settings) -> Iterator[Measurement]:
    """Each kernel on the rows of a training batch: milliseconds; products also in GFLOP/s and as
    a share of the multiply-adds that the machine can do, measured in turn."""
    isa, module = best_set(run.threads)
    yield Measurement(
        "multiply-add peak",
        "GFLOP/s",
        [multiply_adds(module, run.threads, machine.PEAK_SECONDS) for _ in range(run.repeats)],
        "machine",
        note=isa,
    )
    for label, work, action in kernel_actions(SHAPES[run.config]):
        once = repeated(action, measure.LEAST_SECONDS)
        times, peaks = [], []
        for _ in range(run.repeats):
            times.append(once())
            if work:
                peaks.append(multiply_adds(module, run.threads, machine.PEAK_SECONDS))
        yield Measurement(
            label, "ms", [1e3 * value for value in times], config=run.config, higher=False
        )
        if work:
            speed = Measurement(
                label, "GFLOP/s", [work / value / 1e9 for value in times], config=run.config
            )
            yield speed
            yield ratio(speed, peaks, "multiply-add peak")


def kernel_actions(shape: Shape) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """(name, floating-point operations or 0, call) of every kernel worth watching."""
    N, C, F, V, H = shape.B * shape.T, shape.n_embd, shape.n_ff, shape.vocab_size, shape.n_head
    rng = np.random.default_rng(0)

    def array(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes, dtype=np.float32)

    for label, (k, m) in shape.linears.items():
        x, weight, bias, y, dx, dw = (
            array(N, k),
            array(m, k),
            array(m),
            array(N, m),
            array(N, k),
            array(m, k),
        )
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
    x, y, weight, bias, mean, rstd = (
        array(N, C),
        array(N, C),
        array(C),
        array(C),
        array(N),
        array(N),
    )
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
