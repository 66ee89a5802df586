"""Checks of the integer arrays and the texts that callers hand over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgpt.config import plain
from cgpt.errors import DataError, shown

Ints = NDArray[np.int32]


def int32(what: str, values: ArrayLike, least: int, end: int) -> Ints:
    """C-contiguous int32. Raises DataError for all but whole numbers from least to end - 1."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{what}: found rows of unlike length, expected a rectangular array; "
                        "lay them end to end with offsets, or pass them one by one") from None
    if array.size and array.dtype.kind not in "iu":
        raise DataError(f"{what}: found {array.dtype}, expected whole numbers")
    if array.size and (array.min() < least or array.max() >= end):
        bad = array[(array < least) | (array >= end)][0]
        raise DataError(f"{what}: found {bad}, expected {least} to {end - 1}")
    return np.ascontiguousarray(array, np.int32)


def expect_shape(what: str, array: Ints, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(f"{what}: found shape {array.shape}, expected {shape} as the ids have")


def text_list(owner: str, texts: Any) -> list[str]:
    """The texts as plain str, one by itself as a list of one.

    Raises DataError naming the first that is no text.
    """
    if isinstance(texts, str):
        return [plain(texts)]
    if isinstance(texts, (bytes, bytearray, Mapping)) or not isinstance(texts, Iterable):
        raise DataError(f"{owner}: expected a text or a list of texts, found {shown(texts)}")
    found = list(texts)
    if set(map(type, found)) <= {str}:
        return found
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(f"{owner}: expected a text at texts[{number}], found {shown(text)}")
    return list(map(plain, found))
