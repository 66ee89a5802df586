"""What layers say of themselves to the fused decoder: its plan is made of these."""

from __future__ import annotations

from dataclasses import dataclass

from cgpt.nn.arena import Parameter


@dataclass(frozen=True)
class Embed:
    """table[id] + positions[position]."""

    table: Parameter
    positions: Parameter


@dataclass(frozen=True)
class Normalize:
    """(x - mean) / sqrt(variance + eps) * weight + bias."""

    weight: Parameter
    bias: Parameter
    eps: float


@dataclass(frozen=True)
class Multiply:
    """x W^T + bias."""

    weight: Parameter
    bias: Parameter | None


@dataclass(frozen=True)
class Activate:
    """A function of each element, by the kernel's name of it."""

    function: str


@dataclass(frozen=True)
class Attend:
    """Attention over a layer of the cache, of queries, keys and values beside each other."""

    layer: int
    n_head: int
    width: int  # of what it gives


@dataclass(frozen=True)
class StartBranch:
    """What follows, up to AddToStream, leaves the stream as it is."""


@dataclass(frozen=True)
class AddToStream:
    """The branch ends: what it gives is added to the stream, which the next branch reads."""


DecodeOperation = Embed | Normalize | Multiply | Activate | Attend | StartBranch | AddToStream
