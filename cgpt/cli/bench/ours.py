"""cgpt's side of the measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cgpt import kernels
from cgpt.checkpoint import load_model_binary
from cgpt.cli.bench.measure import Decoded, decoding, repeated, seconds_of
from cgpt.cli.bench.shapes import NEW, Shape, random_batch, random_prompts
from cgpt.model import GPT
from cgpt.optim import AdamW


def training_step(shape: Shape, recompute: bool = False) -> Callable[[], Any]:
    """One whole step: forward, backward, clip, AdamW; the first call plans the buffers."""
    gpt = GPT(shape.config(), seed=0, recompute=recompute)
    optimizer = AdamW(gpt)
    ids, targets = random_batch(shape)

    def step() -> None:
        gpt.forward(ids, targets)
        gpt.backward()
        optimizer.step(lr=1e-4, clip=1.0)

    return step


def train(shape: dict[str, int], seconds: float, recompute: bool = False) -> Callable[[], float]:
    """Task: tokens a second of whole training steps."""
    form = Shape(**shape)
    measure = repeated(training_step(form, recompute), seconds)
    return lambda: form.tokens / measure()


def decode(shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float,
           threads: int) -> Callable[[], Decoded]:
    """Task: the public generate, greedy, of a model whose file is mapped as for a chat."""
    kernels.set_num_threads(threads)
    gpt = load_model_binary(Path(folder) / "model.bin", training=False).gpt
    prompts = random_prompts(Shape(**shape), batch)
    if batch == 1:
        return decoding(lambda: gpt.generate(prompts[0], max_new_tokens=NEW)[None], seconds)
    return decoding(lambda: gpt.generate(prompts, max_new_tokens=NEW), seconds)


def bits(shape: dict[str, int], counts: list[int], steps: int) -> Callable[[], list[str]]:
    """Task: for each number of threads, a digest of the losses and weights of so many steps."""
    def digest(threads: int) -> str:
        kernels.set_num_threads(threads)
        gpt = GPT(Shape(**shape).config(), seed=0)
        optimizer = AdamW(gpt)
        ids, targets = random_batch(Shape(**shape))
        found = blake2b(digest_size=16)
        for _ in range(steps):
            found.update(float(gpt.forward(ids, targets)).hex().encode())
            gpt.backward()
            optimizer.step(lr=1e-3, clip=1.0)
        found.update(gpt.arena.data.tobytes())
        return found.hexdigest()

    return lambda: [digest(threads) for threads in counts]


class KernelClock:
    """Times every kernel that is called through cgpt.kernels, by replacing its functions there.

    The two looks at the clock and the call of the replacement fall outside the time that is
    counted, so what is left of a step is a little more than Python's own share.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        for name, function in list(vars(kernels).items()):
            if callable(function) and getattr(kernels._generic, name, None) is not None:
                setattr(kernels, name, self._timed(function))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def share(shape: dict[str, int], seconds: float) -> Callable[[], float]:
    """Task: the part of a training step's time that is spent outside the kernels, 0 to 1."""
    clock = KernelClock()
    step = training_step(Shape(**shape))
    step()
    calls = max(1, round(seconds / seconds_of(step)))

    def measure() -> float:
        clock.seconds = 0.0
        total = seconds_of(lambda: [step() for _ in range(calls)])
        return 1 - clock.seconds / total

    return measure


TASKS = {"train": train, "decode": decode, "bits": bits, "share": share}
