"""cgpt's side of the measurements."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cgpt import kernels
from cgpt.bench.clock import Calls, KernelClock
from cgpt.bench.measure import Decoded, decoding, repeated, seconds_of
from cgpt.bench.shapes import NEW, Shape, operands, random_batch, random_prompts
from cgpt.checkpoint import load_model_binary
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW


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


def decode(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: the public generate, greedy, of a model that is loaded as for a chat."""
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


def share(shape: dict[str, int], seconds: float) -> Callable[[], float]:
    """Task: the part of a training step's time that is spent outside the kernels, 0 to 1."""
    measure = clocked(Shape(**shape), seconds)

    def outside() -> float:
        total, calls = measure()
        return 1 - sum(one.seconds for one in calls.values()) / total

    return outside


def roofline(shape: dict[str, int], seconds: float) -> Callable[[], dict[str, list[float]]]:
    """Task: of each kernel of a training step its seconds, floating-point operations and bytes."""
    measure = clocked(Shape(**shape), seconds)
    return lambda: {name: list(vars(one).values()) for name, one in measure()[1].items()}


def clocked(shape: Shape, seconds: float) -> Callable[[], tuple[float, dict[str, Calls]]]:
    """A function that gives the seconds of a training step, and what each kernel did in it."""
    clock = KernelClock()
    step = training_step(shape)
    step()
    steps = max(1, round(seconds / seconds_of(step)))

    def measure() -> tuple[float, dict[str, Calls]]:
        clock.take()
        total = seconds_of(lambda: [step() for _ in range(steps)])
        return total / steps, {name: one / steps for name, one in clock.take().items()}

    return measure


def product(name: str, rows: int, depth: int, columns: int, seconds: float) -> Callable[[], float]:
    """Task: GFLOP/s of one product of a linear layer (rows, depth) -> (rows, columns)."""
    x, weight, y = operands(rows, depth, columns)
    actions: dict[str, Callable[[], Any]] = {
        "forward": lambda: kernels.linear_forward(x, weight, None, y),
        "backward_input": lambda: kernels.linear_backward_input(y, weight, x),
        "backward_weight": lambda: kernels.linear_backward_weight(y, x, weight, None),
    }
    measure = repeated(actions[name], seconds)
    return lambda: 2e-9 * rows * depth * columns / measure()


TASKS = {
    "train": train,
    "decode": decode,
    "bits": bits,
    "share": share,
    "roofline": roofline,
    "product": product,
}
