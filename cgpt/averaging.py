"""The moving average of the weights that training may keep beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cgpt import kernels as K
from cgpt.arena import Floats
from cgpt.optim import AdamW


def update_average(average: Floats, optimizer: AdamW, decay: float) -> None:
    """average := d average + (1 - d) weights, after every optimizer step.

    d is the decay, but at first (1 + steps) / (10 + steps), so that the weights that training
    began with do not weigh longer than they should.
    Source: the ramp is that of TensorFlow's ExponentialMovingAverage (num_updates).
    """
    steps = optimizer.step_count
    kept = min(decay, (1 + steps) / (10 + steps))
    K.descend(average, optimizer.arena.data, kept - 1, kept)


@contextmanager
def averaged(average: Floats | None, optimizer: AdamW) -> Iterator[Floats]:
    """The model computes with the averaged weights meanwhile, where there are any."""
    data = optimizer.arena.data
    if average is None:
        yield data
        return
    live = data.copy()
    replace_weights(optimizer, average)
    try:
        yield data
    finally:
        replace_weights(optimizer, live)


def replace_weights(optimizer: AdamW, weights: Floats) -> None:
    """Let what the optimizer trains have these weights."""
    np.copyto(optimizer.arena.data, weights)
    optimizer.restored()
