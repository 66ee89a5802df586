"""Graph: the operations of a model in the order in which they run, traced from its layers.

Nothing is computed or allocated here: a `Value` stands for an array that a plan will place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

Function = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Value:
    """An activation or its gradient: `width` numbers for each row of a batch.

    pruned    whether only the rows that the result has are there (see Step.rows)
    max_rows  of a buffer that never has more rows than that; 0 where it has all
    """

    name: str
    width: int
    pruned: bool = False
    max_rows: int = 0

    def rows_of(self, rows: int) -> int:
        """Its rows in a plan for so many."""
        return min(rows, self.max_rows or rows)


@dataclass(frozen=True)
class Operation:
    """A layer's part in both passes, or that of several layers that were fused.

    forward   is called as forward(step, *inputs, *outputs); the first output is y
    backward  as backward(step, dy, *kept, *remade, dx), dx being the gradient of x. It writes what
              is `remade` as well; without x there is no dx, without `backward` nothing to compute
    skips     inputs whose gradient is dy itself
    add_backward  as backward, but dx is added to
    mixes_rows    whether a row of y depends on other rows than its own
    recompute     recompute(step, *kept, y) makes y for others' backward, so that it need not stay
    """

    part: str  # the layer at the top of the graph to which it belongs
    layer: object
    mixes_rows: bool
    forward: Function
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    y: Value
    x: Value | None = None
    backward: Function | None = None
    kept: tuple[Value, ...] = ()
    remade: tuple[Value, ...] = ()
    skips: tuple[Value, ...] = ()
    add_backward: Function | None = None
    recompute: Function | None = None

    def with_values(self, new: Mapping[Value, Value]) -> Operation:
        """The same operation on other values."""

        def of(values: tuple[Value, ...]) -> tuple[Value, ...]:
            return tuple(new.get(value, value) for value in values)

        return replace(
            self,
            inputs=of(self.inputs),
            outputs=of(self.outputs),
            y=new.get(self.y, self.y),
            x=None if self.x is None else new.get(self.x, self.x),
            kept=of(self.kept),
            remade=of(self.remade),
            skips=of(self.skips),
        )


@dataclass
class Tape:
    """The operations of layers, recorded in the order in which they run.

    dropout  whether there is any
    masks    numbers of the dropout masks of residual branches; 0 is the embedding's
    """

    dropout: bool
    masks: Iterator[int] = field(default_factory=partial(count, 1))
    part: str = ""
    operations: list[Operation] = field(default_factory=list)
