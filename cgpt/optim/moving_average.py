"""The moving average of the weights that training may keep beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cgpt import kernels as K
from cgpt.nn.arrays import Floats
from cgpt.optim.adamw import AdamW
from cgpt.runtime.interrupts import Operation, uninterrupted

Result = TypeVar("Result")


def averaging(average: Floats, optimizer: AdamW, decay: float) -> Operation:
    """average := d average + (1 - d) weights: follows the operations of an optimizer step.

    d is the decay, but at first (1 + steps) / (10 + steps), so that the weights that training
    began with do not weigh longer than they should.
    Source: the ramp is that of TensorFlow's ExponentialMovingAverage (num_updates).
    """
    steps = optimizer.step_count + 1
    kept = min(decay, (1 + steps) / (10 + steps))
    return partial(K.axpby, average, optimizer.arena.data, kept - 1, kept)


def with_average(average: Floats | None, optimizer: AdamW, compute: Callable[[], Result]) -> Result:
    """compute(), for which the model has the averaged weights, where there are any.

    The weights are put back whatever exception comes from anywhere, hence the second `finally`: it
    is for one that comes in the first.
    """
    if average is None:
        return compute()
    live: Floats | None = None
    back: list[bool] = []
    try:
        live = optimizer.arena.data.copy()
        uninterrupted(optimizer.replacing(average))
        return compute()
    finally:
        try:
            if live is not None:
                uninterrupted([*optimizer.replacing(live), partial(back.append, True)])
        finally:
            if live is not None and not back:
                uninterrupted(optimizer.replacing(live))
