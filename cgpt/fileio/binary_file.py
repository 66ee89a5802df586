"""A binary model file opened for reading: parsed, and every payload checked before it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgpt.errors import Phrase
from cgpt.fileio._codec import READS, crc32, read_checked
from cgpt.fileio.file_errors import damaged, foreign, other_base, unreadable
from cgpt.fileio.file_kind import format_of
from cgpt.fileio.format_v1 import ADAPTED, DType, Kind, Record, align, parse_header, parse_table
from cgpt.fileio.open_file import Job, Location, OpenFile, in_parallel
from cgpt.fileio.strict_json import check_listed, check_object, check_part_length, parse_json
from cgpt.locale import N_

_PIECE = 1 << 19  # bytes read and checked at a time
_MOST_LAYERS = 1 << 21  # bytes of all layer records together


class BinaryFile(OpenFile):
    """A file of format v1 whose header and table are checked; payloads are checked when read."""

    def __init__(self, path: Location) -> None:
        """Raises CheckpointError: missing, foreign, version or damaged."""
        super().__init__(path)
        try:
            if format_of(path, self.head, self.size) != "binary":
                raise foreign(
                    path,
                    "a cgpt model in JSON where a binary one is wanted",
                    "load it with load_model_json or load_model_auto",
                )
            self.header = parse_header(path, self.head, self.size)
            start, length = self.header.table_offset, self.header.table_length
            self.records = parse_table(path, self.header, self.read(start, length))
            self._config: dict[str, Any] | None = None
            self._by_kind: dict[int, list[Record]] = {}
            for record in self.records:
                self._by_kind.setdefault(record.kind, []).append(record)
            self._check_zeros(start + length, None)
        except BaseException:
            self.close()
            raise

    def of(self, kind: Kind) -> list[Record]:
        """The records of a kind, in order."""
        return self._by_kind.get(kind, [])

    def maybe(self, kind: Kind) -> Record | None:
        """The only record of a kind, or None where there is none."""
        found = self.of(kind)
        if len(found) > 1:
            raise damaged(
                self.path,
                Phrase("{n} records of kind {kind}", n=len(found), kind=kind.name.lower()),
                "1",
            )
        return found[0] if found else None

    def one(self, kind: Kind) -> Record:
        """The only record of a kind."""
        found = self.maybe(kind)
        if found is None:
            raise damaged(
                self.path, Phrase("no record of kind {kind}", kind=kind.name.lower()), "1"
            )
        return found

    def config_values(self) -> dict[str, Any]:
        """The config record, as JSON."""
        if self._config is None:
            self._config = check_object(
                self.path, N_("the config record"), self.json(self.one(Kind.CONFIG))
            )
        return self._config

    @property
    def is_adapter(self) -> bool:
        """Whether it holds an adapter."""
        graph = self.config_values().get("graph")
        return isinstance(graph, str) and graph.endswith(ADAPTED)

    @property
    def carries_base(self) -> bool:
        """Whether it holds an adapter and the model that it belongs to."""
        return bool(self.of(Kind.BASE_TENSOR))

    def require_whole(self) -> None:
        """Raises CheckpointError where it holds an adapter."""
        if self.is_adapter:
            raise other_base(
                self.path,
                "an adapter where a whole model is wanted",
                "load it with load_with_adapter(model, adapter) and save the two as one",
                hint="merge",
            )

    @property
    def all_float32(self) -> bool:
        """Whether all weights are float32."""
        return all(record.dtype == DType.FLOAT32 for record in self.of(Kind.TENSOR))

    def layers(self) -> list[dict[str, Any]]:
        """The layers, as JSON."""
        total = sum(record.length for record in self.of(Kind.LAYER))
        if total > _MOST_LAYERS:
            raise damaged(
                self.path,
                Phrase("layers described in {n} bytes", n=total),
                Phrase("at most {n}", n=_MOST_LAYERS),
            )
        return check_listed(self.path, [self.json(record) for record in self.of(Kind.LAYER)])

    def check_rounded(self) -> None:
        """Check the weights where they will take more memory than they take in the file."""
        if not self.all_float32:
            self.verify((Kind.TENSOR, Kind.SCALE))

    def payload(self, record: Record) -> bytearray:
        """A payload, checked."""
        data = self.read(record.offset, record.length)
        self.check(record, data)
        return data

    def json(self, record: Record) -> Any:
        """A payload that is JSON, checked."""
        check_part_length(self.path, record.label, record.length)
        return parse_json(self.path, record.label, self.payload(record))

    def check(self, record: Record, data: bytearray | memoryview) -> None:
        """Compare a payload with its checksum, and see that zeros follow it."""
        self._compare(record, crc32(data))

    def fill(self, record: Record, target: NDArray[np.float32]) -> None:
        """Read a float32 payload into `target` and check it."""
        self.fill_bytes(record, target.data.cast("B"))
        if sys.byteorder == "big":
            target.byteswap(inplace=True)

    def fill_bytes(self, record: Record, target: memoryview) -> None:
        """Read a payload into `target`, as long as that, and check it."""
        self._compare(record, self._read_checked(record, target))

    def verify(self, kinds: Sequence[int] = ()) -> None:
        """Check every payload, or those of some kinds."""

        def check(record: Record) -> None:
            buffer = memoryview(bytearray(min(_PIECE, record.length)))
            self._compare(record, self._read_checked(record, buffer))

        in_parallel(
            [
                Job(record.length, partial(check, record))
                for record in self.records
                if not kinds or record.kind in kinds
            ]
        )

    def _read_checked(self, record: Record, target: memoryview) -> int:
        """Read a payload into `target`, over and over where that is shorter; its CRC-32."""
        if READS and self._memory is None:
            try:
                crc, done = read_checked(self.fd, record.offset, record.length, target)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if done < record.length:
                raise damaged(
                    self.path,
                    Phrase("its end at byte {at}", at=record.offset + done),
                    Phrase("{n} bytes more", n=record.length - done),
                )
            return crc
        crc = 0  # from memory, or on Windows
        again = len(target) < record.length
        for start in range(0, record.length, _PIECE):
            size = min(_PIECE, record.length - start)
            piece = target[:size] if again else target[start : start + size]
            self.read_into(record.offset + start, piece)
            crc = crc32(piece, crc)
        return crc

    def _compare(self, record: Record, crc: int) -> None:
        if crc != record.crc:
            raise damaged(
                self.path,
                Phrase("{record} with checksum {crc:08x}", record=record.label, crc=crc),
                format(record.crc, "08x"),
            )
        self._check_zeros(record.end, record)

    def _check_zeros(self, start: int, after: Record | None) -> None:
        """See that only zeros lie between `start` and the next payload."""
        size = align(start) - start
        if size and any(self.read(start, size)):
            place = Phrase("the table") if after is None else after.label
            raise damaged(
                self.path,
                Phrase("bytes that are not zero in the padding after {what}", what=place),
                "zeros",
            )
