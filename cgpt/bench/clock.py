"""What each kernel does while a model is trained: time, operations, bytes of its arrays."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgpt import _kernels, kernels


@dataclass
class Calls:
    """Some calls of one kernel: seconds, floating-point operations, bytes of their arrays."""

    seconds: float = 0.0
    work: float = 0.0
    size: float = 0.0

    def __truediv__(self, number: float) -> Calls:
        return Calls(self.seconds / number, self.work / number, self.size / number)


class KernelClock:
    """Times every kernel that is called through cgpt.kernels, by replacing its functions there.

    The two looks at the clock and the call of the replacement fall outside the time that is
    counted, so what is left of a step is a little more than Python's own share. What a call did
    is found later, from its arguments.
    """

    def __init__(self) -> None:
        self._log: list[tuple[str, float, tuple[Any, ...], dict[str, Any]]] = []
        for name, function in list(vars(kernels).items()):
            if callable(function) and hasattr(_kernels, name):
                setattr(kernels, name, self._timed(name, function))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                self._log.append((name, time.perf_counter() - start, args, more))

        return timed

    def take(self) -> dict[str, Calls]:
        """What each kernel did since the last time."""
        found: dict[str, Calls] = defaultdict(Calls)
        for name, seconds, args, more in self._log:
            one = found[name]
            one.seconds += seconds
            one.work += operations(name, args)
            one.size += sum(
                array.nbytes for array in (*args, *more.values()) if isinstance(array, np.ndarray)
            )
        self._log.clear()
        return found


def operations(name: str, args: tuple[Any, ...]) -> float:
    """Floating-point operations of the products of a call; 0 for a kernel without any.

    Attention multiplies each query with the keys up to its own, and weighs as many values: two
    products, five in the backward pass.
    """
    if name.startswith("linear_"):
        first, second = args[0].shape, args[1].shape
        return float(2 * first[0] * first[1] * second[0 if name == "linear_forward" else 1])
    if name in ("attention_forward", "attention_backward"):
        at = 1 if name == "attention_forward" else 4
        lengths = np.diff(args[at]).astype(float)
        width = args[at - 1].shape[1] / 3 if at == 1 else args[0].shape[1]
        return float((2 if at == 1 else 5) * width * (lengths * (lengths + 1)).sum())
    return 0.0
