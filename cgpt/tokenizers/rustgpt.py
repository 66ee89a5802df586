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
from typing import Any

from cgpt.tokenizers.vocabulary import _jieba_cut

KIND = "rustgpt"
SPECIAL = ("<|pad|>", "<|unk|>", "<|bos|>", "</s>", "<|sep|>", "<|cls|>", "<|mask|>")
MARKS = (("用户：", "助手："), ("User:", "Assistant:"))  # of the program's two generations
NEVER = -math.inf
_UNKNOWN = 1e9  # an unknown character costs more (nats) than any path of words


class WordPaths:
    """The most probable paths through texts, over words with scores (nats) in id order."""

    def __init__(self, pieces: list[str], scores: list[float], unk_id: int) -> None:
        self.unk_id = unk_id
        self._paths = {
            word: (score, id)
            for id, (word, score) in enumerate(zip(pieces, scores, strict=True))
            if word and score > NEVER
        }
        self._longest = max(map(len, self._paths), default=1)

    def encode(self, text: str) -> list[int]:
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


def jieba_scores(words: list[str]) -> list[float]:
    """log(frequency / sum of all) in jieba's dictionary, with which it weighs its paths; a word
    that is not in it counts once."""
    cutter: Any = _jieba_cut()
    frequencies, total = cutter.__self__.FREQ, math.log(cutter.__self__.total)
    return [math.log(frequencies.get(word) or 1) - total for word in words]
