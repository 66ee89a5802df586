"""A vocabulary by itself: a small JSON file, or the one inside a model file.

    {"format": "cgpt-tokenizer", "version": 1, "kind": "words", "words": [...], "scores": [...],
     "crc32": "0123abcd"}
The checksum is the CRC-32 of the ASCII JSON of [kind, words, scores] as Python writes it. A file
without one is read too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cgpt.checkpoint.adapter import model_config
from cgpt.checkpoint.binary import read_tokenizer
from cgpt.checkpoint.json_file import JsonFile
from cgpt.errors import DataError
from cgpt.fileio._codec import crc32
from cgpt.fileio.atomic import Output, write_file
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.failures import damaged, other_version
from cgpt.fileio.sniff import format_of
from cgpt.fileio.source import Source
from cgpt.fileio.strict_json import check_text_size, parse_json, parsed_size
from cgpt.tokenizers.rustgpt import RustTokenizer
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.validation import expect, path_text

FORMAT, VERSION = "cgpt-tokenizer", 1
_OPENING = f'{{"format": "{FORMAT}"'.encode()
_MOST = 1 << 28  # bytes of a vocabulary's file
_KEYS = ("format", "version", "kind", "words", "scores", "crc32")


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> Path:
    """Write the JSON file; see `save_model_binary` for how.

    Raises CheckpointError (code "write") with the reason.
    """
    expect("save_tokenizer", tokenizer, Tokenizer, "a Tokenizer")
    path = path_text("Tokenizer.save", path)
    state = {
        "format": FORMAT,
        "version": VERSION,
        "kind": tokenizer.kind,
        **tokenizer.to_state(),
        "crc32": _checksum(tokenizer),
    }
    text = json.dumps(state, ensure_ascii=True).encode("ascii") + b"\n"
    check_text_size(path, parsed_size(text), len(text))

    def write(out: Output) -> None:
        out.write(text)

    return write_file(path, len(text), write)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The vocabulary of a file of `save_tokenizer` or of a model; no weights are read.

    Raises CheckpointError with code missing, damaged, version or foreign.
    """
    path = path_text("Tokenizer.load", path)
    with Source(path) as source:
        if source.head.startswith(_OPENING):
            if source.size > _MOST:
                raise damaged(path, f"a vocabulary in {source.size} bytes", f"at most {_MOST}")
            return _parsed(path, source.read(0, source.size))
        kind = format_of(path, source.head, source.size)
    if kind == "binary":
        with BinaryFile(path) as file:
            return read_tokenizer(file, model_config(file))
    with JsonFile(path) as json_file:
        return json_file.tokenizer(json_file.config)


def _parsed(path: object, text: bytes | bytearray) -> Tokenizer:
    state = parse_json(path, "the file", text, room=len(text))
    if state.get("version") != VERSION:
        raise other_version(
            path, f"format version {state.get('version')!r:.60}", f"version {VERSION}"
        )
    for name in sorted(state.keys() - set(_KEYS)):
        raise damaged(path, f"'{name:.60}' missing or unknown", f"{sorted(_KEYS)}")
    try:
        kind = RustTokenizer if state.get("kind") == RustTokenizer.KIND else Tokenizer
        found = kind.from_state(state)
    except DataError as error:
        raise damaged(path, f"a vocabulary that cannot be ({error})", "a valid one") from None
    if "crc32" in state and (checksum := _checksum(found)) != state["crc32"]:
        raise damaged(path, f"a vocabulary with checksum {checksum}", f"{state['crc32']!r:.60}")
    return found


def _checksum(tokenizer: Tokenizer) -> str:
    state = tokenizer.to_state()
    text = json.dumps([tokenizer.kind, state["words"], state["scores"]])
    return f"{crc32(text.encode()):08x}"
