"""What a model expected, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cgpt.models.inference import InferenceModel
from cgpt.models.inspection import check_sequence
from cgpt.validation import check_int, expect

if TYPE_CHECKING:
    from cgpt.language_model import LanguageModel


@dataclass(frozen=True)
class Prediction:
    """What a model expected in one place of a sequence.

    id            of the token that stands there, -1 behind the last one
    probability   that the model gave it (nan behind the last one); rank: 1 for the most likely
    alternatives  the most likely (id, probability), best first
    """

    id: int
    probability: float
    rank: int
    alternatives: list[tuple[int, float]]


def predictions(gpt: InferenceModel, ids: ArrayLike, top: int = 5) -> list[Prediction]:
    """What gpt expected at ids[1], ids[2], ... and behind the last of ids (n,): n in all.

    Raises DataError for ids out of range or of a wrong shape, or more than block_size of them.
    """
    expect("predictions", gpt, InferenceModel, "a GPT")
    top = check_int("predictions", "top", top, 0, (1 << 31) - 1)
    flat = check_sequence(ids, gpt.config)
    logits = gpt.logits(flat[None])[0].astype(np.float64)
    found = []
    for row, token in zip(logits, [*flat[1:].tolist(), -1], strict=True):
        odds = np.exp(row - row.max())
        odds /= odds.sum()
        best = np.argsort(-odds, kind="stable")[:top]
        probability = float(odds[token]) if token >= 0 else float("nan")
        rank = 1 + int(np.count_nonzero(odds > odds[token])) if token >= 0 else 0
        found.append(Prediction(token, probability, rank, [(int(i), float(odds[i])) for i in best]))
    return found


def prediction_values(llm: LanguageModel, found: Sequence[Prediction]) -> dict[str, Any]:
    """tokens [{token, id, probability, logprob, rank, alternatives}], next [alternatives]."""
    words = llm.tokenizer.words

    def name(token: int) -> str:
        return words[token] if token < len(words) else ""

    def options_of(one: Prediction) -> list[dict[str, Any]]:
        return [{"token": name(i), "id": i, "probability": p} for i, p in one.alternatives]

    tokens = [
        {
            "token": name(one.id),
            "id": one.id,
            "probability": one.probability,
            "logprob": math.log(max(one.probability, 1e-300)),
            "rank": one.rank,
            "alternatives": options_of(one),
        }
        for one in found[:-1]
    ]
    return {"tokens": tokens, "next": options_of(found[-1])}
