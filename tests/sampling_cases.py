"""Calls of the kernels that choose tokens, for kernel_cases.py.

Chosen ids are compared exactly. That is safe though the kernels compute weights in float32: a
weight is off by 2e-7, so u or a limit would have to lie that close to a border, which for seeded
cases it does not (and where it did, the case would fail for good, not now and then).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sampling_reference as ref
from kernel_memory import Problem
from numpy.typing import NDArray

EPS = float(np.finfo(np.float32).eps)
Generator = np.random.Generator


def _scores(rng: Generator, V: int, spread: float, ties: bool) -> NDArray[np.float32]:
    """Random scores, some of them ruled out; with ties several are equal, the largest too."""
    scores = (spread * rng.standard_normal(V)).astype(np.float32)
    if ties:
        scores = np.round(scores)
    scores[1:-1][rng.random(max(V - 2, 0)) < 0.1] = -np.inf
    return scores


def argmax(rng: Generator, V: int, ties: bool = False) -> Problem:
    x = _scores(rng, V, 3, ties)
    return Problem("argmax", {"x": x}, {"return": (ref.argmax(x), 0)})


def apply_penalties(rng: Generator, V: int, n: int) -> Problem:
    scores, ids = _scores(rng, V, 3, False), rng.integers(V, size=n, dtype=np.int32)
    settings = {"repetition": 1.3, "presence": 0.5, "frequency": 0.25}
    expected = ref.apply_penalties(scores, ids, **settings)
    most = max(np.bincount(ids, minlength=1).max(), 1)
    finite = np.where(np.isfinite(scores), np.abs(scores), 0)
    touched = np.isin(np.arange(V), ids)
    return Problem(
        "apply_penalties",
        {"scores": scores, "ids": ids, "counts": np.zeros(V, np.int32), **settings},
        {
            "scores": (expected, touched * 2 * EPS * (finite * 1.3 + 0.5 + 0.25 * most)),
            "counts": (np.zeros(V), 0),
        },
    )


def sample(
    rng: Generator, V: int, spread: float = 3.0, ties: bool = False, **settings: Any
) -> Problem:
    scores = _scores(rng, V, spread, ties)
    wanted = {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "u": float(rng.random()),
        **settings,
    }
    return Problem(
        "sample", {"scores": scores, **wanted}, {"return": (ref.sample(scores, **wanted), 0)}
    )


def top_logprobs(rng: Generator, V: int, k: int, ties: bool = False) -> Problem:
    scores = _scores(rng, V, 3, ties)
    ids, logprobs = ref.top_logprobs(scores, k)
    size = np.where(ids >= 0, 8 + np.abs(np.where(ids >= 0, logprobs, 0)), 0)
    count = int((ids >= 0).sum())
    return Problem(
        "top_logprobs",
        {
            "scores": scores,
            "ids": np.full(k, -7, np.int32),
            "logprobs": np.full(k, np.nan, np.float32),
        },
        {"ids": (ids, 0), "logprobs": (logprobs, EPS * size), "return": (count, 0)},
    )


SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 65, 255, 256, 257, 1000, 5000)
LIMITS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 50.0},
    {"temperature": 1e-38},
    {"top_k": 1},
    {"top_k": 5},
    {"top_p": 0.9},
    {"top_p": 1e-9},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 40, "top_p": 0.5},
    {"top_k": 9, "top_p": 0.95, "min_p": 0.1, "temperature": 2.0},
]

ALL: list[tuple[Any, dict[str, Any]]] = [
    *((argmax, {"V": V, "ties": ties}) for V in SIZES for ties in (False, True)),
    *(
        (apply_penalties, {"V": V, "n": n})
        for V, n in ((1, 0), (1, 3), (9, 4), (300, 65), (17, 200))
    ),
    *((sample, {"V": V, **limit}) for V in SIZES for limit in LIMITS),
    *((sample, {"V": 700, "ties": True, **limit}) for limit in LIMITS),
    *(
        (sample, {"V": 3000, "spread": spread, **limit})
        for spread in (0.0, 0.01, 100.0)
        for limit in LIMITS
    ),
    *((sample, {"V": 65, "u": u, **limit}) for u in (0.0, 1 - 2**-53) for limit in LIMITS[:8]),
    *(
        (top_logprobs, {"V": V, "k": k, "ties": ties})
        for V in SIZES
        for k in sorted({1, 2, 8, 64, V})
        for ties in (False, True)
        if k <= V
    ),
]
