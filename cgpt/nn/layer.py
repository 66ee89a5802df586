"""Layer: what every layer is; each kind has a file of its own (linear.py, norms.py ...).

A layer declares parameters and sub-layers in `__init__` and keeps nothing of a pass: `forward` and
`backward` write into arrays that they are handed, which a plan has placed (planning.py). N is the
number of rows (tokens of all documents of a batch), C the width. Gradients of activations are
overwritten, those of parameters are added to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cgpt.nn.arena import Parameter
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decode_operations import DecodeOperation
from cgpt.nn.graph import Operation, Tape, Value
from cgpt.nn.kv_cache import CacheView


@dataclass(frozen=True)
class GradientTargets:
    """Which gradients a backward pass makes: at first those of all parameters.

    frozen    parameters whose gradients are left out
    adapters  by the weight of a Linear: called as adapter(dy, x) in place of its gradient
    """

    frozen: frozenset[Parameter] = frozenset()
    adapters: Mapping[Parameter, Callable[[Floats, Floats], object]] = field(default_factory=dict)

    def wants(self, *parameters: Parameter | None) -> bool:
        """Whether the gradient of any of them is made."""
        return any(one is not None and one not in self.frozen for one in parameters)


@dataclass(frozen=True)
class Step:
    """What all layers of one pass share.

    ids        (N,) int32 tokens
    offsets    (D + 1,) int32 borders of the documents in the N rows
    positions  (N,) int32 position of each row in its document
    rows       (R,) int32, rising: the rows that the result has; others are left out where no row
               needs them
    dropout    probability of a zero; `key` names the masks of this step
    cache      keys and values to attend to and to extend, instead of documents
    """

    ids: Ints
    offsets: Ints
    positions: Ints
    rows: Ints
    dropout: float = 0.0
    key: int = 0
    cache: CacheView | None = None
    gradients: GradientTargets = GradientTargets()


class Layer:
    """What every layer has: parameters and sub-layers by attribute, and its part in both passes.

    forward(step, x, y, *statistics)                writes y and what else backward wants to read
    backward(step, dy, [x], [y], *statistics, dx)   writes dx, adds to the parameters' gradients
    A layer that others make up has `trace` alone.
    """

    kind: str  # what files call a layer of a graph; a name of the format, never changed
    backward_reads: tuple[str, ...] = ()  # of "x" and "y"
    statistics: tuple[int, ...] = ()  # widths of what forward writes besides y
    mixes_rows = False  # whether a row of y depends on other rows of x
    passes_gradient = False  # whether the gradient of every input is dy: there is no backward
    forward: Callable[..., None]
    backward: Callable[..., None]

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Sub-layers with their attribute names, in order of declaration."""
        for key, value in vars(self).items():
            if isinstance(value, Layer):
                yield key, value

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """Parameters of this layer and below, named by the path of attributes to them."""
        for key, value in vars(self).items():
            if isinstance(value, Parameter):
                yield f"{prefix}.{key}", value
        for key, layer in self.children():
            yield from layer.named_parameters(f"{prefix}.{key}")

    def decode_operations(self) -> list[DecodeOperation] | None:
        """What the layer does to a token, for the fused decoder; None for what it cannot do."""
        return None

    def output_width(self, C: int) -> int:
        """The width of y for an x of width C."""
        return C

    def trace(self, tape: Tape, x: Value) -> Value:
        """y of x, with what leads there written on the tape."""
        return self.record(tape, x)

    def record(self, tape: Tape, *inputs: Value) -> Value:
        """y of a layer that computes, written on the tape as it declares itself."""
        name = f"{tape.part}.{type(self).__name__}"
        x = inputs[0] if inputs else None
        y = Value(name, self.output_width(0 if x is None else x.width))
        statistics = tuple(Value(f"{name}.statistic", width) for width in self.statistics)
        known = {"x": inputs[:1], "y": (y,)}
        kept = *(one for read in self.backward_reads for one in known[read]), *statistics
        passes = self.passes_gradient
        tape.operations.append(
            Operation(
                tape.part,
                self,
                self.mixes_rows,
                self.forward,
                inputs,
                (y, *statistics),
                y,
                x=None if passes else x,
                backward=None if passes else self.backward,
                kept=() if passes else kept,
                skips=inputs if passes else (),
            )
        )
        return y


def operations_of(layers: Iterable[Layer]) -> list[DecodeOperation] | None:
    """Those of layers in a row; None where one of them has none."""
    found = [layer.decode_operations() for layer in layers]
    return None if None in found else [one for some in found for one in some or ()]
