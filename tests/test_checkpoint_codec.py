"""The compiled checksums against zlib's."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import code_of
from make_fixtures import DATA

from cgpt.checkpoint.info import describe
from cgpt.errors import CheckpointError
from cgpt.fileio import binary_file
from cgpt.fileio._codec import READS, crc32, read_checked
from cgpt.llm import load_model_binary


@pytest.mark.parametrize("fold", [True, False])
def test_crc32_is_that_of_zlib(fold: bool) -> None:
    data = np.random.default_rng(0).bytes(70_000)
    for size in (*range(300), 1023, 4096, 65_537):
        for start in (0, 1, 3, 17):  # whatever the alignment
            part = memoryview(data)[start : start + size]
            for crc in (0, 0xFFFFFFFF, 0x12345678):
                assert crc32(part, crc, fold) == zlib.crc32(part, crc)


def test_crc32_goes_on_from_piece_to_piece() -> None:
    data = np.random.default_rng(1).bytes(10_000)
    crc = 0
    for start in range(0, len(data), 777):
        crc = crc32(data[start : start + 777], crc)
    assert crc == zlib.crc32(data) == crc32(bytearray(data)) == crc32(memoryview(data))
    assert crc32(b"") == 0 and crc32(b"", 5) == 5


@pytest.mark.parametrize("array", [np.zeros(4, np.float32), np.zeros((2, 2), np.uint8), "text"])
def test_what_is_not_bytes_is_refused(array: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        crc32(array)


@pytest.mark.skipif(not READS, reason="files are read piece by piece here")
def test_reading_with_a_checksum(tmp_path: Path) -> None:
    data = np.random.default_rng(3).bytes(1_300_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        for start, length in ((0, 0), (0, 1), (5, 1_000_003), (100, 1 << 19), (0, len(data))):
            target = bytearray(length)
            assert read_checked(fd, start, length, target) == (
                zlib.crc32(data[start : start + length]),
                length,
            )
            assert target == data[start : start + length]
        scratch = bytearray(1000)  # only the checksum counts
        assert read_checked(fd, 7, 999_999, scratch) == (zlib.crc32(data[7:1_000_006]), 999_999)
        crc, done = read_checked(fd, len(data) - 10, 50, bytearray(50))
        assert (crc, done) == (zlib.crc32(data[-10:]), 10)
        for length, room in ((-1, 5), (5, 0)):
            with pytest.raises(ValueError, match="length"):
                read_checked(fd, 0, length, bytearray(room))
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_checked(fd, 0, 5, bytearray(5))


def test_where_files_are_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_file, "READS", False)
    monkeypatch.setattr(binary_file, "_PIECE", 100)
    load_model_binary(DATA / "tiny_v1.bin")
    assert describe(DATA / "tiny_v1.bin", verify=True)["verified"]
    data = bytearray((DATA / "tiny_v1.bin").read_bytes())
    data[-70] ^= 1
    path = tmp_path / "m.bin"
    path.write_bytes(data)
    assert code_of(path) == "damaged"
    with pytest.raises(CheckpointError):
        describe(path, verify=True)


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    whole = (DATA / "tiny_v1.bin").read_bytes()
    path.write_bytes(whole)
    with binary_file.BinaryFile(path) as file:
        os.truncate(path, len(whole) - 200)
        with pytest.raises(CheckpointError, match="its end at byte"):
            file.verify()
