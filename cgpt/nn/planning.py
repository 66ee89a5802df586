"""Planning: which operations of a graph run when, and where their arrays are in memory.

One walk over the layers gives the operations; those that can be are fused, rows that the result
does not need are left out, and the calls of both passes are put in order. From that order alone
follows how long each value is needed, and from that who shares memory with whom.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cgpt import kernels as K
from cgpt.nn.arena import STEP
from cgpt.nn.arrays import Floats
from cgpt.nn.fused import FUSIONS
from cgpt.nn.graph import Function, Operation, Tape, Value
from cgpt.nn.heads import Head
from cgpt.nn.layer import Layer, Step
from cgpt.nn.residual import Sum


@dataclass(frozen=True)
class Mode:
    """What a plan is for.

    training   whether a backward pass follows
    recompute  whether it recomputes blocks, so that only their outputs stay
    """

    training: bool = False
    dropout: bool = False
    recompute: bool = False


@dataclass(frozen=True)
class Call:
    """function(step, *reads, *updates, *writes); None is run by the model: its head.

    updates     values that are read and written
    recomputes  whether it repeats an earlier call; left out where nobody reads what it writes
    """

    part: str
    function: Function | None
    reads: tuple[Value, ...]
    updates: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()
    recomputes: bool = False

    @property
    def arguments(self) -> tuple[Value, ...]:
        """All values, in the order of the function's parameters."""
        return self.reads + self.updates + self.writes


Lifetimes = Mapping[Value, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Plan:
    """The calls of a graph for batches of up to `rows` rows, and where their values are.

    operations  the graph's, fused
    forward, backward  calls in order
    output      what the head reads: the last layer's y
    head        the head's losses, logits and dx, in training
    lifetimes   of each value: from the call that writes it to the last that reads it, both counted,
                as many times as it is made
    offsets     of each value in the memory of `size` float32 elements
    """

    mode: Mode
    rows: int
    operations: tuple[Operation, ...]
    forward: tuple[Call, ...]
    backward: tuple[Call, ...]
    output: Value
    head: tuple[Value, ...]
    lifetimes: Lifetimes
    offsets: Mapping[Value, int]
    size: int


def make_plan(
    layers: Sequence[tuple[str, Layer]],
    head: Head,
    mode: Mode,
    rows: int,
    blocks: Collection[str] = (),
) -> Plan:
    """The plan of layers in a row, by name, the first of which makes its x of the step's ids.

    blocks  names of those that are recomputed where the mode says so
    """
    operations, output = _traced(layers, mode)
    operations, output = _prune_rows(operations, output)
    for fuse in FUSIONS:
        operations = fuse(operations)
    forward = [Call(one.part, one.forward, one.inputs, (), one.outputs) for one in operations]
    backward: list[Call] = []
    values: tuple[Value, ...] = ()
    last = Call("head", None, (output,))
    if mode.training:
        values = head.training_values(output)
        last = replace(last, writes=values)
        parts = blocks if mode.recompute else ()
        recomputation = [replace(one, recomputes=True) for one in forward if one.part in parts]
        first = Call("head", None, (output,), values)
        backward = [first, *_backward(operations, output, values[-1])]
        backward = _with_recomputation(backward, recomputation)
    calls = [*forward, last, *backward]
    calls, lifetimes = _lifetimes(calls)
    offsets, size = _pack({one: value_size(one, rows) for one in lifetimes}, lifetimes)
    return Plan(
        mode,
        rows,
        tuple(operations),
        tuple(forward),
        tuple(calls[len(forward) + 1 :]),
        output,
        values,
        MappingProxyType(lifetimes),
        MappingProxyType(offsets),
        size,
    )


def value_size(value: Value, rows: int) -> int:
    """Elements of a value in a plan for so many rows, in whole cache lines."""
    return -(-value.rows_of(rows) * value.width // STEP) * STEP


def _traced(layers: Sequence[tuple[str, Layer]], mode: Mode) -> tuple[list[Operation], Value]:
    """The plain operations of all layers, and the last one's y."""
    tape, x = Tape(mode.dropout), Value("nothing", 0)
    for tape.part, layer in layers:
        x = layer.trace(tape, x)
    return tape.operations, x


class SelectRows(Layer):
    """y = the rows of x that the result has.  x (N, C), y (R, C)."""

    def forward(self, step: Step, x: Floats, y: Floats) -> None:
        K.gather_rows(x, step.rows, y)

    def backward(self, step: Step, dy: Floats, dx: Floats) -> None:
        K.scatter_rows(dy, step.rows, dx)


def _prune_rows(operations: list[Operation], output: Value) -> tuple[list[Operation], Value]:
    """After the last operation that mixes rows only those that the result has are computed."""
    last = max((i for i, one in enumerate(operations) if one.mixes_rows), default=0)
    before, after = operations[: last + 1], operations[last + 1 :]
    part, made = before[-1].part, {value for one in before for value in one.outputs}
    read = dict.fromkeys([*(value for one in after for value in one.inputs), output])
    new = {value: replace(value, pruned=True) for one in after for value in one.outputs}
    select = SelectRows()
    for value in read:
        if value in made:
            new[value] = replace(value, pruned=True)
            before.append(
                Operation(
                    part,
                    select,
                    False,
                    select.forward,
                    (value,),
                    (new[value],),
                    y=new[value],
                    x=value,
                    backward=select.backward,
                )
            )
    return [*before, *(one.with_values(new) for one in after)], new[output]


def _backward(operations: list[Operation], output: Value, dy: Value) -> list[Call]:
    """The calls that bring the gradient `dy` of the output back to the first operation."""
    calls: list[Call] = []
    gradients = {output: dy}  # so far: of a value that several read, the sum of what has come
    recomputed = {one.y: one for one in operations if one.recompute}
    for one in reversed(operations):
        dy = gradients.pop(one.y)
        for x in one.skips:
            _add(calls, one.part, gradients, x, dy)
        if one.backward is None:
            continue
        for value in one.kept:
            if value in recomputed:
                norm = recomputed[value]
                calls.append(Call(one.part, norm.recompute, norm.kept, (), (value,)))
        reads = (dy, *one.kept)
        if one.x is None:
            calls.append(Call(one.part, one.backward, reads, (), one.remade))
            continue
        so_far = gradients.get(one.x)
        others = [dy, *(value for x, value in gradients.items() if x is not one.x)]
        if one.add_backward and so_far is not None and so_far not in others:
            calls.append(Call(one.part, one.add_backward, reads, (so_far,)))
            continue
        dx = replace(one.x, name=f"d {one.x.name}")
        calls.append(Call(one.part, one.backward, reads, (), (*one.remade, dx)))
        _add(calls, one.part, gradients, one.x, dx)
    return calls


def _add(calls: list[Call], part: str, gradients: dict[Value, Value], x: Value, dx: Value) -> None:
    """Add dx to what has come of the gradient of x."""
    if x in gradients:
        total = replace(dx)
        calls.append(Call(part, Sum().forward, (gradients[x], dx), (), (total,)))
        dx = total
    gradients[x] = dx


def _with_recomputation(backward: list[Call], recomputation: list[Call]) -> list[Call]:
    """Each block's recomputation before its backward pass."""
    found: list[Call] = []
    for call in backward:
        if not found or found[-1].part != call.part:
            found += [one for one in recomputation if one.part == call.part]
        found.append(call)
    return found


def _lifetimes(calls: list[Call]) -> tuple[list[Call], Lifetimes]:
    """The calls without recomputations that nobody reads, and when each value is needed."""
    lifetimes: dict[Value, list[tuple[int, int]]] = defaultdict(list)
    last_read: dict[Value, int] = {}
    needed: list[Call] = []
    for time in reversed(range(len(calls))):
        call = calls[time]
        if call.recomputes and not any(value in last_read for value in call.writes):
            continue
        needed.append(call)
        for value in call.writes:
            lifetimes[value].append((time, last_read.pop(value, time)))
        for value in call.reads + call.updates:
            last_read.setdefault(value, time)
    assert not last_read, f"read but never written: {last_read}"
    return needed[::-1], dict(lifetimes)


def _pack(sizes: dict[Value, int], lifetimes: Lifetimes) -> tuple[dict[Value, int], int]:
    """Offsets of the values, no two of which overlap while both are needed, and the total size.

    Largest first, each at the lowest place that is free: within a few percent of what is needed at
    any one time in practice.
    """
    offsets: dict[Value, int] = {}
    for value in sorted(sizes, key=lambda one: -sizes[one]):
        mine, start = lifetimes[value], 0
        taken = [
            (offset, offset + sizes[other])
            for other, offset in offsets.items()
            if any(a <= d and c <= b for a, b in mine for c, d in lifetimes[other])
        ]
        for low, high in sorted(taken):
            if start + sizes[value] <= low:
                break
            start = max(start, high)
        offsets[value] = start
    return offsets, max((offsets[one] + sizes[one] for one in sizes), default=0)
