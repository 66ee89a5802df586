"""NumPy's BLAS on the products of linear layers, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.peers.products import operands
from cgpt.bench.measure import repeated


def product(
    name: str, rows: int, depth: int, columns: int, seconds: float, parts: int = 1
) -> Callable[[], float]:
    """Task: GFLOP/s of NumPy's BLAS on one product of a linear layer, as `parts` slices at once.

    dW is written where cgpt and PyTorch add to it: NumPy has no product that adds.
    """
    x, weight, y = operands(rows, depth, columns)
    left, right, out = {
        "forward": (x, weight.T, y),
        "backward_input": (y, weight, x),
        "backward_weight": (y.T, x, weight),
    }[name]
    size = -(-len(out) // parts)
    slices = [slice(start, start + size) for start in range(0, len(out), size)]
    pool = ThreadPoolExecutor(parts)

    def multiply(part: slice) -> None:
        np.matmul(left[part], right, out=out[part])

    measure = repeated(
        lambda: list(pool.map(multiply, slices)) if parts > 1 else multiply(slices[0]), seconds
    )
    return lambda: 2e-9 * rows * depth * columns / measure()


TASKS = {"product": product}
