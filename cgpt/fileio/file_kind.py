"""What kind of file this is, told by its first bytes and never by its name."""

from __future__ import annotations

import re

from cgpt.errors import CheckpointError, Phrase, shown
from cgpt.fileio._codec import crc32
from cgpt.fileio.file_errors import ANYTHING, OWN, Part, damaged, foreign
from cgpt.fileio.format_v1 import HEADER_SIZE, MAGIC
from cgpt.locale import N_

JSON_FORMAT = "cgpt-json"
# Other programs that write the file again put a space or nothing where the line ends.
JSON_OPENING = f'{{"format": "{JSON_FORMAT}",\n'.encode()

_NAMED = re.compile(rb'"format"\s*:\s*"' + JSON_FORMAT.encode() + rb'"')
_SIGNATURES = (
    (b"GGUF", N_("a GGUF file (llama.cpp)")),
    (b"ggml", N_("a GGML file (llama.cpp)")),
    (b"tjgg", N_("a GGML file (llama.cpp)")),
    (b"\x93NUMPY", N_("a NumPy array")),
    (b"\x89HDF", N_("an HDF5 file (Keras)")),
    (b"\x1f\x8b", N_("a gzip archive")),
    (b"\xfd7zXZ", N_("an xz archive")),
    (b"\x28\xb5\x2f\xfd", N_("a zstd archive")),
    (b"version https://git-lfs", N_("a Git LFS pointer instead of the file (run git lfs pull)")),
    (b"\x7fELF", N_("a program")),
    (b"<", N_("a web page or XML")),
)


def kind_of(path: object, head: bytes, size: int) -> str:
    """ "binary" or "json" as `format_of`, or "rustgpt" for a JSON export of RustGPT-Chinese."""
    return "rustgpt" if is_rustgpt_json(head) else format_of(path, head, size, ANYTHING)


def format_of(path: object, head: bytes, size: int, expected: Part = OWN) -> str:
    """ "binary" or "json" for a cgpt file that starts with `head`.

    expected  what a file of another kind should have been
    Raises CheckpointError: damaged where it is a cgpt file whose first bytes were changed or cut,
    foreign for everything else, naming what was recognised.
    """
    if head.startswith(MAGIC):
        return "binary"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if text.startswith(b"{") and _NAMED.search(head):
        return "json"
    error = _damaged_opening(path, head, size)
    if error is not None:
        raise error
    found, advice = _recognise(head, text, size)
    raise foreign(path, found, advice, expected, hint="import" if "cgpt.load" in advice else "")


def _damaged_opening(path: object, head: bytes, size: int) -> CheckpointError | None:
    """An error where these bytes were once a cgpt file."""
    if size == 0:
        return damaged(path, "an empty file", "a model")
    if MAGIC.startswith(head) or JSON_OPENING.startswith(head):
        return damaged(path, Phrase("only the first {n} bytes", n=size), "a whole file")
    if head.find(b"CGPT", 1, 8) > 0:
        return damaged(
            path,
            "a signature changed as by a transfer in text mode",
            "the bytes as they were saved",
        )
    restored = MAGIC + head[len(MAGIC) : HEADER_SIZE - 4]
    if len(head) >= HEADER_SIZE and crc32(restored) == int.from_bytes(
        head[HEADER_SIZE - 4 : HEADER_SIZE], "little"
    ):
        return damaged(path, Phrase("the signature {bytes}", bytes=shown(head[:8])), repr(MAGIC))
    if not any(head[:HEADER_SIZE]):
        return damaged(path, "zeros where the header belongs", "a file that was written whole")
    # The opening of a JSON file with a byte changed, lost or added.
    near = sum(a == b for a, b in zip(head, JSON_OPENING, strict=False))
    if near >= len(JSON_OPENING) - 1 or JSON_OPENING[-12:] in head[: len(JSON_OPENING) + 1]:
        return damaged(
            path,
            Phrase("the opening {bytes}", bytes=shown(head[: len(JSON_OPENING)])),
            repr(JSON_OPENING),
        )
    return None


def _recognise(head: bytes, text: bytes, size: int) -> tuple[Part, str]:
    """(what a foreign file seems to be, what to do)."""
    other = N_("choose another file")
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name, other
    if head.startswith(b"PK\x03\x04"):
        if b"data.pkl" in head:
            return N_("a PyTorch file (zip with pickle, which may run code)"), other
        return N_("a NumPy .npz" if b".npy" in head else "a zip archive"), other
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return N_("a Python pickle (which may run code)"), other
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length + 8 <= size:
        return N_("a safetensors file"), other
    if text.startswith(b"{"):
        if is_rustgpt_json(head):
            return N_("a JSON export of RustGPT-Chinese"), N_("load it with cgpt.load")
        return Phrase("JSON that does not say '{name}'", name=JSON_FORMAT), other
    if _is_bincode(head):
        return (
            N_("a binary file of RustGPT-Chinese (bincode)"),
            N_("export it as JSON with that program and load that with cgpt.load"),
        )
    if _is_text(head):
        return N_("text"), other
    return Phrase("bytes that begin with {bytes}", bytes=head[:8].hex(" ")), other


def is_rustgpt_json(head: bytes) -> bool:
    """Whether a file that starts so is a JSON export of RustGPT-Chinese."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    return text.startswith(b"{") and b'"vocab"' in head and b'"encode"' in head


def _is_bincode(head: bytes) -> bool:
    """Version 1, a word count, then words with lengths and ids, as RustGPT-Chinese writes."""
    if head[:1] != b"\x01":
        return False
    _, position = _varint(head, 1)
    for _ in range(4):
        length, position = _varint(head, position)
        word = head[position : position + length]
        try:
            word.decode("utf-8")
        except UnicodeDecodeError:
            return False
        if not 0 < length == len(word) <= 256:
            return False
        _, position = _varint(head, position + length)
    return True


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """bincode's integer at `position`, and where the next field starts."""
    first = data[position] if position < len(data) else 0
    if first < 251:
        return first, position + 1
    width = {251: 2, 252: 4}.get(first, 8)
    return int.from_bytes(data[position + 1 : position + 1 + width], "little"), position + 1 + width


def _is_text(head: bytes) -> bool:
    try:
        head[:4096].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > 4000
    return b"\0" not in head[:4096]
