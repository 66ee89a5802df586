"""Workspace: the memory of a plan, and its calls with their arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from cgpt.nn.arena import Floats, aligned
from cgpt.nn.graph import Function, Value
from cgpt.nn.heads import HeadArrays
from cgpt.nn.layer import Step
from cgpt.nn.planning import Call, Plan

_Bound = tuple[str, Function, tuple[Floats, ...]]


class Workspace:
    """The memory of a plan: activations are placed once and used by every pass."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._memory = aligned(plan.size)
        self._last: Pass | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all activations."""
        return self._memory.nbytes

    def bind(self, N: int, R: int) -> Pass:
        """The plan for a batch of N rows, R of which the result has."""
        found = self._last
        if found is None or (found.N, found.R) != (N, R):
            found = self._last = Pass(self.plan, self._memory, N, R)
        return found


class Pass:
    """The calls of a plan with arrays for N rows, R of which the result has.

    x     (R, C) what the head reads
    head  its arrays, in training
    """

    def __init__(self, plan: Plan, memory: Floats, N: int, R: int) -> None:
        self.plan, self.N, self.R = plan, N, R
        arrays: dict[Value, Floats] = {}
        for value, offset in plan.offsets.items():
            n = R if value.pruned else N
            n = min(n, value.max_rows) if value.max_rows else n
            arrays[value] = memory[offset : offset + n * value.width].reshape(n, value.width)

        def bound(calls: Iterable[Call]) -> list[_Bound]:
            return [
                (one.part, one.function, tuple(arrays[value] for value in one.arguments))
                for one in calls
                if one.function is not None
            ]

        self._arrays = arrays
        self._forward = bound(plan.forward)
        self._backward = [
            (part, list(calls)) for part, calls in groupby(bound(plan.backward), key=itemgetter(0))
        ]
        self.x = arrays[plan.output]
        if plan.head:
            self.head = HeadArrays(self.x, *(arrays[value] for value in plan.head))

    def forward(self, step: Step) -> None:
        """All layers up to the head."""
        for _, function, arrays in self._forward:
            function(step, *arrays)

    def operations(self, step: Step) -> Iterator[tuple[str, object, tuple[Floats, ...]]]:
        """The same one at a time: behind each operation its part, layer, inputs and outputs."""
        for one, (part, function, arrays) in zip(self.plan.operations, self._forward, strict=True):
            function(step, *arrays)
            yield part, one.layer, arrays

    def part(self, name: str, step: Step, x: Floats) -> Floats:
        """y of one layer at the top of the graph for an x of the caller's; the next call's too."""
        calls = [one for one in self.plan.operations if one.part == name]
        self._arrays[calls[0].inputs[0]][...] = x
        for part, function, arrays in self._forward:
            if part == name:
                function(step, *arrays)
        return self._arrays[calls[-1].y]

    def backward(self, step: Step) -> Iterator[str]:
        """All layers below the head, whose dx is there; gives the name of each when it is done."""
        for part, calls in self._backward:
            for _, function, arrays in calls:
                function(step, *arrays)
            yield part
