"""Graph: the layers of a family, declared once; names, places, records and plans follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cgpt.config import GPTConfig
from cgpt.nn.arena import Entry, Parameter, layout
from cgpt.nn.decode_operations import DecodeOperation
from cgpt.nn.decoder import DecodePlan, decode_plan
from cgpt.nn.embedding import InputLayer
from cgpt.nn.graph import Tape, Value
from cgpt.nn.heads import Head
from cgpt.nn.layer import Layer, operations_of


@dataclass(frozen=True)
class LayerRecord:
    """A layer as checkpoints list it: its name, its kind and its parameters' names."""

    name: str
    type: str
    parameters: tuple[str, ...]


class Block(Layer):
    """Layers in a row, declared as attributes: the residual branches of a transformer block."""

    def decode_operations(self) -> list[DecodeOperation] | None:
        return operations_of(layer for _, layer in self.children())

    def trace(self, tape: Tape, x: Value) -> Value:
        for _, layer in self.children():
            x = layer.trace(tape, x)
        return x


class Graph:
    """What a family is: a subclass makes these layers for a configuration in `__init__`.

    ln_f  the norm before the head, where there is one
    The layers have parameters without memory until a model gives them some.
    """

    embedding: InputLayer
    blocks: Sequence[Block]
    ln_f: Layer | None = None
    head: Head

    def __init__(self, config: GPTConfig) -> None:
        raise NotImplementedError

    def layers(self) -> list[tuple[str, Layer]]:
        """The layers in order, with the names that begin those of their parameters."""
        blocks = list(zip(self.block_names(), self.blocks, strict=True))
        norms = [] if self.ln_f is None else [("ln_f", self.ln_f)]
        return [("embedding", self.embedding), *blocks, *norms, ("head", self.head)]

    def block_names(self) -> list[str]:
        """Names of the blocks, in order: their parameters begin with them."""
        return [f"h.{i}" for i in range(len(self.blocks))]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its name, in order of declaration."""
        for name, layer in self.layers():
            yield from layer.named_parameters(name)

    def layout(self) -> list[Entry]:
        """Name, shape and place of every parameter in a flat array."""
        return layout(self.named_parameters())

    def layer_records(self) -> list[LayerRecord]:
        """The layers in order, as checkpoints and `cgpt info` list them."""
        return [
            LayerRecord(name, layer.kind, tuple(n for n, _ in layer.named_parameters(name)))
            for name, layer in self.layers()
        ]

    def decode_plan(self) -> DecodePlan | None:
        """The graph for the fused decoder; None where that does not know it."""
        names = {parameter: name for name, parameter in self.named_parameters()}
        return decode_plan([layer for _, layer in self.layers()], names)
