"""Byte-level byte-pair encoding: which byte strings are tokens, and how they are written as words.

A token is a string of bytes, which need be no whole characters. Where it must be a text (in a
file's vocabulary) each byte is one character, by the table of GPT-2: printable bytes stand for
themselves, the others for the characters from U+0100 on.
Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np

from cgpt.tokenizers._bpe import pieces
from cgpt.tokenizers._merging import Merging
from cgpt.tokenizers.vocabulary import checked

LONGEST_TOKEN = 64  # bytes
_MIN_COUNT = 2
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTED]
_CHARACTER = {byte: chr(byte) for byte in _PRINTED} | {
    byte: chr(0x100 + number) for number, byte in enumerate(_HIDDEN)
}
_BYTE = {char: byte for byte, char in _CHARACTER.items()}


def name_of(token: bytes) -> str:
    """The token as a text of one character a byte."""
    return "".join(map(_CHARACTER.__getitem__, token))


def token_of(name: str) -> bytes:
    """The bytes that `name_of` wrote. Raises ValueError for another character."""
    try:
        return bytes(map(_BYTE.__getitem__, name))
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} stands for no byte") from None


def learn_pairs(texts: Iterable[str], room: int, reserved: Collection[str]) -> list[str]:
    """At most `room` names of tokens in the order of their merging.

    reserved  names that no token may have
    A token occurs at least twice and is at most LONGEST_TOKEN bytes long. Equal counts go by the
    older parts, so the order of the texts does not matter.
    """
    counts: Counter[bytes] = Counter()
    for text in checked(texts):
        counts.update(pieces(text))
    merging = _merging(counts)
    tokens = [bytes([byte]) for byte in range(256)]
    known: set[bytes] = set(tokens)
    found: list[str] = []
    while len(found) < room and (best := merging.most_frequent()):
        times, left, right = best
        if times < _MIN_COUNT:
            break
        token = tokens[left] + tokens[right]
        name = name_of(token)
        if len(token) > LONGEST_TOKEN or name in reserved or token in known:
            continue
        merging.merge(left, right, len(tokens))
        tokens.append(token)
        known.add(token)
        found.append(name)
    return found


def _merging(counts: Counter[bytes]) -> Merging:
    """The pieces laid end to end, in an order of their own."""
    found = sorted(counts)
    sizes = np.array([len(piece) + 1 for piece in found], dtype=np.int64)
    symbols = np.frombuffer(b"\0".join([*found, b""]), dtype=np.uint8).astype(np.int32)
    symbols[np.cumsum(sizes) - 1] = -1
    owner = np.repeat(np.arange(len(found), dtype=np.int32), sizes)
    times = np.array([counts[piece] for piece in found], dtype=np.int64)
    return Merging(symbols, owner, times, np.empty((5, len(symbols)), dtype=np.int32))
