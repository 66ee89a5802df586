"""What is said of several sides: cgpt's figure over each peer's, measured in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from cgpt.bench.measure import Measurement, ratio

BEST = "best peer"


def compared(found: Iterable[Measurement]) -> Iterator[Measurement]:
    """`found`; behind each figure of several sides cgpt's over each peer's and the best one's.

    Of seconds the ratio is that of the speeds: above 1 where cgpt takes less.
    """
    for _, figures in groupby(found, key=lambda one: (one.name, one.unit)):
        sides = {one.side: one for one in figures}
        yield from sides.values()
        ours = sides.pop("cgpt", None)
        sides.pop("machine", None)
        if ours is None or ours.to or not sides:
            continue
        for side, one in sides.items():
            yield over(ours, one, side)
        sign = 1 if ours.higher else -1
        best = max(sides.values(), key=lambda one: sign * one.median)
        yield replace(over(ours, best, BEST), note=best.side)


def over(ours: Measurement, theirs: Measurement, to: str) -> Measurement:
    """cgpt's figure over a peer's."""
    if ours.unit == "s":
        found = ratio(theirs, ours.values, to)
        return replace(found, name=f"{ours.name}, speed", side="cgpt", higher=True)
    return ratio(ours, theirs.values, to)


def with_least(found: Iterable[Measurement]) -> Iterator[Measurement]:
    """`found`; at the end the least ratio to each peer."""
    least: dict[str, Measurement] = {}
    for one in found:
        yield one
        if one.to and (one.to not in least or one.median < least[one.to].median):
            least[one.to] = one
    for to, one in least.items():
        yield Measurement("least ratio", "x", [one.median], to=to, note=one.name)
