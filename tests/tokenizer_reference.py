"""The tokenizer's encoders once more in plain Python: what the compiled ones must equal.

`encode_words` searches piece by piece, as the kernel does, so that sums of any scores are rounded
alike. `encode_pairs` is written from the rule alone: of all neighbours that together are a token,
the oldest token first, the left ones first.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

FIRST_BYTE, FIRST_WORD = 6, 262
_BLANK = "\t-\r \\x85\\xa0\u2000-\u200a\u2028\u2029\u3000"
_SIGN = (
    "!-/:-@\\[-`{-\\x84\\x86-\\x9f\\xa1-\\xbf\\x00-\\x08\\x0e-\\x1f\u200b-\u2027\u202a-\u2bff"
    "\u3001-\u303f\ufe10-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    "\U0001f000-\U0001faff"
)
_LETTER = f"[^{_BLANK}{_SIGN}0-9]{{1,32}}"
PIECE = re.compile(
    f" (?:{_LETTER}|[0-9]{{1,3}}|[{_SIGN}]{{1,32}})|{_LETTER}|[0-9]{{1,3}}|[{_SIGN}]{{1,32}}"
    f"|[{_BLANK}]{{32}}|[{_BLANK}]{{1,31}}(?= [^{_BLANK}])(?![{_BLANK}]{{32}})|[{_BLANK}]+"
)


def encode_words(words: dict[str, float], text: str) -> list[int]:
    """The ids of the most probable path."""
    numbers = {word: number for number, word in enumerate(words, FIRST_WORD)}
    inside = {word[i : i + 2] for word in words for i in range(len(word) - 1)}
    ids: list[int] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or text[end - 1 : end + 1] not in inside:
            for word in best_path(words, text[start:end]):
                ids += (
                    [numbers[word]]
                    if word in numbers
                    else [FIRST_BYTE + byte for byte in word.encode("utf-8", "surrogatepass")]
                )
            start = end
    return ids


def best_path(words: dict[str, float], text: str) -> list[str]:
    """The words of the path of the highest sum; a character that is no word is its bytes."""
    byte_score = min(words.values(), default=0.0) - 16.0
    longest = max(map(len, words), default=1)
    best = [0.0] + [-math.inf] * len(text)
    origin = [0] * (len(text) + 1)
    # Starts in rising order and a strict comparison: of equal paths, the longer last word.
    for start in range(len(text)):
        for end in range(start + 1, min(len(text), start + longest) + 1):
            score = words.get(text[start:end])
            if score is None:
                if end > start + 1:
                    continue
                score = byte_score * len(text[start].encode("utf-8", "surrogatepass"))
            if best[start] + score > best[end]:
                best[end], origin[end] = best[start] + score, start
    found, end = [], len(text)
    while end:
        found.append(text[origin[end] : end])
        end = origin[end]
    return found[::-1]


def encode_pairs(tokens: list[bytes], text: str) -> list[int]:
    """The ids by byte-pair encoding."""
    numbers = {bytes([byte]): FIRST_BYTE + byte for byte in range(256)}
    numbers.update((token, number) for number, token in enumerate(tokens, FIRST_WORD))
    ids: list[int] = []
    for piece in pieces(text):
        parts = [bytes([byte]) for byte in piece]
        while True:
            found = [
                (numbers[left + right], place)
                for place, (left, right) in enumerate(pairwise(parts))
                if left + right in numbers
            ]
            if not found:
                break
            place = min(found)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        ids += [numbers[part] for part in parts]
    return ids


def pieces(text: str) -> list[bytes]:
    """Runs of letters, digits (three at most), signs and blanks, with the one space before them."""
    return [match.encode("utf-8", "surrogatepass") for match in PIECE.findall(text)]
