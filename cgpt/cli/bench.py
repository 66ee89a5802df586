"""Measurements of this machine: kernels, training, decoding, saving. Medians with their spread.

Each value is a rate or a time of one repeat, after warming up. With a peer, repeats alternate
between the two, since shared machines drift; the peer runs in a process of its own.
Shapes S, M and L are those of benchmarks/README or `cgpt bench --help`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.model import GPT
from cgpt.optim import AdamW

PROMPT, NEW = 16, 100       # tokens of a decoding measurement
LEAST_SECONDS = 0.25        # of one repeat; quick steps are repeated inside it


@dataclass(frozen=True)
class Shape:
    """A model's shape and the batch that it is trained on: B sequences of T tokens."""

    n_layer: int
    n_head: int
    n_embd: int
    n_ff: int
    vocab_size: int
    T: int
    B: int

    def config(self) -> GPTConfig:
        """The model's configuration; its context is T, but long enough to decode in."""
        return GPTConfig(n_layer=self.n_layer, n_head=self.n_head, n_embd=self.n_embd,
                         n_ff=self.n_ff, vocab_size=self.vocab_size,
                         block_size=max(self.T, PROMPT + NEW))


SHAPES = {"S": Shape(2, 8, 256, 1024, 3000, 128, 16),
          "M": Shape(6, 6, 384, 1536, 8192, 256, 8),
          "L": Shape(12, 12, 768, 3072, 50257, 256, 4)}
REPEATS = {"S": 7, "M": 5, "L": 3}


@dataclass
class Measurement:
    """What was measured: values of all repeats; `higher` where more is better.

    ratio  median of this over the median of the peer, turned so that above 1 is better
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    higher: bool = True
    peer: str = ""
    peer_values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Middle value."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; None without one."""
        if not self.peer_values:
            return None
        ratio = self.median / statistics.median(self.peer_values)
        return ratio if self.higher else 1 / ratio

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {
            "name": self.name, "unit": self.unit, "median": self.median,
            "least": min(self.values), "most": max(self.values), "values": self.values}
        if self.peer_values:
            found |= {"peer": self.peer, "peer_median": statistics.median(self.peer_values),
                      "peer_values": self.peer_values, "ratio": self.ratio}
        return found


def seconds_of(action: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def repeated(action: Callable[[], Any]) -> tuple[Callable[[], float], int]:
    """(a function that gives the seconds of one call of `action`, calls in one repeat).

    Warms up first and calls quick actions several times in a repeat.
    """
    action()
    calls = max(1, int(LEAST_SECONDS / max(seconds_of(action), 1e-7)))

    def measure() -> float:
        return seconds_of(lambda: [action() for _ in range(calls)]) / calls

    return measure, calls


def random_batch(shape: Shape, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(ids, targets), (B, T) int32 each."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, shape.vocab_size, (2, shape.B, shape.T), dtype=np.int32)
    return ids[0], ids[1]


def train_rate(shape: Shape) -> Callable[[], float]:
    """Tokens a second of whole training steps: forward, backward, clip, AdamW."""
    gpt = GPT(shape.config(), seed=0)
    optimizer = AdamW(gpt)
    ids, targets = random_batch(shape)

    def step() -> None:
        gpt.forward(ids, targets)
        gpt.backward()
        optimizer.step(lr=1e-4, clip=1.0)

    step()
    measure, _ = repeated(step)
    return lambda: shape.B * shape.T / measure()


def decode_rate(shape: Shape) -> Callable[[], float]:
    """New tokens a second, greedy, batch 1, prompt of 16, 100 new."""
    gpt = GPT(shape.config(), seed=0)
    prompt = np.arange(PROMPT, dtype=np.int32)
    measure, _ = repeated(lambda: gpt.generate(prompt, max_new_tokens=NEW))
    return lambda: NEW / measure()


def bench_train(name: str, repeats: int, peer: Any = None) -> Iterator[Measurement]:
    """Training, beside the peer where there is one."""
    yield alternate(Measurement("train", "tokens/s"), train_rate(SHAPES[name]), repeats, peer)


def bench_decode(name: str, repeats: int, peer: Any = None) -> Iterator[Measurement]:
    """Decoding, beside the peer where there is one."""
    yield alternate(Measurement("decode", "tokens/s"), decode_rate(SHAPES[name]), repeats, peer)


def alternate(found: Measurement, measure: Callable[[], float], repeats: int,
              peer: Any = None) -> Measurement:
    """Fill in the values, ours and the peer's in turn."""
    if peer is not None:
        found.peer = peer.name
        peer.prepare(found.name)
    for _ in range(repeats):
        found.values.append(measure())
        if peer is not None:
            found.peer_values.append(peer.measure())
    return found


def bench_kernels(name: str, repeats: int, peer: Any = None) -> Iterator[Measurement]:
    """Each kernel on the rows of a training batch: milliseconds, products also in GFLOP/s."""
    for label, work, action in kernel_actions(SHAPES[name]):
        measure, _ = repeated(action)
        times = [measure() for _ in range(repeats)]
        yield Measurement(label, "ms", [1e3 * value for value in times], higher=False)
        if work:
            yield Measurement(label, "GFLOP/s", [work / value / 1e9 for value in times])


def kernel_actions(shape: Shape) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """(name, floating-point operations or 0, call) of every kernel worth watching."""
    N, C, F, V, H = shape.B * shape.T, shape.n_embd, shape.n_ff, shape.vocab_size, shape.n_head
    rng = np.random.default_rng(0)

    def array(*sizes: int) -> np.ndarray:
        return rng.standard_normal(sizes, dtype=np.float32)

    for label, k, m in (("qkv", C, 3 * C), ("proj", C, C), ("fc", C, F), ("head", C, V)):
        x, weight, bias, y, dx, dw = (array(N, k), array(m, k), array(m), array(N, m),
                                      array(N, k), array(m, k))
        work = 2.0 * N * k * m
        yield f"linear_forward {label}", work, lambda: K.linear_forward(x, weight, bias, y)  # noqa: B023
        yield (f"linear_backward_input {label}", work,
               lambda: K.linear_backward_input(y, weight, dx))  # noqa: B023
        yield (f"linear_backward_weight {label}", work,
               lambda: K.linear_backward_weight(y, x, dw, bias))  # noqa: B023
    qkv, out, lse, dqkv = array(N, 3 * C), array(N, C), array(H, N), array(N, 3 * C)
    offsets = np.arange(0, N + 1, shape.T, dtype=np.int32)
    work = 2.0 * N * shape.T * C
    yield "attention_forward", work, lambda: K.attention_forward(qkv, offsets, H, out, lse)
    yield ("attention_backward", 2.5 * work,
           lambda: K.attention_backward(out, qkv, out, lse, offsets, H, dqkv))
    x, y, weight, bias, mean, rstd = (array(N, C), array(N, C), array(C), array(C), array(N),
                                      array(N))
    yield "layernorm_forward", 0, lambda: K.layernorm_forward(x, weight, bias, y, mean, rstd)
    flat = array(N * F)
    yield "gelu_forward", 0, lambda: K.gelu_forward(flat, flat)
    logits, losses = array(N, V), array(N)
    targets = rng.integers(0, V, N, dtype=np.int32)
    yield "cross_entropy", 0, lambda: K.cross_entropy(logits, targets, losses, 1.0, False)
    size = 1 << 22
    data, grad, m, v = (np.zeros(size, np.float32) for _ in range(4))
    yield ("adamw 4M", 0,
           lambda: K.adamw(data, grad, m, v, 1e-4, 0.9, 0.95, 1e-8, 0.1, 1, 1.0, size))


def bench_save(name: str, repeats: int, peer: Any = None) -> Iterator[Measurement]:
    """Saving with optimizer state against writing the same bytes with fsync; loading."""
    from cgpt.checkpoint import load_model_binary, save_model_binary
    from cgpt.llm import LLM
    from cgpt.tokenizer import Tokenizer

    gpt = GPT(SHAPES[name].config(), seed=0)
    llm = LLM(Tokenizer.train(["山高水长，天地之间。"] * 4, 300), gpt, AdamW(gpt))
    folder = os.environ.get("CGPT_BENCH_DIR") or tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path, other = Path(place) / "model.bin", Path(place) / "plain"
        save_model_binary(llm, path)
        content = path.read_bytes()

        def plain() -> None:
            with open(other, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

        plain()
        saves = Measurement("save", "s", higher=False, peer="plain write + fsync")
        for _ in range(repeats):
            saves.peer_values.append(seconds_of(plain))
            saves.values.append(seconds_of(lambda: save_model_binary(llm, path)))
        yield saves
        for label, training in (("load for chat", False), ("load for training", True)):
            values = [seconds_of(lambda: load_model_binary(path, training=training))  # noqa: B023
                      for _ in range(repeats + 1)][1:]
            yield Measurement(label, "s", values, higher=False)
        yield Measurement("bytes a parameter", "B", [len(content) / gpt.n_parameters],
                          higher=False)


BENCHES: dict[str, Callable[..., Iterator[Measurement]]] = {
    "kernels": bench_kernels, "train": bench_train, "decode": bench_decode, "save": bench_save}
