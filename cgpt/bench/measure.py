"""Values with their median and spread, ratios between them, and how one repeat is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from cgpt.errors import CgptError

LEAST_SECONDS = 0.5  # of one repeat; quick actions are repeated inside it


class Skip(CgptError):
    """A side cannot do what was asked for; the text says why."""


@dataclass
class Measurement:
    """The values of all repeats of one figure.

    side    whose figure it is: "cgpt", a peer or "machine"
    config  the shape's name, or "" where there is none
    higher  where more is better
    to      of a ratio: what it is measured against, in the same run
    note    what else to know, for example which instruction set
    """

    name: str
    unit: str
    values: list[float]
    side: str = "cgpt"
    config: str = ""
    higher: bool = True
    to: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """Middle value."""
        return statistics.median(self.values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {
            "name": self.name,
            "side": self.side,
            "config": self.config,
            "unit": self.unit,
            "median": self.median,
            "least": min(self.values),
            "most": max(self.values),
            "values": self.values,
            "higher_is_better": self.higher,
        }
        return found | {key: getattr(self, key) for key in ("to", "note") if getattr(self, key)}


def ratio(ours: Measurement, theirs: Sequence[float], to: str) -> Measurement:
    """Ours over theirs, repeat by repeat: both were measured in turn, so drift cancels."""
    values = [mine / other for mine, other in zip(ours.values, theirs, strict=True)]
    return replace(ours, unit="x", values=values, to=to, note="")


def seconds_of(action: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def repeated(action: Callable[[], Any], least: float = LEAST_SECONDS) -> Callable[[], float]:
    """A function that gives the seconds of one call of `action`, over at least `least` seconds.

    Warms up with one call and finds with another how many make up a repeat.
    """
    action()
    calls = max(1, round(least / max(seconds_of(action), 1e-7)))
    return lambda: seconds_of(lambda: [action() for _ in range(calls)]) / calls


class Decoded(TypedDict):
    """One repeat of a decoding measurement: new tokens a second, and those of the first row."""

    rate: float
    tokens: list[int]


def decoding(generate: Callable[[], np.ndarray], seconds: float) -> Callable[[], Decoded]:
    """How a side measures a function that gives new tokens (B, n)."""
    tokens = generate()
    first = tokens[0].tolist()
    measure = repeated(generate, seconds)
    return lambda: {"rate": tokens.size / measure(), "tokens": first}
