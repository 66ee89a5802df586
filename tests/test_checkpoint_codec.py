"""The compiled checksums against zlib's."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from cgpt.checkpoint._codec import crc32, crc32_parts


@pytest.mark.parametrize("fold", [True, False])
def test_crc32_is_that_of_zlib(fold: bool) -> None:
    data = np.random.default_rng(0).bytes(70_000)
    for size in (*range(300), 1023, 4096, 65_537):
        for start in (0, 1, 3, 17):                 # whatever the alignment
            part = memoryview(data)[start:start + size]
            for crc in (0, 0xFFFFFFFF, 0x12345678):
                assert crc32(part, crc, fold) == zlib.crc32(part, crc)


def test_crc32_goes_on_from_piece_to_piece() -> None:
    data = np.random.default_rng(1).bytes(10_000)
    crc = 0
    for start in range(0, len(data), 777):
        crc = crc32(data[start:start + 777], crc)
    assert crc == zlib.crc32(data) == crc32(bytearray(data)) == crc32(memoryview(data))
    assert crc32(b"") == 0 and crc32(b"", 5) == 5


@pytest.mark.parametrize("array", [np.zeros(4, np.float32), np.zeros((2, 2), np.uint8), "text"])
def test_what_is_not_bytes_is_refused(array: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        crc32(array)


def test_crc32_of_parts() -> None:
    data = np.random.default_rng(2).bytes(5000)
    starts, lengths = np.array([0, 10, 64, 4999, 5000, 7]), np.array([5000, 0, 1000, 1, 0, 300])
    assert crc32_parts(data, starts, lengths) == [
        zlib.crc32(data[a:a + n]) for a, n in zip(starts, lengths, strict=True)]
    assert crc32_parts(b"", starts[:0], lengths[:0]) == []
    for start, length in ((0, 5001), (5001, 0), (-1, 2), (4, -1), (1 << 62, 1 << 62)):
        with pytest.raises(ValueError, match="part 0"):
            crc32_parts(data, np.array([start]), np.array([length]))
    with pytest.raises(ValueError, match="lengths"):
        crc32_parts(data, starts, lengths[:2])
