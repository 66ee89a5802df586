"""Flat memory: one array for all parameters, and one for each kind of state.

A parameter is a name, a shape and a view into the arena. Because weights, gradients and both
Adam moments are four flat arrays with one table, an AdamW step, a gradient norm, a save and an
all-reduce are one call each, and the weights may be an array that the caller brings along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import ref

import numpy as np

from cgpt.errors import ConfigError
from cgpt.nn.arrays import Floats
from cgpt.validation import expect

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
STEP = ALIGNMENT // 4  # the same in float32 elements


def aligned(size: int, *, zero: bool = False) -> Floats:
    """A float32 array of `size` elements that starts on a 64-byte border."""
    raw = (np.zeros if zero else np.empty)(size + STEP, np.float32)
    start = (-raw.ctypes.data % ALIGNMENT) // 4
    return raw[start : start + size]


def aligned_copy(array: Floats) -> Floats:
    """The same elements (size,) in memory of their own that starts on a 64-byte border."""
    found = aligned(array.size)
    np.copyto(found, array)
    return found


def read_only(array: Floats) -> Floats:
    """A view through which `array` cannot be changed."""
    view = array.view()
    view.flags.writeable = False
    return view


class Role(Enum):
    """What a parameter is in its graph; by it optimizers, adapters and rounding choose theirs."""

    VECTOR = "vector"  # a bias or a norm: does not decay and is never rounded
    MATRIX = "matrix"  # of a layer inside the graph: Muon's and LoRA's
    EMBEDDING = "embedding"  # a row for each token
    POSITION = "position"  # a row for each position; no product reads it
    HEAD = "head"  # makes the logits where the embedding does not

    @property
    def decays(self) -> bool:
        """Whether weight decay applies."""
        return self is not Role.VECTOR

    @property
    def embeds(self) -> bool:
        """Whether the embeddings' learning rate applies."""
        return self in (Role.EMBEDDING, Role.POSITION)


@dataclass(frozen=True)
class Entry:
    """Where one parameter lies: `offset` and `size` count float32 elements of the arena."""

    name: str
    shape: tuple[int, ...]
    offset: int
    size: int
    role: Role
    parts: int


_MARK_COLUMNS = 1024


class Parameter:
    """A learned array: declared with its shape, `data` and `grad` are bound to an arena later.

    std      standard deviation of the initial normal distribution; 0 fills with `fill`
    role     by default that of a matrix, or of a vector where it has one dimension
    parts    matrices that lie below each other in it
    """

    def __init__(
        self,
        *shape: int,
        std: float = 0.0,
        fill: float = 0.0,
        role: Role | None = None,
        parts: int = 1,
    ) -> None:
        self.shape = shape
        self.std = std
        self.fill = fill
        self.role = role or (Role.MATRIX if len(shape) > 1 else Role.VECTOR)
        self.parts = parts
        self.data: Floats
        self.grad: Floats

    def initial(self, rng: np.random.Generator) -> Floats:
        """Fresh values of this parameter's shape."""
        if self.std == 0:
            return np.full(self.shape, self.fill, np.float32)
        values = rng.standard_normal(self.shape, dtype=np.float32)
        values *= np.float32(self.std)
        return values


def layout(parameters: Iterable[tuple[str, Parameter]]) -> list[Entry]:
    """Place every parameter, matrices before vectors, each on a 64-byte border."""
    pairs = list(parameters)
    entries, offset = [], 0
    for decays in (True, False):
        for name, one in pairs:
            if one.role.decays == decays:
                size = math.prod(one.shape)
                entries.append(Entry(name, one.shape, offset, size, one.role, one.parts))
                offset += -(-size // STEP) * STEP
    return entries


def arena_size(entries: list[Entry]) -> int:
    """Elements of an arena with these entries, the last one padded to 64 bytes too."""
    return -(-(entries[-1].offset + entries[-1].size) // STEP) * STEP if entries else 0


class ParameterArena:
    """The four flat arrays of a model; gradients and moments are made when first needed.

    data   (size,) float32 weights, aligned to 64 bytes; may be read-only
    grad   (size,) or None; m, v (size,) or None: Adam's moments
    clean  whether the gradients are known to be zeros
    owner  the optimizer that trains these weights and has the moments, while it lives
    Gaps between entries are zeros in all of them.
    """

    def __init__(self, entries: list[Entry], data: Floats | None = None) -> None:
        self.entries = entries
        self.size = arena_size(entries)
        self.decay_end = next((e.offset for e in entries if not e.role.decays), self.size)
        if data is None:
            data = aligned(self.size, zero=True)
        expect("arena", data, np.ndarray, "a NumPy array")
        if data.dtype != np.float32 or data.shape != (self.size,) or not data.flags.c_contiguous:
            raise ConfigError(
                "arena: weights have dtype {dtype} and shape {shape}, expected contiguous "
                "float32 ({size},)",
                dtype=data.dtype,
                shape=data.shape,
                size=self.size,
            )
        self.data = data
        self.grad: Floats | None = None
        self.clean = True
        self.m: Floats | None = None
        self.v: Floats | None = None
        self.owner: ref[Any] | None = None
        self._by_name = {entry.name: entry for entry in entries}

    def view(self, name: str, array: Floats | None = None) -> Floats:
        """The named parameter's part of `array` (default: the weights), in its own shape."""
        entry = self._by_name[name]
        flat = self.data if array is None else array
        return flat[entry.offset : entry.offset + entry.size].reshape(entry.shape)

    def mark(self) -> bytes:
        """What is another one when the weights are others; b"" where they are read-only.

        The sums of the rows and of the columns of the weights' bits, modulo 2**64: whatever two
        values change places, at least one sum of each kind is another.
        """
        if not self.data.flags.writeable:
            return b""
        words = self.data.view(np.uint64)
        n = len(words) // _MARK_COLUMNS * _MARK_COLUMNS
        table = words[:n].reshape(-1, _MARK_COLUMNS)
        return b"".join(
            (
                table.sum(axis=1, dtype=np.uint64).tobytes(),
                table.sum(axis=0, dtype=np.uint64).tobytes(),
                words[n:].tobytes(),
            )
        )

    def require_writable(self, owner: str = "arena") -> None:
        """Raises ConfigError where the weights are read-only, as chat loads them."""
        if not self.data.flags.writeable:
            raise ConfigError(
                "{owner}: these weights are read-only; load the model with training=True "
                "to change them",
                owner=owner,
            )

    def require_grad(self) -> Floats:
        """The gradients, made of zeros at the first call."""
        if self.grad is None:
            self.require_writable()
            self.grad = aligned(self.size, zero=True)
        return self.grad

    def require_moments(self) -> tuple[Floats, Floats]:
        """Adam's moments (m, v), made of zeros at the first call."""
        if self.m is None or self.v is None:
            self.require_writable()
            self.m, self.v = aligned(self.size, zero=True), aligned(self.size, zero=True)
        return self.m, self.v
