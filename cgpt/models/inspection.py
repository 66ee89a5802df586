"""What a look inside a model shows: hidden states and attention weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cgpt.config import GPTConfig
from cgpt.errors import DataError
from cgpt.nn.arrays import Floats, Ints, expect_ids


@dataclass(frozen=True)
class Inspection:
    """What a model computed for one sequence of T tokens.

    hidden     (L + 1, T, C) float32: the residual stream before the first block and after each
    attention  (L, H, T, T) float32: what query t (third axis) gives to key s (fourth); rows add
               up to 1, keys after the query have 0
    logits     (T, V) float32: after each token
    """

    hidden: Floats
    attention: Floats
    logits: Floats


def check_sequence(ids: ArrayLike, config: GPTConfig) -> Ints:
    """ids (T,), at most a context of them. Raises DataError for any other."""
    flat, most = np.asarray(ids), config.block_size
    if flat.ndim != 1 or not 1 <= len(flat) <= most or flat.dtype.kind not in "iu":
        raise DataError(
            "inspect: found {dtype} of shape {shape}, expected 1 to {most} whole numbers",
            dtype=flat.dtype,
            shape=flat.shape,
            most=config.block_size,
        )
    expect_ids(flat, config.vocab_size)
    return flat.astype(np.int32)
