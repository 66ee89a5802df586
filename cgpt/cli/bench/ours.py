"""cgpt's side of the measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgpt import kernels
from cgpt.checkpoint import load_model_binary
from cgpt.cli.bench.measure import Decoded, decoding, repeated
from cgpt.cli.bench.shapes import NEW, Shape, random_batch, random_prompts
from cgpt.errors import ConfigError
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


def prepare_weights(gpt: GPT, weights: str) -> GPT:
    """The model with its matrices stored so. Raises ConfigError for what cgpt does not have."""
    if weights != "float32":
        raise ConfigError(f"bench: cgpt does not decode with {weights} weights; "
                          "use --weights float32")
    return gpt


def decode(shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float,
           threads: int) -> Callable[[], Decoded]:
    """Task: the public generate, greedy, of a model whose file is mapped as for a chat."""
    kernels.set_num_threads(threads)
    gpt = prepare_weights(load_model_binary(Path(folder) / "model.bin", training=False).gpt,
                          weights)
    prompts = random_prompts(Shape(**shape), batch)
    if batch == 1:
        return decoding(lambda: gpt.generate(prompts[0], max_new_tokens=NEW)[None], seconds)
    return decoding(lambda: gpt.generate(prompts, max_new_tokens=NEW), seconds)


TASKS = {"train": train, "decode": decode}
