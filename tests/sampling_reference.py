"""The kernels that choose tokens once more in float64, by a full sort: what tests compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def argmax(x: NDArray) -> int:
    """The first largest, -1 where NaN, infinity or nothing but -inf."""
    chosen = np.asarray(x, np.float64)
    if np.isnan(chosen).any() or not np.isfinite(chosen.max()):
        return -1
    return int(chosen.argmax())


def apply_penalties(
    scores: NDArray, ids: NDArray, repetition: float, presence: float, frequency: float
) -> Array:
    """(V,) scores, lower at the tokens of ids."""
    found = np.array(scores, np.float64)
    for token in set(np.asarray(ids).tolist()):
        value = found[token]
        value = value / repetition if value > 0 else value * repetition
        found[token] = value - presence - frequency * np.count_nonzero(np.asarray(ids) == token)
    return found


def ranking(scores: NDArray) -> NDArray[np.int64]:
    """Ids from the largest score to the lowest, equal ones by id."""
    return np.lexsort((np.arange(len(scores)), -np.asarray(scores, np.float64)))


def distribution(
    scores: NDArray,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Array:
    """(V,) probabilities of a draw, exact: zeros where a limit leaves a token out."""
    scores = np.asarray(scores, np.float64)
    order = ranking(scores)
    with np.errstate(over="ignore"):
        weights = np.exp((scores - scores.max()) / temperature)
    kept = order[: top_k or None]
    if top_p < 1:
        mass = np.cumsum(weights[kept])
        kept = kept[: int(np.searchsorted(mass, top_p * mass[-1])) + 1]
    kept = kept[weights[kept] >= min_p]
    found = np.zeros(len(scores))
    found[kept] = weights[kept] / weights[kept].sum()
    return found


def sample(
    scores: NDArray, temperature: float, top_k: int, top_p: float, min_p: float, u: float
) -> int:
    """The token into whose share of [0, 1) u falls."""
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any() or not np.isfinite(scores.max()):
        return -1
    shares = np.cumsum(distribution(scores, temperature, top_k, top_p, min_p))
    return int(np.searchsorted(shares, u * shares[-1], side="right"))


def top_logprobs(scores: NDArray, k: int) -> tuple[NDArray[np.int32], Array]:
    """(k,) ids of the largest scores and log softmax there; -1 and -inf where there are fewer."""
    scores = np.asarray(scores, np.float64)
    order = ranking(scores)[:k]
    logsum = scores.max() + np.log(np.exp(scores - scores.max()).sum())
    logprobs = scores[order] - logsum
    return np.where(np.isfinite(logprobs), order, -1).astype(np.int32), logprobs


def pick_rows(
    scores: NDArray, temperature: float, top_k: int, top_p: float, min_p: float, u: NDArray | None
) -> list[int]:
    """argmax (temperature 0) or sample, row by row."""
    return [
        argmax(row) if u is None else sample(row, temperature, top_k, top_p, min_p, float(x))
        for row, x in zip(scores, np.zeros(len(scores)) if u is None else u, strict=True)
    ]
