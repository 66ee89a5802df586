"""The compiled checksums against zlib's."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from cgpt.checkpoint._codec import crc32


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
