"""Text to token ids and back, without loss: `decode(encode(s)) == s` for every string.

Three kinds, one interface:
words  jieba and its full dictionary are used once, to learn words from the training text; to
       encode, the path of highest probability is searched over them, then characters, then bytes
chars  the same with characters alone
bpe    byte-level byte-pair encoding: the training text alone says which bytes are put together
A saved model needs no dictionary, and no text is out of vocabulary.

Ids: 0..5 the special tokens, 6..261 the bytes, from 262 characters, words or longer byte strings.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import index
from typing import Any

import numpy as np

from cgpt import bpe, vocabulary
from cgpt._bpe import BytePairs
from cgpt._lattice import Lattice
from cgpt.config import KINDS
from cgpt.errors import ConfigError, DataError
from cgpt.forking import cached_property

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>")
FIRST_BYTE = len(SPECIAL_TOKENS)
FIRST_WORD = FIRST_BYTE + 256
_RESERVED = (*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)))
_LONGEST_STORED = 64  # characters of a word that a saved state may hold
_LARGEST_SCORE = 1e6
_FIRST_PIECES: list[str | bytes] = [""] * FIRST_BYTE + [bytes([byte]) for byte in range(256)]


class Tokenizer:
    """A vocabulary of one of the KINDS; made by `Tokenizer.train` or `Tokenizer.from_state`.

    Special tokens are never made from text: a text that reads "<eos>" or "<0x41>" is encoded as
    these characters.
    """

    pad_id, bos_id, eos_id, user_id, assistant_id, system_id = range(FIRST_BYTE)
    special_ids: Sequence[int] = range(FIRST_BYTE)

    def __init__(self, words: list[str], scores: list[float], kind: str = "words") -> None:
        """words of id 262 and up with their log-probabilities; checked by `from_state`.

        In a vocabulary of kind "bpe" words are names as `bpe.name_of` gives them.
        """
        self._words, self._scores, self._kind = list(words), list(scores), kind
        self._pieces = [*_FIRST_PIECES, *(map(bpe.token_of, words) if kind == "bpe" else words)]

    @cached_property    # with the first text, so that a model is loaded sooner
    def _encoder(self) -> Lattice | BytePairs:
        if self._kind == "bpe":
            return BytePairs(self._pieces[FIRST_WORD:], FIRST_BYTE, FIRST_WORD)
        return vocabulary.lattice(self._words, self._scores, None, FIRST_BYTE, FIRST_WORD)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 8192,
              kind: str = "words") -> Tokenizer:
        """Learn a vocabulary of at most vocab_size tokens, specials and bytes included.

        The same texts in any order give the same vocabulary on any machine. Small texts give
        fewer tokens. Raises ConfigError where vocab_size leaves no room for a character or the
        kind is none of KINDS, DataError where there is no text.
        """
        _check_size(vocab_size)
        _check_kind(kind)
        room = vocab_size - FIRST_WORD
        if kind == "bpe":
            names = bpe.learn_pairs(texts, room, frozenset(_RESERVED))
            return cls(names, [0.0] * len(names), kind)
        learn = vocabulary.learn_words if kind == "words" else vocabulary.learn_characters
        scores = learn(texts, room)
        return cls([*scores], [*scores.values()], kind)

    @property
    def kind(self) -> str:
        """"words", "chars" or "bpe"."""
        return self._kind

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        words, chars  the most probable path; of equal ones that with the longer last word
        bpe           in pieces that no token reaches over, the oldest pair first
        """
        return memoryview(self.encode_bytes(text)).cast("i").tolist()

    def encode_bytes(self, text: str) -> bytes:
        """The same ids as the bytes of native int32, for `numpy.frombuffer`."""
        if not isinstance(text, str):
            raise DataError(f"Tokenizer.encode: expected a str, found {type(text).__name__}")
        return self._encoder.encode(text)

    def encode_many(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids of all texts end to end int32, how many each text has int64).

        Computes without the GIL, so that Python threads may encode side by side.
        """
        ids, counts = self._encoder.encode_many(texts)
        return np.frombuffer(ids, np.int32), np.frombuffer(counts, np.int64)

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

    def token_bytes(self) -> list[bytes]:
        """What each token adds to a text, as UTF-8 that may be part of a character."""
        return [piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass")
                for piece in self._pieces]

    def fingerprint(self) -> str:
        """Hexadecimal digest of all that the ids of a text follow from."""
        return blake2b(json.dumps(self.to_state()).encode(), digest_size=16).hexdigest()

    def to_state(self) -> dict[str, Any]:
        """What is saved: "words" of id 262 and up, "scores" their log-probabilities (nats), and
        the "kind" where it is not "words"."""
        kind = {} if self._kind == "words" else {"kind": self._kind}
        return {"words": list(self._words), "scores": list(self._scores), **kind}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that `to_state` described. Raises DataError naming what is wrong."""
        return cls(*_check_state(state))

    def __len__(self) -> int:
        return FIRST_WORD + len(self._words)

    def __repr__(self) -> str:
        return f"Tokenizer({self._kind}, {len(self)} tokens)"


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


def _check_size(vocab_size: int) -> None:
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int):
        raise ConfigError(f"vocab_size must be a whole number, found {vocab_size!r}")
    if vocab_size <= FIRST_WORD:
        raise ConfigError(
            f"vocab_size must be at least {FIRST_WORD + 1} ({FIRST_BYTE} special tokens, 256 bytes "
            f"and a character), found {vocab_size}")


def _check_kind(kind: object) -> str:
    if kind not in KINDS:
        raise ConfigError(f"tokenizer: unknown kind {kind!r:.60}; known: {', '.join(KINDS)}")
    return str(kind)


def _check_state(state: Mapping[str, Any]) -> tuple[list[str], list[float], str]:
    """words, scores and kind of a saved tokenizer, checked. Raises DataError."""
    words, scores = saved_lists(state)
    kind = state.get("kind", "words")
    if kind not in KINDS:
        raise DataError(f"saved vocabulary: unknown kind {kind!r:.60}; known: {', '.join(KINDS)}")
    check_words(words, FIRST_WORD, _RESERVED, lambda number, word: _check_word(kind, number, word))
    return words, checked_scores(scores, FIRST_WORD), kind


def saved_lists(state: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """What a saved tokenizer has under "words" and "scores". Raises DataError."""
    where = "saved vocabulary"
    if not isinstance(state, Mapping) or not {"words", "scores"} <= set(state):
        raise DataError(f"{where}: expected an object with 'words' and 'scores'")
    words, scores = state["words"], state["scores"]
    if not isinstance(words, list) or not isinstance(scores, list) or len(words) != len(scores):
        raise DataError(f"{where}: expected two lists of one length under 'words' and 'scores'")
    return words, scores


def check_words(words: list[Any], first: int, taken: Iterable[str] = (),
                further: Callable[[int, str], object] | None = None) -> None:
    """Raises DataError for the first word that cannot be one or occurs twice.

    first    id of words[0];  taken  words that there are already
    further  called as further(id, word) to refuse more
    """
    where, seen = "saved vocabulary", set(taken)
    for number, word in enumerate(words, first):
        if not isinstance(word, str) or not 0 < len(word) <= _LONGEST_STORED:
            raise DataError(f"{where}: word {number} must be a string of 1 to {_LONGEST_STORED} "
                            f"characters, found {word!r:.100}")
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise DataError(f"{where}: word {number} holds half a character, found {word!a}")
        if word in seen:
            raise DataError(f"{where}: word {number} occurs twice, found {word!r}")
        if further is not None:
            further(number, word)
        seen.add(word)


def checked_scores(scores: list[Any], first: int, allowed: Collection[float] = ()) -> list[float]:
    """The scores as floats; those in `allowed` may be infinite. Raises DataError.

    first  id of the word of scores[0]
    """
    for number, score in enumerate(scores, first):
        if isinstance(score, bool) or not isinstance(score, (int, float)) \
                or not (score in allowed or abs(score) <= _LARGEST_SCORE):
            raise DataError(f"saved vocabulary: the score of word {number} must be a finite "
                            f"number, found {score!r:.100}")
    return [float(score) for score in scores]


def _check_word(kind: str, number: int, word: str) -> None:
    """Raises DataError for a word that this kind of vocabulary cannot have."""
    if kind == "chars" and len(word) > 1:
        raise DataError(f"saved vocabulary: word {number} must be one character in a vocabulary of "
                        f"characters, found {word!r}")
    if kind == "bpe":
        try:
            size = len(bpe.token_of(word))
        except ValueError:
            raise DataError(f"saved vocabulary: word {number} must be written in the characters "
                            f"that stand for bytes, found {word!r}") from None
        if size < 2:
            raise DataError(f"saved vocabulary: word {number} must stand for at least two bytes, "
                            f"found {word!r}")
