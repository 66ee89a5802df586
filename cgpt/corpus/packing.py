"""Samples -> windows of at most a context, and batches in which they lie end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cgpt.corpus.encoding import IGNORED, Sample


@dataclass(frozen=True)
class Batch:
    """Documents laid end to end, without padding.

    ids, targets, positions  (N,) int32   positions start at 0 in each document
    offsets                  (D+1,) int32 document boundaries, offsets[0] = 0, offsets[D] = N
    counted                  targets that carry loss
    """

    ids: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    positions: np.ndarray
    counted: int


def split_samples(samples: Iterable[Sample], block_size: int) -> list[Sample]:
    """Samples longer than block_size cut into windows; windows without any loss are left out."""
    windows: list[Sample] = []
    for sample in samples:
        for start in range(0, len(sample), block_size):
            targets = sample.targets[start : start + block_size]
            if (targets != IGNORED).any():
                windows.append(Sample(sample.ids[start : start + block_size], targets))
    return windows


def pack(samples: Iterable[Sample], batch_tokens: int) -> list[Batch]:
    """Batches of at most batch_tokens tokens, in the order given; the last may be short.

    A sample longer than batch_tokens is a batch of its own.
    """
    return list(packed(samples, batch_tokens))


def packed(samples: Iterable[Sample], batch_tokens: int) -> Iterator[Batch]:
    """The batches of `pack`, one by one."""
    group: list[Sample] = []
    room = batch_tokens
    for sample in samples:
        if not len(sample):
            continue
        if group and len(sample) > room:
            yield _batch(group)
            group, room = [], batch_tokens
        group.append(sample)
        room -= len(sample)
    if group:
        yield _batch(group)


def _batch(samples: list[Sample]) -> Batch:
    sizes = [len(sample) for sample in samples]
    offsets = np.zeros(len(sizes) + 1, dtype=np.int32)
    np.cumsum(sizes, out=offsets[1:])
    targets = np.concatenate([sample.targets for sample in samples])
    positions = np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], sizes)
    return Batch(
        np.concatenate([sample.ids for sample in samples]),
        targets,
        offsets,
        positions,
        int(np.count_nonzero(targets != IGNORED)),
    )
