"""What a process of cgpt's own measures: whole training steps and the kernels in them, decoding."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import _kernels, kernels
from cgpt.bench.measure import Decoded, decoding, repeated, seconds_of
from cgpt.bench.shapes import NEW, Shape, random_batch, random_prompts
from cgpt.checkpoint.saving import save_model_binary
from cgpt.config import GPTConfig
from cgpt.corpus.files import packaged_data
from cgpt.corpus.reader import read_corpus
from cgpt.llm import LLM, load_model_binary
from cgpt.models.gpt2 import GPT
from cgpt.nn.arena import Role
from cgpt.optim.adamw import AdamW
from cgpt.tokenizers.tokenizer import Tokenizer


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
            arrays = [array for array in (*args, *more.values()) if isinstance(array, np.ndarray)]
            one.size += sum(array.nbytes for array in arrays)
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


def make(shape: dict[str, int], folder: str, weights: str) -> Callable[[], None]:
    """Task: write model.bin, the weights of a random model; its vocabulary is smaller than the
    model's."""
    llm = LLM(Tokenizer.train(["山高水长，天地之间。"] * 4, 300), randomised(shape))
    save_model_binary(llm, Path(folder) / "model.bin", optimizer=False, weights=weights)
    return lambda: None


def make_chat(folder: str, preset: str) -> Callable[[], None]:
    """Task: write chat.bin, an untrained model with a vocabulary learnt from the packaged data."""
    llm = LLM.from_texts(read_corpus(packaged_data()).texts(), GPTConfig.preset(preset))
    save_model_binary(llm, Path(folder) / "chat.bin", optimizer=False)
    return lambda: None


def randomised(shape: dict[str, int]) -> GPT:
    """A model with weights with which a library that mixes any of them up says other tokens.

    Biases and norms move off 0 and 1; the matrices of the blocks grow until the blocks decide
    what comes next, and not the token alone.
    """
    gpt, rng = GPT(Shape(**shape).config(), seed=0), np.random.default_rng(1)
    for _, parameter in gpt.graph.named_parameters():
        if parameter.role is Role.VECTOR:
            parameter.data += 0.02 * rng.standard_normal(parameter.shape, dtype=np.float32)
        elif parameter.role is Role.MATRIX:
            parameter.data *= 4
    return gpt


TASKS: dict[str, Callable[..., Callable[[], Any]]] = {
    "train": train,
    "decode": decode,
    "bits": bits,
    "share": share,
    "roofline": roofline,
    "make": make,
    "make_chat": make_chat,
}
