"""cgpt's side of the measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cgpt.cli.bench.measure import repeated
from cgpt.cli.bench.shapes import NEW, PROMPT, Shape, random_batch
from cgpt.model import GPT
from cgpt.optim import AdamW


def training_step(shape: Shape) -> Callable[[], Any]:
    """One whole step: forward, backward, clip, AdamW; the first call plans the buffers."""
    gpt = GPT(shape.config(), seed=0)
    optimizer = AdamW(gpt)
    ids, targets = random_batch(shape)

    def step() -> None:
        gpt.forward(ids, targets)
        gpt.backward()
        optimizer.step(lr=1e-4, clip=1.0)

    return step


def train(shape: dict[str, int], seconds: float) -> Callable[[], float]:
    """Task: tokens a second of whole training steps."""
    form = Shape(**shape)
    measure = repeated(training_step(form), seconds)
    return lambda: form.tokens / measure()


def decode(shape: dict[str, int], seconds: float) -> Callable[[], float]:
    """Task: new tokens a second, greedy, batch 1."""
    gpt = GPT(Shape(**shape).config(), seed=0)
    prompt = np.arange(PROMPT, dtype=np.int32)
    measure = repeated(lambda: gpt.generate(prompt, max_new_tokens=NEW), seconds)
    return lambda: NEW / measure()


TASKS = {"train": train, "decode": decode}
