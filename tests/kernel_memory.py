"""Where the tests of the kernels put their arrays, so that a stray read or write is seen.

A Guarded array lies in the middle of a bigger buffer full of NaNs of one bit pattern: a write
outside changes the pattern, a read outside that matters brings a NaN into the result. A Paged
array ends where a page begins that may not be touched (or begins where one ends): there even a
read without effect kills the process.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BORDER = 1024  # elements on either side of a guarded array
SENTINEL = 0x7FC0DEAD  # as float32 a NaN, as int32 an index out of every range


class Place(Protocol):
    """A copy of an array at a chosen place."""

    array: NDArray

    def check(self, name: str) -> None:
        """Raises AssertionError naming the array where something beside it was written."""


@dataclass(frozen=True)
class Problem:
    """One call of a kernel and what must come out of it.

    arguments  in the order of the kernel; arrays are copied before each call
    written    name of each array that the kernel writes -> (expected, tolerance), both float64
               or broadcast to the array's shape; "return" is the returned value
    """

    kernel: str
    arguments: dict[str, Any]
    written: dict[str, tuple[Any, Any]]


class Guarded:
    """A copy of `array` that begins `shift` bytes past a multiple of 64; twice that for float64."""

    def __init__(self, array: NDArray, shift: int = 0) -> None:
        assert array.itemsize in (4, 8) and shift % 4 == 0
        self.words = array.nbytes // 4
        shift *= array.itemsize // 4
        room = np.full(self.words + 2 * BORDER + 32, SENTINEL, np.uint32)
        first = (BORDER * 4 - room.ctypes.data) % 64 // 4 + shift // 4
        self.buffer = room[first : first + self.words + 2 * BORDER]
        self.array = self.buffer[BORDER : BORDER + self.words].view(array.dtype)
        self.array = self.array.reshape(array.shape)
        self.array[...] = array

    def check(self, name: str) -> None:
        for side, border in (
            ("before", self.buffer[:BORDER]),
            ("behind", self.buffer[BORDER + self.words :]),
        ):
            changed = np.flatnonzero(border != SENTINEL)
            assert not changed.size, f"{name}: {changed.size} elements written {side} the array"


class Misaligned(Guarded):
    """4 bytes past a multiple of 64: no vector of any instruction set is aligned there."""

    def __init__(self, array: NDArray) -> None:
        super().__init__(array, shift=4)


class Alone:
    """A copy in memory of its own, where a sanitizer sees an access to the element beside it."""

    def __init__(self, array: NDArray) -> None:
        self.array = array.copy()

    def check(self, name: str) -> None:
        """Nothing to look at: the sanitizer has ended the process already."""


class Paged:
    """A copy of `array` that ends at (at_end) or begins behind a page without access. POSIX."""

    def __init__(self, array: NDArray, at_end: bool = True) -> None:
        page = mmap.PAGESIZE
        size = -(-max(array.nbytes, 1) // page) * page
        self.room = mmap.mmap(-1, size + 2 * page)
        whole = np.frombuffer(self.room, np.uint8)
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for start in (whole.ctypes.data, whole.ctypes.data + page + size):
            if protect(ctypes.c_void_p(start), ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        first = page + (size - array.nbytes if at_end else 0)
        self.array = whole[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    def check(self, name: str) -> None:
        """Nothing to look at: a stray access has ended the process already."""


def run(
    module: ModuleType, problem: Problem, place: Callable[[NDArray], Place] = Guarded
) -> dict[str, NDArray]:
    """Calls the kernel on placed copies of its arguments; what it wrote, by name.

    Arrays that are not in problem.written are read-only, as memory-mapped weights are.
    Raises AssertionError where the kernel wrote anywhere else.
    """
    places = {
        name: place(value)
        for name, value in problem.arguments.items()
        if isinstance(value, np.ndarray)
    }
    for name, placed in places.items():
        placed.array.flags.writeable = name in problem.written
    arguments = problem.arguments | {name: placed.array for name, placed in places.items()}
    returned = getattr(module, problem.kernel)(**arguments)
    results = {}
    for name, placed in places.items():
        placed.check(name)
        if name in problem.written:
            results[name] = placed.array.copy()
        else:
            assert placed.array.tobytes() == problem.arguments[name].tobytes(), (
                f"{name}: written, though it is an input"
            )
    if returned is not None:
        results["return"] = np.asarray(returned)
    return results


def check(problem: Problem, results: Mapping[str, NDArray]) -> float:
    """Fails unless each result is within its tolerance; the worst error over its tolerance."""
    assert set(results) == set(problem.written)
    worst = 0.0
    for name, (expected, tolerance) in problem.written.items():
        found = np.asarray(results[name], dtype=np.float64)
        expected = np.asarray(expected, dtype=np.float64)
        assert found.shape == expected.shape, f"{name}: {found.shape}, not {expected.shape}"
        tolerance = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), found.shape)
        with np.errstate(invalid="ignore"):
            error = np.abs(found - expected)
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        wrong = ~(same | (error <= tolerance))
        if wrong.any():
            i = tuple(int(j[0]) for j in np.nonzero(np.atleast_1d(wrong)))
            raise AssertionError(
                f"{problem.kernel}: {name}{list(i)} and {int(wrong.sum()) - 1} more of "
                f"{wrong.size}: found {np.atleast_1d(found)[i]}, expected "
                f"{np.atleast_1d(expected)[i]} within {np.atleast_1d(tolerance)[i]:.3g}"
            )
        inside = ~same & (tolerance > 0)
        if inside.any():
            worst = max(worst, float((error[inside] / tolerance[inside]).max()))
    return worst


def same_bits(a: Mapping[str, NDArray], b: Mapping[str, NDArray]) -> bool:
    """Whether two results are equal to the last bit."""
    return set(a) == set(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)
