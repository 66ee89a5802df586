"""Workspace: the memory of a plan, and its calls with their arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter

from cgpt.nn.arena import aligned
from cgpt.nn.arrays import Floats
from cgpt.nn.graph import Function, Value
from cgpt.nn.heads import HeadArrays
from cgpt.nn.layer import Step
from cgpt.nn.planning import Call, Plan

Arguments = tuple[Floats, ...]


class Workspace:
    """The memory of a plan: activations are placed once and used by every pass."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nbytes = plan.size * 4
        memory = aligned(plan.size)
        self._whole: dict[Value, Floats] = {}
        for value, start in plan.offsets.items():
            shape = value.rows_of(plan.rows), value.width
            self._whole[value] = memory[start : start + shape[0] * shape[1]].reshape(shape)
        places = {value: i for i, value in enumerate(self._whole)}
        self._forward = [(one, _chosen(one, places)) for one in plan.forward]
        self._backward = [(one, _chosen(one, places)) for one in plan.backward]
        self._last: Pass | None = None

    def bind(self, N: int, R: int) -> Pass:
        """The plan for a batch of N rows, R of which the result has."""
        found = self._last
        if found is None or (found.N, found.R) != (N, R):
            arrays = [part[: R if one.pruned else N] for one, part in self._whole.items()]
            forward, backward = (
                [(one.part, one.function, choose(arrays)) for one, choose in calls if one.function]
                for calls in (self._forward, self._backward)
            )
            named = dict(zip(self._whole, arrays, strict=True))
            found = self._last = Pass(self.plan, N, R, named, forward, backward)
        return found


def _chosen(call: Call, places: dict[Value, int]) -> Callable[[list[Floats]], Arguments]:
    """What takes a call's arguments out of the arrays of all values."""
    wanted = [places[value] for value in call.arguments]
    if len(wanted) > 1:
        return itemgetter(*wanted)
    (only,) = wanted
    return lambda arrays: (arrays[only],)


class Pass:
    """The calls of a plan with arrays for N rows, R of which the result has.

    x     (R, C) what the head reads
    head  its arrays, in training
    """

    def __init__(
        self,
        plan: Plan,
        N: int,
        R: int,
        arrays: dict[Value, Floats],
        forward: list[tuple[str, Function, Arguments]],
        backward: list[tuple[str, Function, Arguments]],
    ) -> None:
        self.plan, self.N, self.R = plan, N, R
        self._arrays, self._forward, self._backward = arrays, forward, backward
        self.x = arrays[plan.output]
        if plan.head:
            self.head = HeadArrays(self.x, *(arrays[value] for value in plan.head))

    def forward(self, step: Step) -> None:
        """All layers up to the head."""
        for _, function, arrays in self._forward:
            function(step, *arrays)

    def operations(self, step: Step) -> Iterator[tuple[str, object, Arguments, Floats]]:
        """The same one at a time: after each operation its part, layer, inputs and y."""
        for one, (part, function, arrays) in zip(self.plan.operations, self._forward, strict=True):
            function(step, *arrays)
            yield part, one.layer, arrays[: len(one.inputs)], self._arrays[one.y]

    def run_part(self, name: str, step: Step) -> None:
        """One layer at the top of the graph, those before it having been run."""
        for part, function, arrays in self._forward:
            if part == name:
                function(step, *arrays)

    def backward(self, step: Step) -> Iterator[str]:
        """All layers below the head, whose dx is there; gives the name of each when it is done."""
        for part, calls in groupby(self._backward, key=itemgetter(0)):
            for _, function, arrays in calls:
                function(step, *arrays)
            yield part
