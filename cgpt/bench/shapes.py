"""The shapes that are measured, their sizes and their floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cgpt.config import GPTConfig

PROMPT, NEW = 16, 100  # tokens of a decoding measurement


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
        return GPTConfig(
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            n_ff=self.n_ff,
            vocab_size=self.vocab_size,
            block_size=max(self.T, PROMPT + NEW),
        )

    @property
    def tokens(self) -> int:
        """Tokens of a training step."""
        return self.B * self.T

    @property
    def matmul_parameters(self) -> int:
        """Elements of all matrices that rows are multiplied with: the blocks' and the head."""
        sizes = {name: depth * columns for name, (depth, columns) in self.linears.items()}
        head = sizes.pop("head")
        return self.n_layer * sum(sizes.values()) + head

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(depth, columns) of the model's linear layers by name."""
        C = self.n_embd
        return {
            "qkv": (C, 3 * C),
            "proj": (C, C),
            "fc": (C, self.n_ff),
            "out": (self.n_ff, C),
            "head": (C, self.vocab_size),
        }

    @property
    def token_flops(self) -> float:
        """Floating-point operations of a training step a token: six for every matrix element,
        and attention over all T keys as if nothing were masked.

        Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
        """
        return 6.0 * self.matmul_parameters + 12.0 * self.n_layer * self.n_embd * self.T


SHAPES = {
    "S": Shape(2, 8, 256, 1024, 3000, 128, 16),
    "M": Shape(6, 6, 384, 1536, 8192, 256, 8),
    "L": Shape(12, 12, 768, 3072, 50257, 256, 4),
    "L64": Shape(12, 12, 768, 3072, 50257, 64, 4),
}
REPEATS = {"S": 7, "M": 5, "L": 3, "L64": 3}


def random_batch(shape: Shape, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(ids, targets), (B, T) int32 each."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, shape.vocab_size, (2, shape.B, shape.T), dtype=np.int32)
    return ids[0], ids[1]


def random_prompts(shape: Shape, batch: int) -> np.ndarray:
    """Prompts (batch, PROMPT) int32, unlike each other."""
    rng = np.random.default_rng(2)
    return rng.integers(0, shape.vocab_size, (batch, PROMPT), dtype=np.int32)
