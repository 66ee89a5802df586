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
import os
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from operator import index
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cgpt.config import KINDS, MAX_VOCAB_SIZE
from cgpt.errors import ConfigError, DataError, Phrase, as_reason, shown
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.file_errors import damaged
from cgpt.fileio.json_file import JsonFile
from cgpt.runtime.forking import cached_property
from cgpt.tokenizers import bpe, rustgpt, vocabulary, vocabulary_file
from cgpt.tokenizers._bpe import BytePairs
from cgpt.tokenizers._lattice import Lattice
from cgpt.tokenizers.rustgpt import MARKS, NEVER, SPECIAL, WordPaths
from cgpt.tokenizers.vocabulary import FIRST_BYTE, FIRST_WORD, RESERVED
from cgpt.validation import (
    check_bool,
    check_choice,
    check_int,
    is_list_like,
    is_number,
    path_text,
    plain,
    text_list,
)

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
        """words of id 262 and up with their log-probabilities (nats).

        In a vocabulary of kind "bpe" words are names as `bpe.name_of` gives them.
        Raises DataError naming what is wrong.
        """
        words, scores, kind = _check_state({"words": words, "scores": scores, "kind": kind})
        self._words, self._scores, self._kind = list(words), scores, kind
        self._pieces = [*_FIRST_PIECES, *(map(bpe.token_of, words) if kind == "bpe" else words)]

    @cached_property  # with the first text, so that a model is loaded sooner
    def _encoder(self) -> Lattice | BytePairs:
        if self._kind == "bpe":
            return BytePairs(cast("list[bytes]", self._pieces[FIRST_WORD:]), FIRST_BYTE, FIRST_WORD)
        return vocabulary.lattice(self._words, self._scores, None, FIRST_BYTE, FIRST_WORD)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 8192, kind: str = "words") -> Tokenizer:
        """Learn a vocabulary of at most vocab_size tokens, specials and bytes included.

        The same texts in any order give the same vocabulary on any machine. Small texts give
        fewer tokens. Raises ConfigError where vocab_size leaves no room for a character or the
        kind is none of KINDS, DataError where there is no text.
        """
        room, kind = _check_size(vocab_size) - FIRST_WORD, _check_kind(kind)
        if kind == "bpe":
            names = bpe.learn_pairs(texts, room, frozenset(RESERVED))
            return cls(names, [0.0] * len(names), kind)
        learn = vocabulary.learn_words if kind == "words" else vocabulary.learn_characters
        scores = learn(texts, room)
        return cls([*scores], [*scores.values()], kind)

    @property
    def kind(self) -> str:
        """ "words", "chars" or "bpe"."""
        return self._kind

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """The ids of a text.

        words, chars  the most probable path; of equal ones that with the longer last word
        bpe           in pieces that no token reaches over, the oldest pair first
        specials      whether names of special tokens in the text, such as "<eos>", become these
                      tokens, as `decode(ids, specials=True)` writes them. Not for texts of others:
                      whoever writes them could then end a turn and begin another
        Raises DataError for what is no text.
        """
        text = self._text(text)
        if specials is False or not check_bool("Tokenizer.encode", "specials", specials):
            return self._encode(text)
        names = "|".join(re.escape(self._names[id]) for id in self.special_ids)
        parts = re.split(f"({names})", text)
        return [
            id
            for i, part in enumerate(parts)
            for id in ([self._ids[part]] if i % 2 else self._encode(part))
        ]

    def _encode(self, text: str) -> list[int]:
        return memoryview(self._encoder.encode(text)).cast("i").tolist()

    @staticmethod
    def _text(text: object, call: str = "encode") -> str:
        """A text as plain str. Raises DataError for anything else."""
        if type(text) is not str:
            text = plain(text)
            if not isinstance(text, str):
                raise DataError(
                    "Tokenizer.{call}: expected a str, found {type}",
                    call=call,
                    type=type(text).__name__,
                )
        return text

    def encode_bytes(self, text: str) -> bytes:
        """The same ids as the bytes of native int32, for `numpy.frombuffer`."""
        return self._encoder.encode(self._text(text, "encode_bytes"))

    def encode_many(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(ids of all texts end to end int32, how many each text has int64).

        Computes without the GIL, so that Python threads may encode side by side.
        Raises DataError naming the first that is no text.
        """
        ids, counts = self._encoder.encode_many(listed(texts))
        return np.frombuffer(ids, np.int32), np.frombuffer(counts, np.int64)

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of the ids; bytes that are no UTF-8 become U+FFFD.

        specials  whether special tokens are written by their names ("<eos>"); else they are skipped
        Raises DataError for an id outside the vocabulary, or what are no ids.
        """
        if not is_list_like(ids):
            raise DataError(
                "Tokenizer.decode: expected a list of token ids, found {found}", found=shown(ids)
            )
        if isinstance(ids, np.ndarray):
            if ids.ndim != 1:
                raise DataError(
                    "Tokenizer.decode: expected a list of token ids, found an array of "
                    "shape {shape}",
                    shape=ids.shape,
                )
            ids = ids.tolist()
        decoder = self.decoder(specials=specials)
        return "".join(map(decoder.push, ids)) + decoder.flush()

    def decoder(self, *, specials: bool = False) -> StreamDecoder:
        """A decoder that takes one id at a time and never gives half a character.

        specials  as of `decode`
        """
        return StreamDecoder(self._shown(specials))

    def _shown(self, specials: bool) -> list[str | bytes]:
        """What each token is decoded to."""
        if not check_bool("Tokenizer.decode", "specials", specials):
            return self._pieces
        return self._named

    @cached_property
    def _named(self) -> list[str | bytes]:
        found, names = list(self._pieces), self._names
        for id in self.special_ids:
            found[id] = names[id]
        return found

    @property
    def words(self) -> list[str]:
        """Every token's name in id order: specials, "<0x00>".. for the bytes, then the words."""
        return [*RESERVED, *self._words]

    @property
    def vocab(self) -> dict[str, int]:
        """Name -> id of every token, in id order; names as `words` has them."""
        return dict(self._ids)

    @cached_property
    def _names(self) -> list[str]:
        return self.words

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: id for id, name in enumerate(self._names)}

    def token_to_id(self, token: str) -> int | None:
        """The id of the token with this name; None where there is none.

        A vocabulary of bytes ("bpe") names its tokens by characters that stand for bytes, which of
        ASCII without blanks are themselves. Raises DataError for what is no str.
        """
        return self._ids.get(self._text(token, "token_to_id"))

    def id_to_token(self, id: int) -> str:
        """A token's name: "<eos>", "<0x41>", a word. Raises DataError outside the vocabulary."""
        return self._names[checked_id(id, len(self))]

    def token_bytes(self) -> list[bytes]:
        """What each token adds to a text, as UTF-8 that may be part of a character."""
        return [
            piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass")
            for piece in self._pieces
        ]

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
        words, scores = saved_lists(state)
        return cls(words, scores, state.get("kind", "words"))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vocabulary as a small JSON file; the path holds the old or the new one.

        Returns the path. Raises CheckpointError (code "write") with the reason.
        """
        return vocabulary_file.save(path_text("Tokenizer.save", path), self.kind, self.to_state())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """The vocabulary that `save` wrote, or that of a model file.

        Raises CheckpointError with code missing, damaged, version or foreign.
        """
        path = path_text("Tokenizer.load", path)
        state = vocabulary_file.read(path)
        found = _built(path, state)
        if "crc32" in state:
            checksum = vocabulary_file.checksum(found.kind, found.to_state())
            if checksum != state["crc32"]:
                raise damaged(
                    path,
                    Phrase("a vocabulary with checksum {crc}", crc=checksum),
                    shown(state["crc32"]),
                )
        return found

    def __eq__(self, other: object) -> bool:
        """Whether both give every text the same ids and every id the same text."""
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return (self._kind, self._words, self._scores) == (other._kind, other._words, other._scores)

    def __hash__(self) -> int:
        return hash((self._kind, len(self._words), *self._words[-1:]))

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: what is saved of it, and no code."""
        return _restored, (type(self), self.to_state())

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

    def __repr__(self) -> str:
        return f"StreamDecoder({len(self._pieces)} tokens, {len(self._waiting)} bytes waiting)"

    def push(self, token: int) -> str:
        """The text that `token` completes: "" for a special token or half a character."""
        piece = self._pieces[checked_id(token, len(self._pieces))]
        if isinstance(piece, bytes):
            text, self._waiting = _decode_utf8(self._waiting + piece, final=False)
            return text
        return self.flush() + piece if self._waiting and piece else piece

    def flush(self) -> str:
        """What still waits, as U+FFFD; the decoder is then as new."""
        text, self._waiting = _decode_utf8(self._waiting, final=True)
        return text


class RustTokenizer(Tokenizer):
    """The words of an imported RustGPT-Chinese model in id order; made by `from_state`.

    marks    texts before a question and an answer, those of the two generations that the
             vocabulary knows
    opening  tokens before a text that is trained on: <|bos|> where its score is not -inf
    Whitespace is dropped, as it was in training; decoded words that letters or digits would join
    have a space between them. What encode() makes <|unk|> is lost.
    """

    KIND = rustgpt.KIND

    def __init__(self, words: list[str], scores: list[float]) -> None:
        """Checked by `from_state`."""
        self._words, self._scores, self._kind = list(words), list(scores), self.KIND
        ids = {word: id for id, word in enumerate(words)}
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = (ids[word] for word in SPECIAL[:4])
        self.special_ids = sorted(ids[word] for word in SPECIAL if word in ids)
        self._pieces = ["" if word in SPECIAL else word for word in words]
        self._word_paths = WordPaths(self._pieces, scores, self.unk_id)
        self.opening = [self.bos_id] if scores[self.bos_id] > NEVER else []
        self.marks = next(
            (marks for marks in MARKS if self.unk_id not in self.encode("".join(marks))), MARKS[0]
        )
        self.user_id, self.assistant_id = (self.encode(mark)[0] for mark in self.marks)

    def _encode(self, text: str) -> list[int]:
        return self._word_paths.encode(text)

    def encode_bytes(self, text: str) -> bytes:
        """The ids as the bytes of native int32."""
        return array("i", self.encode(self._text(text, "encode_bytes"))).tobytes()

    def encode_many(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        found = [self._encode(text) for text in listed(texts)]
        return (
            np.array([*chain.from_iterable(found)], np.int32),
            np.array([*map(len, found)], np.int64),
        )

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
        return cls(*_check_rust_state(state))

    def __len__(self) -> int:
        return len(self._words)


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


def tokenizer_of(file: BinaryFile | JsonFile) -> Tokenizer:
    """The tokenizer of an open model file. Raises CheckpointError."""
    return _built(file.path, vocabulary_file.state_of(file))


def _built(path: object, state: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a state in a file. Raises CheckpointError (code "damaged")."""
    kind = RustTokenizer if state.get("kind") == RustTokenizer.KIND else Tokenizer
    try:
        return kind.from_state(state)
    except DataError as error:
        raise damaged(
            path,
            Phrase("a vocabulary that cannot be ({reason})", reason=as_reason(error)),
            "a valid one",
        ) from None


def checked_id(token: Any, size: int) -> int:
    """A token id as a plain int. Raises DataError for what is none, or is `size` or more."""
    try:
        number = index(token)
    except TypeError:
        raise DataError("token ids are whole numbers, found {value}", value=shown(token)) from None
    if isinstance(token, bool):
        raise DataError("token ids are whole numbers, found {value}", value=token)
    if not 0 <= number < size:
        raise DataError(
            "token id {value} is outside the vocabulary, expected 0 to {most}",
            value=shown(number),
            most=size - 1,
        )
    return int(number)


def listed(texts: Iterable[str]) -> list[str]:
    """The texts of a list. Raises DataError for one by itself, or naming the first that is none."""
    if isinstance(texts, str):
        raise DataError("Tokenizer.encode_many: expected a list of texts, found one string")
    return text_list("Tokenizer.encode_many", texts)


def _restored(kind: type[Tokenizer], state: dict[str, Any]) -> Tokenizer:
    """The tokenizer that Tokenizer.__reduce__ took apart."""
    return kind.from_state(state)


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
            text += data[: error.start].decode("utf-8", "surrogatepass") + "\ufffd"
            data = data[error.end :]
    return text, b""


def _check_size(vocab_size: int) -> int:
    vocab_size = check_int("Tokenizer.train", "vocab_size", vocab_size, 0, MAX_VOCAB_SIZE)
    if vocab_size <= FIRST_WORD:
        raise ConfigError(
            "vocab_size must be at least {least} ({special} special tokens, 256 bytes and "
            "a character), found {value}",
            least=FIRST_WORD + 1,
            special=FIRST_BYTE,
            value=vocab_size,
        )
    return vocab_size


def _check_kind(kind: object) -> str:
    return check_choice("tokenizer", "kind", kind, KINDS)


def _check_state(state: Mapping[str, Any]) -> tuple[list[str], list[float], str]:
    """words, scores and kind of a saved tokenizer, checked. Raises DataError."""
    words, scores = saved_lists(state)
    kind = plain(state.get("kind", "words"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            "saved vocabulary: unknown kind {value}; known: {known}",
            value=shown(kind),
            known=list(KINDS),
        )
    check_words(words, FIRST_WORD, RESERVED, lambda number, word: _check_word(kind, number, word))
    return words, checked_scores(scores, FIRST_WORD), kind


def _check_rust_state(state: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """words and scores of a saved tokenizer, checked. Raises DataError."""
    words, given = saved_lists(state)
    check_words(words, 0)
    for name in SPECIAL[:4]:
        if name not in words:
            raise DataError("saved vocabulary: the special token '{name}' is missing", name=name)
    scores = [NEVER if score is None else score for score in given]
    return words, checked_scores(scores, 0, (NEVER,))


def saved_lists(state: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """What a saved tokenizer has under "words" and "scores". Raises DataError."""
    where = Phrase("saved vocabulary")
    if not isinstance(state, Mapping) or not {"words", "scores"} <= set(state):
        raise DataError("{where}: expected an object with 'words' and 'scores'", where=where)
    words, scores = state["words"], state["scores"]
    if not isinstance(words, list) or not isinstance(scores, list) or len(words) != len(scores):
        raise DataError(
            "{where}: expected two lists of one length under 'words' and 'scores'", where=where
        )
    return words, scores


def check_words(
    words: list[Any],
    first: int,
    taken: Iterable[str] = (),
    further: Callable[[int, str], object] | None = None,
) -> None:
    """Raises DataError for the first word that cannot be one or occurs twice.

    first    id of words[0];  taken  words that there are already
    further  called as further(id, word) to refuse more
    """
    where, seen = Phrase("saved vocabulary"), set(taken)
    for number, word in enumerate(words, first):
        if not isinstance(word, str) or not 0 < len(word) <= _LONGEST_STORED:
            raise DataError(
                "{where}: word {number} must be a string of 1 to {longest_stored} "
                "characters, found {word}",
                where=where,
                number=number,
                longest_stored=_LONGEST_STORED,
                word=shown(word, 100),
            )
        if any("\ud800" <= char <= "\udfff" for char in word):
            raise DataError(
                "{where}: word {number} holds half a character, found {word}",
                where=where,
                number=number,
                word=ascii(word),
            )
        if word in seen:
            raise DataError(
                "{where}: word {number} occurs twice, found {word}",
                where=where,
                number=number,
                word=shown(word),
            )
        if further is not None:
            further(number, word)
        seen.add(word)


def checked_scores(scores: list[Any], first: int, allowed: Collection[float] = ()) -> list[float]:
    """The scores as floats; those in `allowed` may be infinite. Raises DataError.

    first  id of the word of scores[0]
    """
    for number, score in enumerate(scores, first):
        if not is_number(score) or not (score in allowed or abs(score) <= _LARGEST_SCORE):
            raise DataError(
                "saved vocabulary: the score of word {n} must be a finite number, found {value}",
                n=number,
                value=shown(score, 100),
            )
    return [float(score) for score in scores]


def _check_word(kind: str, number: int, word: str) -> None:
    """Raises DataError for a word that this kind of vocabulary cannot have."""
    if kind == "chars" and len(word) > 1:
        raise DataError(
            "saved vocabulary: word {n} must be one character in a vocabulary of "
            "characters, found {value}",
            n=number,
            value=shown(word),
        )
    if kind == "bpe":
        try:
            size = len(bpe.token_of(word))
        except ValueError:
            raise DataError(
                "saved vocabulary: word {n} must be written in the characters that stand "
                "for bytes, found {value}",
                n=number,
                value=shown(word),
            ) from None
        if size < 2:
            raise DataError(
                "saved vocabulary: word {n} must stand for at least two bytes, found {value}",
                n=number,
                value=shown(word),
            )
