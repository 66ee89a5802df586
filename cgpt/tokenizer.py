"""Words, characters and bytes: text to token ids and back, without loss.

jieba and its full dictionary are used once, to learn the vocabulary from the training text. To
encode, the path of highest probability is searched over the model's own words, then characters,
then UTF-8 bytes: no text is out of vocabulary, `decode(encode(s)) == s` for every string, and a
saved model needs no dictionary.

Ids: 0..5 the special tokens, 6..261 the bytes, from 262 characters and words.
"""

from __future__ import annotations

import codecs
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import chain, compress, count, islice
from operator import add, index, not_
from typing import Any

from cgpt.errors import ConfigError, DataError

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>")
FIRST_BYTE = len(SPECIAL_TOKENS)
FIRST_WORD = FIRST_BYTE + 256
_RESERVED = (*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)))

LONGEST_WORD = 16  # characters of a learnt word
_LONGEST_STORED = 64  # characters of a word that a saved state may hold
_LARGEST_SCORE = 1e6
_MIN_COUNT = 2  # a word seen once teaches a model nothing that its characters do not
_COVERAGE = 0.9995  # the rarest characters stay bytes, so that bytes are trained too
_BYTE_PENALTY = 16.0  # a byte costs this much (nats) more than the least likely word
_ROUNDS = 12
_CACHED_PIECES = 1 << 16
_CACHED_LENGTH = 24
# The characters that jieba joins to words; everything else it cuts into single characters.
_BLOCK = re.compile(r"([\u4E00-\u9FD5a-zA-Z0-9+#&._%\-]+)")
_RUN = re.compile(r"[0-9]+|[^0-9]+")
_FIRST_PIECES: list[str | bytes] = [""] * FIRST_BYTE + [bytes([byte]) for byte in range(256)]


class Tokenizer:
    """A vocabulary with log-probabilities; made by `Tokenizer.train` or `Tokenizer.from_state`.

    Special tokens are never made from text: a text that reads "<eos>" or "<0x41>" is encoded as
    these characters.
    """

    pad_id, bos_id, eos_id, user_id, assistant_id, system_id = range(FIRST_BYTE)

    def __init__(self, words: list[str], scores: list[float]) -> None:
        """words of id 262 and up with their log-probabilities; checked by `from_state`."""
        self._words, self._scores = list(words), list(scores)
        self._cache: dict[str, tuple[int, ...]] = {}
        self._pieces = [*_FIRST_PIECES, *words]

    @cached_property    # with the first text, so that a model is loaded sooner
    def _lattice(self) -> _Lattice:
        return _Lattice(dict(zip(self._words, self._scores, strict=True)))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: id for id, word in enumerate(self._words, FIRST_WORD)}

    @cached_property
    def _inside(self) -> frozenset[str]:
        """Pairs of characters inside a word; between two others every path cuts the text."""
        return frozenset(word[i:i + 2] for word in self._words for i in range(len(word) - 1))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 8192) -> Tokenizer:
        """Learn a vocabulary of at most vocab_size tokens, specials and bytes included.

        The same texts in any order give the same vocabulary on any machine. Small texts give
        fewer tokens. Raises ConfigError where vocab_size leaves no room for a character,
        DataError where there is no text.
        """
        _check_size(vocab_size)
        units, characters = _count(texts, _jieba_cut())
        scores = _learn(units, characters, vocab_size - FIRST_WORD)
        order = sorted(scores, key=lambda word: (len(word) > 1, -scores[word], word))
        return cls(order, [scores[word] for word in order])

    def encode(self, text: str) -> list[int]:
        """The ids of the most probable path; equal paths: the longer last word wins."""
        if not isinstance(text, str):
            raise DataError(f"Tokenizer.encode: expected a str, found {type(text).__name__}")
        pairs = map(add, text, islice(text, 1, None))
        cuts = [*compress(count(1), map(not_, map(self._inside.__contains__, pairs)))]
        cache, ids = self._cache, []
        for start, end in zip(chain((0,), cuts), chain(cuts, (len(text),)), strict=True):
            piece = text[start:end]
            found = cache.get(piece)
            ids += self._encode_piece(piece) if found is None else found
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; specials are skipped, bytes that are no UTF-8 become U+FFFD.

        Raises DataError for an id outside the vocabulary.
        """
        decoder = self.decoder()
        return "".join(map(decoder.push, ids)) + decoder.flush()

    def decoder(self) -> StreamDecoder:
        """A decoder that takes one id at a time and never gives half a character."""
        return StreamDecoder(self._pieces)

    @property
    def words(self) -> list[str]:
        """Every token's name in id order: specials, "<0x00>".. for the bytes, then the words."""
        return [*_RESERVED, *self._words]

    def to_state(self) -> dict[str, Any]:
        """What is saved: "words" of id 262 and up, "scores" their log-probabilities (nats)."""
        return {"words": list(self._words), "scores": list(self._scores)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that `to_state` described. Raises DataError naming what is wrong."""
        return cls(*_check_state(state))

    def __len__(self) -> int:
        return FIRST_WORD + len(self._words)

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} tokens)"

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        ids: list[int] = []
        for word in self._lattice.path(piece)[1]:
            found = self._ids.get(word)
            if found is None:
                ids.extend(FIRST_BYTE + byte for byte in word.encode("utf-8", "surrogatepass"))
            else:
                ids.append(found)
        result = tuple(ids)
        if len(piece) <= _CACHED_LENGTH:
            if len(self._cache) >= _CACHED_PIECES:
                self._cache.clear()
            self._cache[piece] = result
        return result


class StreamDecoder:
    """Ids in, whole characters out; an incomplete UTF-8 sequence waits for its next byte.

    What the pushes and the flush give, put together, equals `Tokenizer.decode` of the same ids.
    """

    def __init__(self, pieces: list[str | bytes]) -> None:
        self._pieces = pieces
        self._waiting = b""

    def push(self, token: int) -> str:
        """The text that `token` completes: "" for a special token or half a character."""
        try:
            number = index(token)
        except TypeError:
            raise DataError(f"token ids are whole numbers, found {token!r}") from None
        if not 0 <= number < len(self._pieces):
            raise DataError(f"token id {number} is outside the vocabulary, "
                            f"expected 0 to {len(self._pieces) - 1}")
        piece = self._pieces[number]
        if isinstance(piece, bytes):
            text, self._waiting = _decode_utf8(self._waiting + piece, final=False)
            return text
        return self.flush() + piece if self._waiting and piece else piece

    def flush(self) -> str:
        """What still waits, as U+FFFD; the decoder is then as new."""
        text, self._waiting = _decode_utf8(self._waiting, final=True)
        return text


def _decode_utf8(data: bytes, final: bool) -> tuple[str, bytes]:
    """Text and the bytes that may still become a character.

    As errors="replace", but an encoded lone surrogate gives that surrogate back.
    """
    text = ""
    while data:
        try:
            part, used = codecs.utf_8_decode(data, "surrogatepass", final)
            return text + part, data[used:]
        except UnicodeDecodeError as error:
            text += data[:error.start].decode("utf-8", "surrogatepass") + "\ufffd"
            data = data[error.end:]
    return text, b""


class _Lattice:
    """Words with log-probabilities, and the most probable path through a text."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        lengths: dict[str, set[int]] = {}
        for word in scores:
            lengths.setdefault(word[0], {1}).add(len(word))
        self.lengths = {first: tuple(sorted(found)) for first, found in lengths.items()}
        self.byte_score = min(scores.values(), default=0.0) - _BYTE_PENALTY

    def path(self, text: str) -> tuple[float, list[str]]:
        """Score and words of the best path; a character that is no word stands for its bytes."""
        size = len(text)
        if size == 1:
            return self.scores.get(text, 0.0), [text]
        best = [-math.inf] * (size + 1)
        best[0] = 0.0
        origin = [0] * (size + 1)
        scores, lengths = self.scores.get, self.lengths.get
        # Starts in rising order and a strict comparison: of equal paths, the longer last word.
        for start, first in enumerate(text):
            here = best[start]
            for length in lengths(first, (1,)):
                end = start + length
                if end > size:
                    break
                score = scores(text[start:end])
                if score is None:
                    if length > 1:
                        continue
                    score = self.byte_score * len(first.encode("utf-8", "surrogatepass"))
                if here + score > best[end]:
                    best[end], origin[end] = here + score, start
        words, end = [], size
        while end:
            words.append(text[origin[end]:end])
            end = origin[end]
        return best[size], words[::-1]

    def without(self, word: str) -> float:
        """Score of the best path of `word` that does not use `word` itself."""
        own, self.scores[word] = self.scores[word], -math.inf
        best = self.path(word)[0]
        self.scores[word] = own
        return best


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
    return cutter.cut


def _count(texts: Iterable[str],
           cut: Callable[[str], Iterable[str]]) -> tuple[Counter[str], Counter[str]]:
    """How often each of jieba's words (or a character outside them) and each character occurs."""
    if isinstance(texts, (str, bytes)):
        raise DataError("Tokenizer.train: expected a list of strings, found one string")
    characters: Counter[str] = Counter()
    blocks: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(
                f"Tokenizer.train: text {number} is not a str, found {type(text).__name__}")
        characters.update(text)
        parts = _BLOCK.split(text)
        blocks.update(parts[1::2])
        units.update(chain.from_iterable(parts[::2]))
    if not characters:
        raise DataError("Tokenizer.train: no text to learn a vocabulary from; give at least one "
                        "string that is not empty")
    for block, times in blocks.items():
        for token in cut(block):
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


def _learn(units: Counter[str], characters: Counter[str], room: int) -> dict[str, float]:
    """At most `room` characters and words with their log-probabilities, none of them dead.

    A word is dead where its parts are the better path for it. Such words make way for the next
    candidates until there are none; any left after _ROUNDS are lifted to their parts' score.
    """
    counts = {char: characters[char] for char in _covering(characters)}
    counts.update((word, times) for word, times in units.items()
                  if len(word) > 1 and times >= _MIN_COUNT)
    # A character saves its text two of three bytes, a word one token at the least.
    ranked = iter(sorted(counts, key=lambda word: (-counts[word] * (2 if len(word) == 1 else 1),
                                                   len(word), word)))
    chosen = [*islice(ranked, room)]
    lattice = _Lattice(_log_probabilities({word: counts[word] for word in chosen}))
    for _ in range(_ROUNDS):
        lattice = _Lattice(_estimate(units, chosen, lattice))
        dead = {word for word in chosen
                if len(word) > 1 and lattice.without(word) > lattice.scores[word]}
        if not dead:
            break
        fresh = [*islice(ranked, len(dead))]
        chosen = [word for word in chosen if word not in dead] + fresh
        scores = _log_probabilities({word: counts[word] for word in fresh},
                                    total=sum(units.values()))
        lattice = _Lattice({word: scores.get(word, lattice.scores.get(word, 0.0))
                            for word in chosen})
    else:
        lattice = _Lattice(_estimate(units, chosen, lattice))
    # Shorter words first: the parts of a word are final when it is looked at.
    for word in sorted(chosen, key=len):
        if len(word) > 1:
            lattice.scores[word] = max(lattice.scores[word], lattice.without(word))
    return lattice.scores


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


def _estimate(units: Counter[str], chosen: list[str], lattice: _Lattice) -> dict[str, float]:
    """Log-probabilities of the chosen words when the other units are cut into them."""
    counts = dict.fromkeys(chosen, 0)
    for unit, times in units.items():
        for word in (unit,) if unit in counts else lattice.path(unit)[1]:
            if word in counts:
                counts[word] += times
    return _log_probabilities(counts)


def _log_probabilities(counts: dict[str, int], total: int = 0) -> dict[str, float]:
    """log(count / total) in steps of 2**-20, so that sums are exact and ties are ties."""
    total = total or sum(counts.values()) or 1
    return {word: round(math.log((times or 0.5) / total) * 2 ** 20) / 2 ** 20
            for word, times in counts.items()}


def _check_size(vocab_size: int) -> None:
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int):
        raise ConfigError(f"vocab_size must be a whole number, found {vocab_size!r}")
    if vocab_size <= FIRST_WORD:
        raise ConfigError(
            f"vocab_size must be at least {FIRST_WORD + 1} ({FIRST_BYTE} special tokens, 256 bytes "
            f"and a character), found {vocab_size}")


def _check_state(state: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """words and scores of a saved tokenizer, checked. Raises DataError."""
    where = "saved vocabulary"
    if not isinstance(state, Mapping) or not {"words", "scores"} <= set(state):
        raise DataError(f"{where}: expected an object with 'words' and 'scores'")
    words, scores = state["words"], state["scores"]
    if not isinstance(words, list) or not isinstance(scores, list) or len(words) != len(scores):
        raise DataError(f"{where}: expected two lists of one length under 'words' and 'scores'")
    seen = set(_RESERVED)
    for number, word in enumerate(words, FIRST_WORD):
        if not isinstance(word, str) or not 0 < len(word) <= _LONGEST_STORED:
            raise DataError(f"{where}: word {number} must be a string of 1 to {_LONGEST_STORED} "
                            f"characters, found {word!r:.100}")
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise DataError(f"{where}: word {number} holds half a character, found {word!a}")
        if word in seen:
            raise DataError(f"{where}: word {number} occurs twice, found {word!r}")
        seen.add(word)
    for number, score in enumerate(scores, FIRST_WORD):
        if isinstance(score, bool) or not isinstance(score, (int, float)) \
                or not abs(score) <= _LARGEST_SCORE:
            raise DataError(f"{where}: the score of word {number} must be a finite number, "
                            f"found {score!r:.100}")
    return words, [float(score) for score in scores]
