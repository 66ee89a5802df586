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
        raise damaged(path, f"{actual_length} bytes", f"a header of {HEADER_SIZE} bytes")
    (
        _,
        version,
        byte_order,
        header_size,
        n_records,
        file_length,
        table_offset,
        table_length,
        table_crc,
        features,
        _,
        crc,
    ) = _HEADER.unpack_from(head)  # _: compatible feature bits
    found = crc32(head[: HEADER_SIZE - 4])
    if found != crc:
        raise damaged(
            path,
            f"a header with checksum {found:08x} that names version {version}",
            f"checksum {crc:08x}",
        )
    if version != VERSION:
        raise other_version(path, f"format version {version}", f"version {VERSION}")
    if features & ~_KNOWN_FEATURES:
        raise other_version(path, f"unknown feature bits {features & ~_KNOWN_FEATURES:#x}", "none")
    if byte_order != _BYTE_ORDER or header_size != HEADER_SIZE:
        raise damaged(
            path,
            f"header fields {byte_order:#x}, {header_size}",
            f"{_BYTE_ORDER:#x}, {HEADER_SIZE}",
        )
    if actual_length != file_length:
        raise damaged(path, f"{actual_length} bytes", f"{file_length} bytes")
    if table_offset != HEADER_SIZE or table_length > file_length - HEADER_SIZE:
        raise damaged(
            path,
            f"a table of {table_length} bytes at byte {table_offset}",
            f"one at byte {HEADER_SIZE} inside the file",
        )
    if n_records > _MOST_RECORDS or n_records * _ENTRY.size > table_length:
        raise damaged(
            path,
            f"{n_records} records in a table of {table_length} bytes",
            f"at most {min(_MOST_RECORDS, table_length // _ENTRY.size)}",
        )
    return Header(n_records, file_length, table_offset, table_length, table_crc)


def parse_table(path: object, header: Header, table: bytes | bytearray) -> list[Record]:
    """The records of a table, checked one by one and against each other. Raises CheckpointError."""
    found = crc32(table)
    if len(table) != header.table_length or found != header.table_crc:
        raise damaged(path, f"a table with checksum {found:08x}", f"{header.table_crc:08x}")
    records, position = [], 0
    for number in range(header.n_records):
        record, position = _parse_entry(path, table, position, number)
        records.append(record)
    if position != len(table):
        raise damaged(
            path, f"{len(table) - position} bytes after the last entry of the table", "none"
        )
    _check_order(path, header, records)
    return records


def _parse_entry(
    path: object, table: bytes | bytearray, position: int, number: int
) -> tuple[Record, int]:
    """Entry `number` of the table, which starts at `position`, and where the next one starts."""
    where = f"entry {number} of the table"
    if position + _ENTRY.size > len(table):
        raise damaged(path, f"{where} at byte {position}", f"an entry inside {len(table)} bytes")
    kind, dtype, n_dims, flags, name_length, crc, reserved, offset, length = _ENTRY.unpack_from(
        table, position
    )
    shape_at = position + _ENTRY.size
    name_at = shape_at + 8 * n_dims
    end = position + _padded(_ENTRY.size + 8 * n_dims + name_length)
    if n_dims > _MOST_DIMENSIONS or not 0 < name_length <= _LONGEST_NAME or end > len(table):
        raise damaged(
            path,
            f"{where} with {n_dims} dimensions and a name of {name_length} bytes",
            f"at most {_MOST_DIMENSIONS} and 1 to {_LONGEST_NAME}",
        )
    if reserved or any(table[name_at + name_length : end]):
        raise damaged(path, f"{where} with reserved bytes that are set", "zeros")
    name = _parse_name(path, where, table[name_at : name_at + name_length])
    shape = struct.unpack_from(f"<{n_dims}Q", table, shape_at)
    record = Record(kind, name, length, dtype, shape, flags, offset, crc)
    _check_record(path, where, record)
    return record, end


def _parse_name(path: object, where: str, raw: bytes | bytearray) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise damaged(path, f"{where} with a name that is not UTF-8", "UTF-8") from None
    if _NOT_IN_NAMES.search(name) or name in (".", ".."):
        raise damaged(
            path, f"{where} with the name {name!r}", "one without control characters and path parts"
        )
    return name


def _check_record(path: object, where: str, record: Record) -> None:
    """One record by itself: known kind and type, shape times item size equal to the length."""
    known = record.kind in KINDS
    if record.flags & ~OPTIONAL or not (known or record.flags & OPTIONAL):
        raise other_version(
            path,
            f"{where} of kind {record.kind} with flags {record.flags:#x}",
            "kinds that this version knows",
        )
    if record.dtype not in _DTYPES:
        raise other_version(path, f"{where} with data type {record.dtype}", f"0 to {max(DType):d}")
    if not known:
        return
    if (record.dtype == DType.RAW) == (record.kind in TENSORS):
        raise damaged(
            path,
            f"{record.label} with data type {record.dtype}",
            "a number type for tensors and 0 for the rest",
        )
    if record.dtype == DType.RAW:
        if record.shape:
            raise damaged(path, f"{record.label} with a shape", "none")
        return
    size = ITEM_SIZE[DType(record.dtype)]
    for n in record.shape:
        size *= n  # a Python integer: it cannot overflow
    if not record.shape or size != record.length or size == 0:
        raise damaged(
            path,
            f"{record.label} of shape {list(record.shape)} in {record.length} bytes",
            f"{size} bytes, and at least one element",
        )


def _check_order(path: object, header: Header, records: Sequence[Record]) -> None:
    """Sorted by kind, names unique in a kind, payloads aligned, ascending, no overlap, no hole."""
    position = align(header.table_offset + header.table_length)
    names: set[tuple[int, str]] = set()
    kind = 0
    for record in records:
        if record.offset != position:
            raise damaged(
                path, f"the payload of {record.label} at byte {record.offset}", f"byte {position}"
            )
        if record.end > header.file_length:
            raise damaged(
                path,
                f"the payload of {record.label} up to byte {record.end}",
                f"at most {header.file_length}",
            )
        if record.kind < kind or (record.kind, record.name) in names:
            raise damaged(path, f"{record.label} twice or out of order", "records sorted by kind")
        names.add((record.kind, record.name))
        kind, position = record.kind, align(record.end)
    if position != header.file_length:
        raise damaged(path, f"{header.file_length} bytes", f"{position} bytes for these records")
