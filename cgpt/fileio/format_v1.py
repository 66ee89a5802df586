"""Format v1: header, table of records, placement of payloads, and every check of them.

docs/format_v1.md is the specification; the names here are those used there. Nothing in this
module allocates more than the table's own size, and every number is checked as a Python integer
before it is used.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from cgpt.errors import Phrase, shown
from cgpt.fileio._codec import crc32
from cgpt.fileio.file_errors import damaged, other_version

MAGIC = b"\x89CGPT\r\n\x1a"
VERSION = 1
HEADER_SIZE = 64
ALIGNMENT = 64
ADAPTED = "+lora"  # after a graph's name: an adapter instead of weights
OPTIONAL = 1  # record flag: a reader that does not know it skips it

_HEADER = struct.Struct("<8sIIIIQQQIIII")
_ENTRY = struct.Struct("<HBBHHIIQQ")
VOCABULARY = struct.Struct("<IIQ")  # words, first word with a score, bytes of text
_BYTE_ORDER = 0x01020304
_KNOWN_FEATURES = 0  # incompatible features that this reader knows
_MOST_RECORDS = 1 << 16
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 1024
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\]")


class Kind(IntEnum):
    """What a record holds; the table is sorted by it."""

    CONFIG = 1
    VOCABULARY = 2
    LAYER = 3
    TRAINING_STATE = 4
    METADATA = 5
    OPTIMIZER = 6
    TOKENIZER = 7
    RUN = 8
    TENSOR = 16
    ADAM_M = 17
    ADAM_V = 18
    BEST_TENSOR = 19
    SCALE = 20
    LIVE_TENSOR = 21
    BASE_TENSOR = 22


class DType(IntEnum):
    """Element types of payloads; RAW is for bytes without a shape."""

    RAW = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4
    UINT8 = 5
    INT32 = 6
    INT64 = 7
    FLOAT64 = 8


ITEM_SIZE = {
    DType.RAW: 1,
    DType.FLOAT32: 4,
    DType.FLOAT16: 2,
    DType.BFLOAT16: 2,
    DType.INT8: 1,
    DType.UINT8: 1,
    DType.INT32: 4,
    DType.INT64: 8,
    DType.FLOAT64: 8,
}
KINDS = frozenset(map(int, Kind))
_DTYPES = frozenset(map(int, DType))
# Every tensor of the configuration once in each of these that is there at all.
WHOLE = (Kind.TENSOR, Kind.ADAM_M, Kind.ADAM_V, Kind.BEST_TENSOR, Kind.LIVE_TENSOR)
TENSORS = (*WHOLE, Kind.SCALE, Kind.BASE_TENSOR)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the table. offset and length count bytes; crc is the payload's CRC-32."""

    kind: int
    name: str
    length: int
    dtype: int = DType.RAW
    shape: tuple[int, ...] = ()
    flags: int = 0
    offset: int = 0
    crc: int = 0

    @property
    def end(self) -> int:
        """First byte after the payload."""
        return self.offset + self.length

    @property
    def kind_name(self) -> str:
        """The kind in words."""
        return Kind(self.kind).name.lower() if self.kind in KINDS else f"kind {self.kind}"

    @property
    def label(self) -> str:
        """How errors call it."""
        kind = self.kind_name
        return kind if kind == self.name else f"{kind} '{self.name}'"


@dataclass(frozen=True)
class Header:
    """The numbers of the first 64 bytes that a reader needs afterwards."""

    n_records: int
    file_length: int
    table_offset: int
    table_length: int
    table_crc: int


def align(position: int) -> int:
    """The next multiple of 64."""
    return -(-position // ALIGNMENT) * ALIGNMENT


# Writing


def place(records: Sequence[Record]) -> tuple[list[Record], int]:
    """The records with their payloads' offsets, and the length of the file."""
    position = align(HEADER_SIZE + sum(_entry_size(record) for record in records))
    placed = []
    for record in records:
        placed.append(replace(record, offset=position))
        position = align(position + record.length)
    return placed, position


def pack_front(records: Sequence[Record], file_length: int) -> bytes:
    """Header, table and the zeros up to the first payload."""
    table = b"".join(map(_pack_entry, records))
    fields = (
        MAGIC,
        VERSION,
        _BYTE_ORDER,
        HEADER_SIZE,
        len(records),
        file_length,
        HEADER_SIZE,
        len(table),
        crc32(table),
        0,
        0,
    )
    header = _HEADER.pack(*fields, 0)[:-4]
    front = header + struct.pack("<I", crc32(header)) + table
    return front.ljust(align(len(front)), b"\0")


def _entry_size(record: Record) -> int:
    return _padded(_ENTRY.size + 8 * len(record.shape) + len(record.name.encode()))


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _pack_entry(record: Record) -> bytes:
    name = record.name.encode()
    fixed = _ENTRY.pack(
        record.kind,
        record.dtype,
        len(record.shape),
        record.flags,
        len(name),
        record.crc,
        0,
        record.offset,
        record.length,
    )
    entry = fixed + struct.pack(f"<{len(record.shape)}Q", *record.shape) + name
    return entry.ljust(_padded(len(entry)), b"\0")


# Reading


def parse_header(path: object, head: bytes, actual_length: int) -> Header:
    """Check the first 64 bytes of a file that starts with MAGIC. Raises CheckpointError."""
    if len(head) < HEADER_SIZE:
        raise damaged(
            path,
            Phrase("{n} bytes", n=actual_length),
            Phrase("a header of {n} bytes", n=HEADER_SIZE),
        )
    _, version, byte_order, header_size, n_records, file_length, *rest = _HEADER.unpack_from(head)
    table_offset, table_length, table_crc, features, _, crc = rest  # _: compatible feature bits
    found = crc32(head[: HEADER_SIZE - 4])
    if found != crc:
        raise damaged(
            path,
            Phrase(
                "a header with checksum {crc:08x} that names version {version}",
                crc=found,
                version=version,
            ),
            Phrase("checksum {crc:08x}", crc=crc),
        )
    if version != VERSION:
        raise other_version(
            path,
            Phrase("format version {version}", version=version),
            Phrase("version {version}", version=VERSION),
        )
    if features & ~_KNOWN_FEATURES:
        raise other_version(
            path, Phrase("unknown feature bits {bits:#x}", bits=features & ~_KNOWN_FEATURES), "none"
        )
    if byte_order != _BYTE_ORDER or header_size != HEADER_SIZE:
        raise damaged(
            path,
            Phrase(
                "header fields {byte_order:#x}, {header_size}",
                byte_order=byte_order,
                header_size=header_size,
            ),
            ", ".join((hex(_BYTE_ORDER), str(HEADER_SIZE))),
        )
    if actual_length != file_length:
        raise damaged(
            path, Phrase("{n} bytes", n=actual_length), Phrase("{n} bytes", n=file_length)
        )
    if table_offset != HEADER_SIZE or table_length > file_length - HEADER_SIZE:
        raise damaged(
            path,
            Phrase("a table of {n} bytes at byte {at}", n=table_length, at=table_offset),
            Phrase("one at byte {at} inside the file", at=HEADER_SIZE),
        )
    if n_records > _MOST_RECORDS or n_records * _ENTRY.size > table_length:
        raise damaged(
            path,
            Phrase("{records} records in a table of {n} bytes", records=n_records, n=table_length),
            Phrase("at most {n}", n=min(_MOST_RECORDS, table_length // _ENTRY.size)),
        )
    return Header(n_records, file_length, table_offset, table_length, table_crc)


def parse_table(path: object, header: Header, table: bytes | bytearray) -> list[Record]:
    """The records of a table, checked one by one and against each other. Raises CheckpointError."""
    found = crc32(table)
    if len(table) != header.table_length or found != header.table_crc:
        raise damaged(
            path,
            Phrase("a table with checksum {crc:08x}", crc=found),
            format(header.table_crc, "08x"),
        )
    records, position = [], 0
    for number in range(header.n_records):
        record, position = _parse_entry(path, table, position, number)
        records.append(record)
    if position != len(table):
        raise damaged(
            path,
            Phrase("{n} bytes after the last entry of the table", n=len(table) - position),
            "none",
        )
    _check_order(path, header, records)
    return records


def _parse_entry(
    path: object, table: bytes | bytearray, position: int, number: int
) -> tuple[Record, int]:
    """Entry `number` of the table, which starts at `position`, and where the next one starts."""
    if position + _ENTRY.size > len(table):
        raise damaged(
            path,
            Phrase("{what} at byte {at}", what=_entry(number), at=position),
            Phrase("an entry inside {n} bytes", n=len(table)),
        )
    kind, dtype, n_dims, flags, name_length, crc, reserved, offset, length = _ENTRY.unpack_from(
        table, position
    )
    shape_at = position + _ENTRY.size
    name_at = shape_at + 8 * n_dims
    end = position + _padded(_ENTRY.size + 8 * n_dims + name_length)
    if n_dims > _MOST_DIMENSIONS or not 0 < name_length <= _LONGEST_NAME or end > len(table):
        raise damaged(
            path,
            Phrase(
                "{what} with {dimensions} dimensions and a name of {length} bytes",
                what=_entry(number),
                dimensions=n_dims,
                length=name_length,
            ),
            Phrase(
                "at most {dimensions} and 1 to {length}",
                dimensions=_MOST_DIMENSIONS,
                length=_LONGEST_NAME,
            ),
        )
    if reserved or any(table[name_at + name_length : end]):
        raise damaged(
            path, Phrase("{what} with reserved bytes that are set", what=_entry(number)), "zeros"
        )
    name = _parse_name(path, number, table[name_at : name_at + name_length])
    shape = struct.unpack_from(f"<{n_dims}Q", table, shape_at)
    record = Record(kind, name, length, dtype, shape, flags, offset, crc)
    _check_record(path, number, record)
    return record, end


def _entry(number: int) -> Phrase:
    return Phrase("entry {n} of the table", n=number)


def _parse_name(path: object, number: int, raw: bytes | bytearray) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise damaged(
            path, Phrase("{what} with a name that is not UTF-8", what=_entry(number)), "UTF-8"
        ) from None
    if _NOT_IN_NAMES.search(name) or name in (".", ".."):
        raise damaged(
            path,
            Phrase("{what} with the name {name}", what=_entry(number), name=shown(name)),
            "one without control characters and path parts",
        )
    return name


def _check_record(path: object, number: int, record: Record) -> None:
    """One record by itself: known kind and type, shape times item size equal to the length."""
    known = record.kind in KINDS
    if record.flags & ~OPTIONAL or not (known or record.flags & OPTIONAL):
        raise other_version(
            path,
            Phrase(
                "{what} of kind {kind} with flags {flags:#x}",
                what=_entry(number),
                kind=record.kind,
                flags=record.flags,
            ),
            "kinds that this version knows",
        )
    if record.dtype not in _DTYPES:
        raise other_version(
            path,
            Phrase("{what} with data type {dtype}", what=_entry(number), dtype=record.dtype),
            Phrase("0 to {n}", n=int(max(DType))),
        )
    if not known:
        return
    if (record.dtype == DType.RAW) == (record.kind in TENSORS):
        raise damaged(
            path,
            Phrase("{record} with data type {dtype}", record=record.label, dtype=record.dtype),
            "a number type for tensors and 0 for the rest",
        )
    if record.dtype == DType.RAW:
        if record.shape:
            raise damaged(path, Phrase("{record} with a shape", record=record.label), "none")
        return
    size = ITEM_SIZE[DType(record.dtype)]
    for n in record.shape:
        size *= n  # a Python integer: it cannot overflow
    if not record.shape or size != record.length or size == 0:
        raise damaged(
            path,
            Phrase(
                "{record} of shape {shape} in {n} bytes",
                record=record.label,
                shape=str(list(record.shape)),
                n=record.length,
            ),
            Phrase("{n} bytes, and at least one element", n=size),
        )


def _check_order(path: object, header: Header, records: Sequence[Record]) -> None:
    """Sorted by kind, names unique in a kind, payloads aligned, ascending, no overlap, no hole."""
    position = align(header.table_offset + header.table_length)
    names: set[tuple[int, str]] = set()
    kind = 0
    for record in records:
        if record.offset != position:
            raise damaged(
                path,
                Phrase(
                    "the payload of {record} at byte {at}", record=record.label, at=record.offset
                ),
                Phrase("byte {at}", at=position),
            )
        if record.end > header.file_length:
            raise damaged(
                path,
                Phrase(
                    "the payload of {record} up to byte {at}", record=record.label, at=record.end
                ),
                Phrase("at most {n}", n=header.file_length),
            )
        if record.kind < kind or (record.kind, record.name) in names:
            raise damaged(
                path,
                Phrase("{record} twice or out of order", record=record.label),
                "records sorted by kind",
            )
        names.add((record.kind, record.name))
        kind, position = record.kind, align(record.end)
    if position != header.file_length:
        raise damaged(
            path,
            Phrase("{n} bytes", n=header.file_length),
            Phrase("{n} bytes for these records", n=position),
        )
