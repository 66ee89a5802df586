"""Which words a vocabulary holds: learnt from text with jieba, and characters by their number.

jieba and its full dictionary cut the training text once; the words that it finds often enough
compete for the room that there is. Everything here is done when a vocabulary is made, nothing
when a text is encoded.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from cgpt.errors import DataError, shown
from cgpt.tokenizers._lattice import Lattice
from cgpt.validation import is_list_like, plain

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>")
FIRST_BYTE = len(SPECIAL_TOKENS)
FIRST_WORD = FIRST_BYTE + 256
RESERVED = (*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)))
LONGEST_WORD = 16  # characters of a learnt word
BYTE_PENALTY = 16.0  # a byte costs this much (nats) more than the least likely word
_MIN_COUNT = 2  # a word seen once teaches a model nothing that its characters do not
_COVERAGE = 0.9995  # the rarest characters stay bytes, so that bytes are trained too
_ROUNDS = 12
_BYTES = 256  # ids below this are bytes, as a Lattice counts by itself
# The characters that jieba joins to words; everything else it cuts into single characters.
_BLOCK = re.compile(r"([\u4E00-\u9FD5a-zA-Z0-9+#&._%\-]+)")
_RUN = re.compile(r"[0-9]+|[^0-9]+")
_LONGEST_BLOCK = 4096  # characters that jieba cuts at once: its time grows with their square

Scores = dict[str, float]


def checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts, one by one. Raises DataError for what is no text, and at the end for none."""
    if not is_list_like(texts):
        what = "one string" if isinstance(texts, str) else shown(texts)
        raise DataError("Tokenizer.train: expected a list of strings, found {found}", found=what)
    found = False
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(
                "Tokenizer.train: text {n} is not a str, found {type}",
                n=number,
                type=type(text).__name__,
            )
        found = found or bool(text)
        yield plain(text)
    if not found:
        raise DataError(
            "Tokenizer.train: no text to learn a vocabulary from; give at least one "
            "string that is not empty"
        )


def learn_words(texts: Iterable[str], room: int) -> Scores:
    """At most `room` characters and words with their log-probabilities, characters first."""
    return _ordered(_learn(*_count(texts, _jieba_cut()), room))


def learn_characters(texts: Iterable[str], room: int) -> Scores:
    """The most frequent characters, at most `room`, with their log-probabilities."""
    characters: Counter[str] = Counter()
    for text in checked(texts):
        characters.update(text)
    return _ordered(
        _log_probabilities({char: characters[char] for char in _covering(characters)[:room]})
    )


def lattice(
    words: list[str],
    scores: list[float],
    byte_score: float | None = None,
    first_byte: int = 0,
    first_word: int = _BYTES,
) -> Lattice:
    """The search over these words, where a byte costs BYTE_PENALTY more than any."""
    if byte_score is None:
        byte_score = min(scores, default=0.0) - BYTE_PENALTY
    return Lattice(words, scores, byte_score, first_byte, first_word)


def _log_probabilities(counts: dict[str, int], total: int = 0) -> Scores:
    """log(count / total) in steps of 2**-20, so that sums are exact and ties are ties."""
    total = total or sum(counts.values()) or 1
    return {
        word: round(math.log((times or 0.5) / total) * 2**20) / 2**20
        for word, times in counts.items()
    }


def _ordered(scores: Scores) -> Scores:
    """Characters before words, the probable before the others."""
    order = sorted(scores, key=lambda word: (len(word) > 1, -scores[word], word))
    return {word: scores[word] for word in order}


def _jieba_cut() -> Callable[[str], Iterable[str]]:
    """jieba's cut with its full dictionary, read afresh: no cache file, no word on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its old string escapes, and pkg_resources
        import jieba
    cutter = jieba.Tokenizer()
    dictionary = os.path.join(os.path.dirname(jieba.__file__), "dict.txt")
    # `initialize` would log, and read and write a file in the temporary folder.
    with open(dictionary, "rb") as file:
        cutter.FREQ, cutter.total = cutter.gen_pfdict(file)
    cutter.initialized = True
    cut: Callable[[str], Iterable[str]] = cutter.cut
    return cut


def _count(
    texts: Iterable[str], cut: Callable[[str], Iterable[str]]
) -> tuple[Counter[str], Counter[str]]:
    """How often each of jieba's words (or a character outside them) and each character occurs."""
    characters: Counter[str] = Counter()
    blocks: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for text in checked(texts):
        characters.update(text)
        parts = _BLOCK.split(text)
        blocks.update(parts[1::2])
        units.update(chain.from_iterable(parts[::2]))
    for block, times in blocks.items():
        pieces = (block[at : at + _LONGEST_BLOCK] for at in range(0, len(block), _LONGEST_BLOCK))
        for token in chain.from_iterable(map(cut, pieces)):
            for piece in _candidates(token):
                units[piece] += times
    return units, characters


def _candidates(token: str) -> Iterable[str]:
    """A token of jieba's as the words that may be learnt from it.

    Numbers of more than four digits fall into digits and long mixtures into their runs, so that
    numbers are composed; runs of signs and overlong words fall into characters.
    """
    if len(token) == 1:
        return (token,)
    if len(token) > 4 and any(char.isdigit() for char in token):
        runs = _RUN.findall(token)
        if len(runs) > 1:
            return chain.from_iterable(map(_candidates, runs))
        return token
    if len(token) > LONGEST_WORD or not any(char.isalnum() for char in token):
        return token
    return (token,)


def _learn(units: Counter[str], characters: Counter[str], room: int) -> Scores:
    """At most `room` characters and words with their log-probabilities, none of them dead.

    A word is dead where its parts are the better path for it. Such words make way for the next
    candidates until there are none; any left after _ROUNDS are lifted to their parts' score.
    """
    counts = {char: characters[char] for char in _covering(characters)}
    counts.update(
        (word, times) for word, times in units.items() if len(word) > 1 and times >= _MIN_COUNT
    )
    # A character saves its text two of three bytes, a word one token at the least.
    ranked = iter(
        sorted(
            counts, key=lambda word: (-counts[word] * (2 if len(word) == 1 else 1), len(word), word)
        )
    )
    chosen = [*islice(ranked, room)]
    scores = _log_probabilities({word: counts[word] for word in chosen})
    for _ in range(_ROUNDS):
        scores = _estimate(units, scores)
        dead = {word for word, parts in _parts(scores, chosen) if parts > scores[word]}
        if not dead:
            break
        fresh = [*islice(ranked, len(dead))]
        chosen = [word for word in chosen if word not in dead] + fresh
        scores.update(
            _log_probabilities({word: counts[word] for word in fresh}, total=sum(units.values()))
        )
        scores = {word: scores[word] for word in chosen}
    else:
        scores = _estimate(units, scores)
    byte_score = min(scores.values(), default=0.0) - BYTE_PENALTY
    # Shorter words first: the parts of a word are final when it is looked at.
    for length in range(2, LONGEST_WORD + 1):
        words = [word for word in chosen if len(word) == length]
        for word, parts in _parts(scores, words, byte_score):
            scores[word] = max(scores[word], parts)
    return scores


def _parts(
    scores: Scores, words: list[str], byte_score: float | None = None
) -> list[tuple[str, float]]:
    """Those of the words that are no characters, with the score of the best path of their parts."""
    index = {word: number for number, word in enumerate(scores)}
    search = lattice([*scores], [*scores.values()], byte_score)
    return [(word, search.score(word, index[word])) for word in words if len(word) > 1]


def _estimate(units: Counter[str], scores: Scores) -> Scores:
    """Log-probabilities of the words when the other units are cut into them."""
    index = {word: number for number, word in enumerate(scores, _BYTES)}
    counts = [0] * (_BYTES + len(index))
    encode = lattice([*scores], [*scores.values()]).encode
    for unit, times in units.items():
        number = index.get(unit)
        if number is None:
            for part in memoryview(encode(unit)).cast("i"):
                counts[part] += times
        else:
            counts[number] += times
    return _log_probabilities(dict(zip(index, counts[_BYTES:], strict=True)))


def _covering(characters: Counter[str]) -> list[str]:
    """The most frequent characters that make up _COVERAGE of the text; no lone surrogates."""
    found, kept = 0, []
    enough = _COVERAGE * sum(characters.values())
    for char in sorted(characters, key=lambda char: (-characters[char], char)):
        if found >= enough:
            break
        found += characters[char]
        if not "\ud800" <= char <= "\udfff":
            kept.append(char)
    return kept
