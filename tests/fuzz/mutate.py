"""Inputs changed where it matters, so that what is behind parsers and checksums is reached.

A value of a JSON text; a record of a binary file, whose checksums and places are made right again.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from checkpoint_helpers import signed_file

from cgpt.errors import CheckpointError
from cgpt.fileio.format_v1 import (
    HEADER_SIZE,
    ITEM_SIZE,
    MAGIC,
    DType,
    Kind,
    Record,
    parse_header,
    parse_table,
)

VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    1 << 31,
    1 << 63,
    10**30,
    0.5,
    -0.0,
    1e-40,
    1e39,
    1e308,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    {},
    {"": 0},
)
Pairs = list[tuple[Record, bytes]]
_KINDS = (0, 8, 15, 22, 255, 65535, *map(int, Kind))
_NUMBERS = (
    0,
    1,
    2,
    31,
    32,
    63,
    64,
    65,
    255,
    262,
    263,
    1 << 15,
    (1 << 16) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_FLOATS = (0.0, -0.0, 1.0, -1e-300, 1e300, float("inf"), float("-inf"), float("nan"))


# JSON


def changed_value(data: bytes, seed: int) -> bytes | None:
    """One value replaced, removed or put twice, or another in its place; None where it cannot be.

    It is found from the root on, each member as likely as the others beside it, so that a setting
    is met more often than one of a thousand numbers. Of a text of several lines that is no JSON
    one line is changed.
    """
    draw = random.Random(seed)
    try:
        try:
            return _changed_text(data, draw)
        except json.JSONDecodeError:
            lines = data.split(b"\n")
            at = draw.randrange(len(lines))
            line = _changed_text(lines[at], draw)
            return None if line is None else b"\n".join([*lines[:at], line, *lines[at + 1 :]])
    except (ValueError, RecursionError):  # no JSON, half a surrogate, a value within itself
        return None


def _changed_text(data: bytes, draw: random.Random) -> bytes | None:
    root = json.loads(data)
    if draw.random() < 0.1:
        return json.dumps(draw.choice(VALUES)).encode()
    first, other = _place(root, draw), _place(root, draw)
    if first is None or other is None:
        return None
    _change(*first, draw.choice([*VALUES, other[0][other[1]]]), draw)
    return json.dumps(root, ensure_ascii=draw.random() < 0.5).encode()


def _place(root: Any, draw: random.Random) -> tuple[Any, Any] | None:
    """(object or list, name or number) of a value; None where there is none."""
    found, one = None, root
    while isinstance(one, (dict, list)) and one and (found is None or draw.random() < 0.8):
        key = draw.choice(list(one)) if isinstance(one, dict) else draw.randrange(len(one))
        found, one = (one, key), one[key]
    return found


def _change(owner: Any, key: Any, value: Any, draw: random.Random) -> None:
    """Change owner[key]; `value` is what may take its place."""
    old, action = owner[key], draw.randrange(8)
    if action == 0:
        del owner[key]
    elif action == 1 and isinstance(owner, list):
        owner.insert(key, old)
    elif action == 1:
        owner[draw.choice(["", "x", "data", f"{key}_"])] = old
    elif action < 4 and isinstance(old, (int, float)):
        owner[key] = old + draw.choice([-1, 1])
    else:
        owner[key] = value


# Binary files


def signed(data: bytes) -> bytes:
    """The bytes with a right signature and with right checksums of header, table and payloads."""
    changed = bytearray(data)
    changed[:8] = MAGIC
    length = int.from_bytes(changed[40:48], "little")
    end, at = min(HEADER_SIZE + length, len(changed)), HEADER_SIZE
    while at + 32 <= end:
        _, _, dims, _, name, _, _, offset, size = struct.unpack_from("<HBBHHIIQQ", changed, at)
        if offset + size <= len(changed):
            struct.pack_into("<I", changed, at + 8, zlib.crc32(changed[offset : offset + size]))
        at += -(-(32 + 8 * dims + name) // 8) * 8
    changed[48:52] = zlib.crc32(changed[HEADER_SIZE : HEADER_SIZE + length]).to_bytes(4, "little")
    changed[60:64] = zlib.crc32(changed[:60]).to_bytes(4, "little")
    return bytes(changed)


def changed_record(data: bytes, seed: int) -> bytes | None:
    """A file with one record changed and all else right; None for what is no file."""
    try:
        header = parse_header("", data[:HEADER_SIZE], len(data))
        table = data[HEADER_SIZE : HEADER_SIZE + header.table_length]
        records = parse_table("", header, table)
    except CheckpointError:
        return None
    pairs = [(one, data[one.offset : one.end]) for one in records]
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        _change_records(pairs, draw)
    return signed_file(pairs)


def _change_records(pairs: Pairs, draw: random.Random) -> None:
    if not pairs:
        return
    kind = draw.choice([*{one.kind for one, _ in pairs}])
    at = draw.choice([number for number, (one, _) in enumerate(pairs) if one.kind == kind])
    record, payload = pairs[at]
    action = draw.randrange(10)
    if action == 0:
        del pairs[at]
    elif action == 1:
        name = draw.choice(
            (record.name, record.name + "x", pairs[draw.randrange(len(pairs))][0].name)
        )
        pairs.insert(at, (replace(record, name=name), payload))
    elif action == 2:
        pairs[at] = (_changed_entry(record, draw), payload)
    elif action == 3 and record.shape:
        pairs[at] = _reshaped(record, payload, draw)
    else:
        pairs[at] = (record, _changed_payload(record, payload, draw))


def _changed_entry(record: Record, draw: random.Random) -> Record:
    """An entry that says something else of the same payload."""
    fields: dict[str, Callable[[], Any]] = {
        "kind": lambda: draw.choice(_KINDS),
        "dtype": lambda: draw.choice((*map(int, DType), 9, 255)),
        "flags": lambda: draw.choice((0, 1, 2, 3, 65535)),
        "name": lambda: draw.choice(("x", "..", "a/b", "é", "wte.weight", "config", "\x7f")),
        "shape": lambda: tuple(draw.choice(_NUMBERS) for _ in range(draw.randrange(9))),
    }
    field = draw.choice(list(fields))
    return replace(record, **{field: fields[field]()})


def _reshaped(record: Record, payload: bytes, draw: random.Random) -> tuple[Record, bytes]:
    """Another shape or type, and as many bytes as that has."""
    shape = list(record.shape)
    at = draw.randrange(len(shape))
    shape[at] = max(1, shape[at] + draw.choice((-1, 1, 1 - shape[at], shape[at])))
    if draw.random() < 0.2:
        shape = draw.choice((shape[::-1], [*shape, 1], [1, *shape]))
    dtype = record.dtype if draw.random() < 0.5 else draw.choice(list(DType)[1:])
    size = ITEM_SIZE[DType(dtype)]
    for one in shape[:8]:
        size *= one
    size = min(size, 1 << 15)
    return (replace(record, shape=tuple(shape[:8]), dtype=dtype), payload[:size].ljust(size, b"\0"))


def _changed_payload(record: Record, payload: bytes, draw: random.Random) -> bytes:
    if record.kind == Kind.VOCABULARY and draw.random() < 0.9:
        return _changed_vocabulary(payload, draw)
    found = changed_value(payload, draw.getrandbits(32)) if record.kind < Kind.TENSOR else None
    if found is not None and draw.random() < 0.9:
        return found
    changed = bytearray(payload or b"\0")
    at = draw.randrange(len(changed))
    changed[at : at + draw.choice((1, 1, 4, 8))] = draw.randbytes(draw.choice((0, 1, 4, 8)))
    if record.kind >= Kind.TENSOR:  # a number, and as many as before
        return bytes(changed[: len(payload)].ljust(len(payload), b"\xff"))
    return bytes(changed)


def _changed_vocabulary(payload: bytes, draw: random.Random) -> bytes:
    """Another word, score, offset or number of words."""
    n, first, size = struct.unpack_from("<IIQ", payload.ljust(16, b"\0"))
    words_at = 16 + 8 * (n - first) + 4 * (n + 1)
    if n < first or words_at + size != len(payload):
        return draw.randbytes(40)
    scores = [*struct.unpack_from(f"<{n - first}d", payload, 16)]
    starts = [*struct.unpack_from(f"<{n + 1}I", payload, 16 + 8 * (n - first))]
    words = [payload[words_at + a : words_at + b] for a, b in pairwise(starts)]
    action, at = draw.randrange(8), draw.randrange(len(words) + 1)
    other = draw.choice(words or [b""])
    if action == 0:
        words.insert(at, draw.choice((other, other + b"x", "字".encode(), b"\xed\xa0\x80")))
        scores.append(-1.0)
    elif action == 1 and words:
        words.pop(at % len(words))
        del scores[-1:]
    elif action < 4 and words:
        words[at % len(words)] = draw.choice(
            (
                b"",
                b"\xff",
                b"a" * 64,
                b"a" * 65,
                other,
                "好".encode() * 64,
                b"\xed\xa0\x80",
                b"<pad>",
                b" ",
            )
        )
    elif action < 6 and scores:
        scores[at % len(scores)] = draw.choice(_FLOATS)
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    total = starts[-1]
    if action == 6:
        starts[at % len(starts)] = draw.choice(_NUMBERS) % (1 << 32)
    if action == 7:
        n, first, total = (
            draw.choice((one, draw.choice(_NUMBERS) % (1 << 32))) for one in (n, first, total)
        )
    else:
        n = len(words)
    return (
        struct.pack("<IIQ", n, first, total)
        + struct.pack(f"<{len(scores)}d", *scores)
        + struct.pack(f"<{len(starts)}I", *starts)
        + b"".join(words)
    )
