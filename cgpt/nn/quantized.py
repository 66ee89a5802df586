"""Matrices in less memory: float16, or int8 in groups with a scale.

int8 is symmetric: a group of `group` numbers beside each other in a row has one float32 scale
s = max |x| / 127, and each number is q = round(x / s), so x ~ q * s with an error of at most s / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgpt.errors import ConfigError
from cgpt.nn.arena import Entry, Role, aligned
from cgpt.nn.arrays import Floats

GROUPS = (32, 64)
_LARGEST = 127
_LARGEST_IN = {"float16": 65504.0, "int8": 3.4e38}  # a scale is a float32
_ROWS = 1 << 20  # elements that are quantized at a time, about


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in one of the forms, read-only.

    data    float32 or float16 of the tensor's shape, or int8 (fan_out, fan_in), row by row
    scales  None, or for int8 float32 (fan_out, ceil(fan_in / group)); the last group of a row may
            be shorter
    group   numbers that share a scale; 0 where there are no scales
    """

    data: NDArray[Any]
    scales: Floats | None = None
    group: int = 0

    def floats(self) -> Floats:
        """The tensor as float32; a copy, except of float32."""
        if self.scales is None:
            return self.data.astype(np.float32, copy=False)
        target = np.empty(self.data.shape, np.float32)
        dequantize(self.data, self.scales, self.group, target)
        return target


def own_copy(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, read-only, in memory of its own that starts on a 64-byte border."""
    memory = aligned(-(-array.nbytes // 4)).view(np.uint8)[: array.nbytes]
    found = memory.view(array.dtype).reshape(array.shape)
    found[...] = array
    found.flags.writeable = False
    return found


def weight_dtype(entry: Entry, weights: str) -> str:
    """The form of a tensor in a model whose `weights` are of a form.

    Only matrices become smaller; vectors, and for int8 the position embedding (which no product
    reads), stay float32. They are a hundredth of the whole.
    """
    if not entry.role.decays or (weights == "int8" and entry.role is Role.POSITION):
        return "float32"
    return weights


def rounded(entry: Entry, x: Floats, form: str, group: int) -> StoredTensor:
    """A float32 tensor in another form. Raises ConfigError where its numbers do not fit."""
    if form == "float32":
        return StoredTensor(x)
    largest = too_large(x, form)
    if largest is not None:
        raise ConfigError(
            "weights: {largest} in '{name}' is more than {form} can hold; use float32",
            largest=largest,
            name=entry.name,
            form=form,
        )
    return (
        StoredTensor(x.astype(np.float16))
        if form == "float16"
        else StoredTensor(*quantize(x, group), group)
    )


def too_large(x: Floats, form: str) -> float | None:
    """The largest size in x where "float16" or "int8" cannot hold it (NaN where x has one)."""
    largest = float(np.abs(x).max())
    return None if largest <= _LARGEST_IN[form] else largest


def quantize(x: Floats, group: int) -> tuple[NDArray[np.int8], Floats]:
    """A float32 matrix (R, C) as int8 (R, C) and scales (R, ceil(C / group))."""
    rows, columns = x.shape
    q = np.empty(x.shape, np.int8)
    scales = np.empty((rows, -(-columns // group)), np.float32)
    step = max(1, _ROWS // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        grouped = _grouped(x[part], group)
        scale = np.abs(grouped).max(axis=2) / np.float32(_LARGEST)
        scales[part] = scale
        # A group of zeros, or of numbers so small that their scale is 0, is zeros.
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
        quantized = np.rint(grouped * inverse[:, :, None])
        np.clip(quantized, -_LARGEST, _LARGEST, out=quantized)  # 1 / scale may be infinite
        q[part] = quantized.reshape(len(quantized), -1)[:, :columns].astype(np.int8)
    return q, scales


def dequantize(q: NDArray[np.int8], scales: Floats, group: int, target: Floats) -> None:
    """target = q * scale of each group; target is float32 of q's shape."""
    rows, columns = q.shape
    step = max(1, _ROWS // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        wide = np.repeat(scales[part], group, axis=1)[:, :columns]
        np.multiply(q[part], wide, out=target[part])


def _grouped(x: Floats, group: int) -> Floats:
    """(R, C) as (R, ceil(C / group), group), filled up with zeros."""
    rows, columns = x.shape
    missing = -columns % group
    if missing:
        x = np.concatenate([x, np.zeros((rows, missing), np.float32)], axis=1)
    return x.reshape(rows, -1, group)
