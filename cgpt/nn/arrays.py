"""Checks of the arrays that callers pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgpt.errors import DataError

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


def int32(what: str, values: ArrayLike, least: int, end: int) -> Ints:
    """C-contiguous int32. Raises DataError for all but whole numbers from least to end - 1."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(
            "{name}: found rows of unlike length, expected a rectangular array; lay them "
            "end to end with offsets, or pass them one by one",
            name=what,
        ) from None
    if array.size and array.dtype.kind not in "iu":
        raise DataError(
            "{name}: found {dtype}, expected whole numbers", name=what, dtype=array.dtype
        )
    if array.size and (array.min() < least or array.max() >= end):
        bad = array[(array < least) | (array >= end)][0]
        raise DataError(
            "{name}: found {value}, expected {least} to {most}",
            name=what,
            value=bad,
            least=least,
            most=end - 1,
        )
    return np.ascontiguousarray(array, np.int32)


def float32(what: str, values: ArrayLike) -> Floats:
    """C-contiguous float32, the same array where it is that already.

    Raises DataError for all but real numbers that are finite as float32.
    """
    found = real(what, values)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(found, np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        bad = np.broadcast_to(found, array.shape)[~finite].flat[0]
        raise DataError(
            "{what}: found {value}, expected finite numbers that float32 can hold",
            what=what,
            value=bad,
        )
    return array


def real(what: str, values: ArrayLike) -> NDArray[np.generic]:
    """An array of real numbers of any type. Raises DataError for anything else."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(
            "{what}: found rows of unlike length, expected a rectangular array", what=what
        ) from None
    if array.dtype.kind not in "biuf":
        raise DataError("{what}: found {type}, expected real numbers", what=what, type=array.dtype)
    return array


def expect_shape(what: str, array: NDArray[Any], shape: tuple[int, ...], like: str = "ids") -> None:
    """Raises DataError for another shape than the one that `like` have."""
    if array.shape != shape:
        raise DataError(
            "{what}: found shape {shape}, expected {wanted} as the {like} have",
            what=what,
            shape=array.shape,
            wanted=shape,
            like=like,
        )


def expect_ids(ids: NDArray[Any], vocab_size: int) -> None:
    """Raises DataError where one of the ids, of which there are some, is of no token."""
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise DataError(
            "ids must be between 0 and {most}, found {low} to {high}",
            most=vocab_size - 1,
            low=ids.min(),
            high=ids.max(),
        )
