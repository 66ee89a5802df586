"""Vocabularies in files: a small JSON file of their own, or inside a model file.

    {"format": "cgpt-tokenizer", "version": 1, "kind": "words", "words": [...], "scores": [...],
     "crc32": "0123abcd"}
The checksum is the CRC-32 of the ASCII JSON of [kind, words, scores] as Python writes it. A file
without one is read too. What is read is the state of a tokenizer, which `Tokenizer.from_state`
checks further.
"""

from __future__ import annotations

import json
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.config import KINDS
from cgpt.errors import ConfigError, Phrase, as_reason, shown
from cgpt.fileio import strict_json
from cgpt.fileio._codec import crc32
from cgpt.fileio.atomic import Output, write_file
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.file_errors import damaged, not_saved, other_version
from cgpt.fileio.file_kind import format_of
from cgpt.fileio.format_v1 import ADAPTED, VOCABULARY, Kind
from cgpt.fileio.json_file import JsonFile
from cgpt.fileio.open_file import OpenFile
from cgpt.fileio.strict_json import check_object, check_text_size, parse_json, parsed_size
from cgpt.locale import N_
from cgpt.tokenizers.rustgpt import KIND as RUSTGPT
from cgpt.tokenizers.vocabulary import FIRST_WORD, RESERVED
from cgpt.validation import check_int

FORMAT, VERSION = "cgpt-tokenizer", 1
N_RESERVED_TOKENS = {
    "rustgpt": 0
}  # words before those with a score, by graph; FIRST_WORD for all others
_OPENING = f'{{"format": "{FORMAT}"'.encode()
_MOST = 1 << 28  # bytes of a vocabulary's file
_KEYS = ("format", "version", "kind", "words", "scores", "crc32")

State = dict[str, Any]


def save(path: str | os.PathLike[str], kind: str, state: State) -> Path:
    """Write the state of a tokenizer as JSON; the path holds the old file or the new one.

    Raises CheckpointError (code "write") with the reason.
    """
    values = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        **state,
        "crc32": checksum(kind, state),
    }
    text = json.dumps(values, ensure_ascii=True).encode("ascii") + b"\n"
    check_text_size(path, parsed_size(text), len(text))

    def write(out: Output) -> None:
        out.write(text)

    return write_file(path, len(text), write)


def checksum(kind: str, state: State) -> str:
    """The checksum of a vocabulary's file."""
    return f"{crc32(json.dumps([kind, state['words'], state['scores']]).encode()):08x}"


def read(path: str | os.PathLike[str]) -> State:
    """The state in a file of `save`, with its "crc32", or of a model file; no weights are read.

    Raises CheckpointError with code missing, damaged, version or foreign.
    """
    with OpenFile(path) as source:
        if source.head.startswith(_OPENING):
            if source.size > _MOST:
                raise damaged(
                    path,
                    Phrase("a vocabulary in {n} bytes", n=source.size),
                    Phrase("at most {n}", n=_MOST),
                )
            return _parsed(path, source.read(0, source.size))
        kind = format_of(path, source.head, source.size)
    with BinaryFile(path) if kind == "binary" else JsonFile(path) as file:
        return state_of(file)


def _parsed(path: object, text: bytes | bytearray) -> State:
    state: State = parse_json(path, N_("the file"), text, room=len(text))
    if state.get("version") != VERSION:
        raise other_version(
            path,
            Phrase("format version {version}", version=shown(state.get("version"))),
            Phrase("version {version}", version=VERSION),
        )
    for name in sorted(state.keys() - set(_KEYS)):
        raise damaged(
            path, Phrase("'{name}' missing or unknown", name=name[:60]), str(sorted(_KEYS))
        )
    return state


def state_of(file: BinaryFile | JsonFile) -> State:
    """The state of the tokenizer in an open model file. Raises CheckpointError."""
    path = file.path
    if isinstance(file, JsonFile):
        n_reserved_tokens, most = _shape(path, file.root)
        words, scores, kind = _from_json(file, n_reserved_tokens)
    else:
        if not file.carries_base:
            file.require_whole()
        payload = file.payload(file.one(Kind.VOCABULARY))
        n_reserved_tokens, most = _shape(path, file.config_values())
        _check_count(path, int.from_bytes(payload[:4], "little"), min(most, most_words(file.size)))
        words, scores = unpack(path, payload, n_reserved_tokens)
        record = file.maybe(Kind.TOKENIZER)
        kind = "words"
        if record is not None:
            kind = check_object(path, record.label, file.json(record)).get("kind")
    if words[:n_reserved_tokens] != list(RESERVED[:n_reserved_tokens]):
        raise damaged(
            path,
            "a vocabulary whose first words are not the special tokens and bytes",
            Phrase("'{first}' to '{last}'", first=RESERVED[0], last=RESERVED[-1]),
        )
    _check_count(path, len(words), most)
    if isinstance(kind, str) and kind not in KINDS:
        raise other_version(
            path, Phrase("a tokenizer of the kind {value}", value=shown(kind)), ", ".join(KINDS)
        )
    return {
        "words": words[n_reserved_tokens:],
        "scores": scores,
        "kind": kind if n_reserved_tokens else RUSTGPT,
    }


def _shape(path: object, values: dict[str, Any]) -> tuple[int, int]:
    """(words without a score, most words) of the model in a file, as its configuration says."""
    config = values.get("config")
    if not isinstance(config, dict):
        raise damaged(path, "a configuration that is no object", "an object")
    try:
        most = check_int("GPTConfig", "vocab_size", config.get("vocab_size"), 1)
    except ConfigError as error:
        raise damaged(
            path,
            Phrase("a configuration that cannot be ({reason})", reason=as_reason(error)),
            "a valid one",
        ) from None
    graph = str(values.get("graph")).removesuffix(ADAPTED)
    return N_RESERVED_TOKENS.get(graph, FIRST_WORD), most


def most_words(size: int) -> int:
    """Bounds the vocabulary of a file of `size` bytes before its words are taken apart.

    A tokenizer takes some 400 bytes per word, the file of a real model more than that.
    """
    return (strict_json.PARSED_ROOM + size) // 400


def _check_count(path: object, number: int, most: int) -> None:
    if number > most:
        raise damaged(
            path, Phrase("a vocabulary of {n} words", n=number), Phrase("at most {n}", n=most)
        )


def check_size(path: object, number: int, size: int) -> None:
    """Refuse to save so many words in a file of `size` bytes if they would be refused on reading.

    Raises CheckpointError (code "write").
    """
    if number > most_words(size):
        raise not_saved(
            path,
            Phrase("a vocabulary of {n} words", n=number),
            Phrase("at most {n} in a file of this size", n=most_words(size)),
            "make the model wider or the vocabulary smaller",
        )


def _from_json(file: JsonFile, n_reserved_tokens: int) -> tuple[list[str], list[Any], Any]:
    """words, scores and kind of the file's `vocab`."""
    vocab = check_object(file.path, "vocab", file.root["vocab"])
    words: Any = vocab.get("words")
    scores: Any = vocab.get("scores")
    kind = vocab.get("kind", "words")
    if kind == "bpe" and isinstance(words, list) and scores is None:
        scores = [None] * n_reserved_tokens + [0.0] * (len(words) - n_reserved_tokens)
    if not (
        isinstance(words, list)
        and isinstance(scores, list)
        and len(words) == len(scores)
        and scores[:n_reserved_tokens] == [None] * n_reserved_tokens
    ):
        raise damaged(
            file.path,
            "words and scores that do not belong together",
            Phrase("two lists of one length, the first {n} scores null", n=n_reserved_tokens),
        )
    return words, scores[n_reserved_tokens:], kind


def json_object(kind: str, words: list[str], scores: list[float | None]) -> dict[str, Any]:
    """The words in id order and their scores; without scores where no score decides.

    A reader that knows no other kind than words then refuses what it would encode wrongly.
    """
    found: dict[str, Any] = {"words": words}
    if kind != "bpe":
        found["scores"] = [None] * (len(words) - len(scores)) + scores
    return found if kind not in KINDS[1:] else {**found, "kind": kind}


def pack(words: list[str], scores: list[float | None]) -> bytes:
    """The vocabulary record: counts, scores, where each word starts, the words' UTF-8."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    text = b"".join(encoded)
    numbers = np.array([-math.inf if score is None else score for score in scores], "<f8")
    offsets = np.concatenate(([0], np.cumsum([len(word) for word in encoded]))).astype("<u4")
    return (
        VOCABULARY.pack(len(words), len(words) - len(scores), len(text))
        + numbers.tobytes()
        + offsets.tobytes()
        + text
    )


def unpack(
    path: object, data: bytes | bytearray, n_reserved_tokens: int
) -> tuple[list[str], list[float]]:
    """(words of every id, scores of those from `n_reserved_tokens` on). Raises CheckpointError."""
    n_words, first, size = VOCABULARY.unpack_from(data.ljust(VOCABULARY.size, b"\0"))
    scores_at = VOCABULARY.size
    offsets_at = scores_at + 8 * (n_words - first)
    text_at = offsets_at + 4 * (n_words + 1)
    if first != n_reserved_tokens or n_words < first or text_at + size != len(data):
        raise damaged(
            path,
            Phrase(
                "a vocabulary of {words} words, {first} without a score and {size} bytes "
                "of text in {n} bytes",
                words=n_words,
                first=first,
                size=size,
                n=len(data),
            ),
            Phrase("{first} without a score, and lengths that add up", first=n_reserved_tokens),
        )
    scores = np.frombuffer(data, "<f8", n_words - first, scores_at)
    offsets = np.frombuffer(data, "<u4", n_words + 1, offsets_at).astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise damaged(
            path, "word offsets that do not ascend from 0 to the end of the text", "ascending ones"
        )
    try:
        text = data[text_at:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise damaged(path, "a word that is not UTF-8", "UTF-8") from None
    # Where each word starts, in characters: as many as there are bytes that begin one.
    begins = np.frombuffer(data, np.uint8, size, text_at) & 0xC0 != 0x80
    if not begins[offsets[(offsets < size)]].all():
        raise damaged(path, "a word that is not UTF-8", "UTF-8")
    starts = np.concatenate(([0], np.cumsum(begins)))[offsets].tolist()
    return [text[start:end] for start, end in pairwise(starts)], scores.tolist()
