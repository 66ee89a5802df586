"""How well a model predicts text: nats a token, bits a character, bits a byte."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cgpt.data import Dialogue, Sample
from cgpt.errors import DataError
from cgpt.llm import LLM
from cgpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class EvalResult:
    """Totals over everything that carries loss; eos is a token but no character.

    loss                mean, nats a token
    tokens              counted tokens; characters and bytes (UTF-8) of their text
    perplexity          exp(loss), infinite where that is too large
    bits_per_character  total bits / characters: compares models of different vocabularies
    bits_per_byte       total bits / bytes
    """

    loss: float
    tokens: int
    characters: int
    bytes: int
    perplexity: float
    bits_per_character: float
    bits_per_byte: float

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def evaluate(llm: LLM, samples: Iterable[Sample | str | Dialogue]) -> EvalResult:
    """Loss of the model on samples (`llm.samples`), documents or dialogues.

    Raises DataError where there is no character to predict.
    """
    given = list(samples)
    found = [one for one in given if isinstance(one, Sample)]
    found += llm.samples(one for one in given if not isinstance(one, Sample))
    total, tokens = llm.summed_loss(found)
    characters, size = _measure(llm.tokenizer, found)
    if not characters:
        raise DataError("evaluate: no text to predict; give at least one document with text, or a "
                        "dialogue with an answer")
    loss, bits = total / tokens, total / math.log(2)
    return EvalResult(loss=loss, tokens=tokens, characters=characters, bytes=size,
                      perplexity=math.exp(loss) if loss < 700 else math.inf,
                      bits_per_character=bits / characters, bits_per_byte=bits / size)


def _measure(tokenizer: Tokenizer, samples: Iterable[Sample]) -> tuple[int, int]:
    """Characters and UTF-8 bytes of the targets that carry loss."""
    # A byte counts as a character unless it continues one.
    sizes = np.array([[sum(byte & 0xC0 != 0x80 for byte in token), len(token)]
                      for token in tokenizer.token_bytes()], dtype=np.int64).T
    characters = size = 0
    for sample in samples:
        counted = sizes[:, sample.targets[sample.targets >= 0]].sum(axis=1)
        characters += int(counted[0])
        size += int(counted[1])
    return characters, size
