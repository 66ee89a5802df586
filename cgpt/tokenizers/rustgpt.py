"""The vocabulary of an imported RustGPT-Chinese model: words, no bytes, and an unknown token.

That program cuts Chinese text with jieba (without its model for new words) and looks each word up.
jieba takes the path of highest probability through its dictionary. So do we, over the model's
own words with jieba's frequencies as their scores, which are saved along: a chat needs no
dictionary, and what is no word of the model falls into shorter ones before it becomes <|unk|>.
A score of -inf marks a word that is never made from text: the special tokens, and words that
the program's training never met.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgpt.errors import DataError
from cgpt.nn.arrays import Ints
from cgpt.tokenizers.tokenizer import (
    StreamDecoder,
    Tokenizer,
    check_words,
    checked_scores,
    listed,
    saved_lists,
)
from cgpt.tokenizers.vocabulary import _jieba_cut

SPECIAL = ("<|pad|>", "<|unk|>", "<|bos|>", "</s>", "<|sep|>", "<|cls|>", "<|mask|>")
NEVER = -math.inf
_UNKNOWN = 1e9  # an unknown character costs more (nats) than any path of words
_MARKS = (("用户：", "助手："), ("User:", "Assistant:"))  # of the program's two generations


class RustTokenizer(Tokenizer):
    """All words in the order of their ids, with scores; made by `from_state`.

    marks    texts before a question and an answer, those of the two generations that the
             vocabulary knows
    opening  tokens before a text that is learnt: <|bos|> where its score is not -inf
    Whitespace is dropped, as it was in training; decoded words that letters or digits would join
    have a space between them. What encode() makes <|unk|> is lost.
    """

    KIND = "rustgpt"

    def __init__(self, words: list[str], scores: list[float]) -> None:
        """Checked by `from_state`."""
        self._words, self._scores, self._kind = list(words), list(scores), self.KIND
        ids = {word: id for id, word in enumerate(words)}
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = (ids[word] for word in SPECIAL[:4])
        self.special_ids = sorted(ids[word] for word in SPECIAL if word in ids)
        self._pieces = ["" if word in SPECIAL else word for word in words]
        self._paths = {
            word: (score, id)
            for id, (word, score) in enumerate(zip(self._pieces, scores, strict=True))
            if word and score > NEVER
        }
        self._longest = max(map(len, self._paths), default=1)
        self.opening = [self.bos_id] if scores[self.bos_id] > NEVER else []
        self.marks = next(
            (marks for marks in _MARKS if self.unk_id not in self.encode("".join(marks))), _MARKS[0]
        )
        self.user_id, self.assistant_id = (self.encode(mark)[0] for mark in self.marks)

    def encode_bytes(self, text: str) -> bytes:
        """The ids as the bytes of native int32."""
        return array("i", self.encode(self._text(text, "encode_bytes"))).tobytes()

    def encode_many(self, texts: Iterable[str]) -> tuple[Ints, NDArray[np.int64]]:
        found = [self._encode(text) for text in listed(texts)]
        return (
            np.array([*chain.from_iterable(found)], np.int32),
            np.array([*map(len, found)], np.int64),
        )

    def _encode(self, text: str) -> list[int]:
        """The ids of the most probable path; of equal ones the longer first word wins."""
        ids: list[int] = []
        for part in text.split():
            for id in self._best(part):
                if not (id == self.unk_id and ids and ids[-1] == id):
                    ids.append(id)
        return ids

    def _best(self, text: str) -> list[int]:
        """Ids of a text without whitespace, one <|unk|> for each character without a word."""
        size = len(text)
        best = [0.0] * (size + 1)
        chosen = [(self.unk_id, 1)] * size
        for start in range(size - 1, -1, -1):
            best[start] = best[start + 1] - _UNKNOWN
            for end in range(start + 1, min(start + self._longest, size) + 1):
                found = self._paths.get(text[start:end])
                if found is not None and found[0] + best[end] >= best[start]:
                    best[start], chosen[start] = found[0] + best[end], (found[1], end - start)
        ids, start = [], 0
        while start < size:
            id, length = chosen[start]
            ids.append(id)
            start += length
        return ids

    def decoder(self, *, specials: bool = False) -> StreamDecoder:
        return _SpacedDecoder(self._shown(specials))

    @property
    def words(self) -> list[str]:
        """Every token's name in id order."""
        return list(self._words)

    def to_state(self) -> dict[str, Any]:
        """What is saved: "words" of all ids, "scores" their log-probabilities (nats), None for
        those that are never made, and the "kind"."""
        return {
            "words": list(self._words),
            "kind": self._kind,
            "scores": [None if score == NEVER else score for score in self._scores],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RustTokenizer:
        """The tokenizer that `to_state` described. Raises DataError naming what is wrong."""
        return cls(*_check_state(state))

    def __len__(self) -> int:
        return len(self._words)


def jieba_scores(words: list[str]) -> list[float]:
    """log(frequency / sum of all) in jieba's dictionary, with which it weighs its paths; a word
    that is not in it counts once."""
    cutter: Any = _jieba_cut()
    frequencies, total = cutter.__self__.FREQ, math.log(cutter.__self__.total)
    return [math.log(frequencies.get(word) or 1) - total for word in words]


class _SpacedDecoder(StreamDecoder):
    """Words in, text out, with a space where two words of letters or digits would join."""

    def __init__(self, pieces: list[str | bytes]) -> None:
        super().__init__(pieces)
        self._last = ""

    def push(self, token: int) -> str:
        """The text of `token`: "" for a special one."""
        text = super().push(token)
        if not text:
            return ""
        joins = _is_latin(self._last) and _is_latin(text[0])
        self._last = text[-1]
        return " " + text if joins else text


def _is_latin(char: str) -> bool:
    return char.isascii() and char.isalnum()


def _check_state(state: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """words and scores of a saved tokenizer, checked. Raises DataError."""
    words, given = saved_lists(state)
    check_words(words, 0)
    for name in SPECIAL[:4]:
        if name not in words:
            raise DataError(f"saved vocabulary: the special token '{name}' is missing")
    scores = [NEVER if score is None else score for score in given]
    return words, checked_scores(scores, 0, (NEVER,))
