"""What each epoch of a phase trains on, in which order: a function of (seed, phase, epoch)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import TypeVar
from zlib import crc32

import numpy as np

from cgpt.config import TrainConfig
from cgpt.data import Batch, Message, Sample, join_dialogues, pack
from cgpt.errors import DataError
from cgpt.tokenizer import Tokenizer

T = TypeVar("T")


def bits(seed: int, *names: int | str) -> np.random.Philox:
    """The random stream of (seed, names): the same on every machine, unlike for other names."""
    keys = [crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.Philox(np.random.SeedSequence([seed, *keys]))


def shuffled(size: int, source: np.random.Philox) -> list[int]:
    """0 .. size-1 in random order."""
    return np.argsort(source.random_raw(size), kind="stable").tolist() if size else []


def split_documents(documents: Sequence[T], fraction: float, seed: int,
                    phase: str) -> tuple[list[T], list[T]]:
    """(training, held out): at least one document each where fraction > 0, in the order given.

    Raises DataError where there are too few documents.
    """
    if not documents:
        raise DataError(f"{phase}: no documents to train on; give at least one")
    if not fraction:
        return list(documents), []
    if len(documents) < 2:
        raise DataError(f"{phase}: val_fraction={fraction} holds documents out for evaluation and "
                        f"needs at least 2, found {len(documents)}; give more or set it to 0")
    size = min(max(1, round(fraction * len(documents))), len(documents) - 1)
    held_out = set(shuffled(len(documents), bits(seed, phase, "split"))[:size])
    return ([one for i, one in enumerate(documents) if i not in held_out],
            [documents[i] for i in sorted(held_out)])


def digest(samples: Sequence[Sample], config: TrainConfig) -> str:
    """Hexadecimal digest of all that the batches of a phase follow from: the samples' ids,
    targets and borders, and the settings that order and pack them."""
    found = blake2b(digest_size=16)
    order = (config.seed, config.batch_tokens, config.join_dialogues)
    found.update(np.array(order, dtype="<i8").tobytes())
    found.update(np.array([len(sample) for sample in samples], dtype="<i8").tobytes())
    for sample in samples:
        found.update(sample.ids.astype("<i4", copy=False).tobytes())
        found.update(sample.targets.astype("<i4", copy=False).tobytes())
    return found.hexdigest()


def count_batches(lengths: Sequence[int], batch_tokens: int) -> int:
    """Batches that `pack` makes of samples of these lengths, none longer than batch_tokens."""
    ends = list(accumulate(lengths))
    count = used = start = 0
    while start < len(ends):
        start = bisect_right(ends, used + batch_tokens, start)
        used = ends[start - 1]
        count += 1
    return count


class Epochs:
    """The packed micro-batches of every epoch of one phase."""

    def __init__(self, samples: Sequence[Sample], tokenizer: Tokenizer, config: TrainConfig,
                 phase: str, longest: int) -> None:
        """samples: none longer than `longest` <= config.batch_tokens; joined ones neither."""
        self._samples = samples
        self._config = config
        self._phase = phase
        self._longest = longest
        self._eos = tokenizer.eos_id
        self._lengths = [len(sample) for sample in samples]
        self._roles = [_role(sample, tokenizer) for sample in samples]

    def batches(self, epoch: int) -> list[Batch]:
        """The micro-batches of epoch 0, 1, ... in the order of training."""
        return pack([self._join(group) for group in self._groups(epoch)],
                    self._config.batch_tokens)

    def steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch; none crosses its end."""
        lengths = [sum(self._lengths[i] for i in group) for group in self._groups(epoch)]
        return -(-count_batches(lengths, self._config.batch_tokens) // self._config.grad_accum)

    def _groups(self, epoch: int) -> list[list[int]]:
        """The samples of an epoch in order; those of a group are joined into one."""
        source = bits(self._config.seed, self._phase, "shuffle", epoch)
        order = shuffled(len(self._samples), source)
        if self._config.join_dialogues == 1:
            return [[i] for i in order]
        # Stand-ins that carry the index instead of a text: what is joined is already encoded.
        turns = [(Message(self._roles[i], str(i)),) for i in order]
        joined = join_dialogues(turns, np.random.Generator(source), self._config.join_dialogues)
        return [part for group in joined
                for part in self._cut([int(turn.content) for turn in group])]

    def _cut(self, group: list[int]) -> list[list[int]]:
        """The group in parts of at most `longest` tokens."""
        parts: list[list[int]] = []
        room = 0
        for i in group:
            if not parts or self._lengths[i] > room:
                parts.append([])
                room = self._longest
            parts[-1].append(i)
            room -= self._lengths[i]
        return parts

    def _join(self, group: list[int]) -> Sample:
        """One sample of several dialogues: behind the first, <bos> gives way to the last <eos>."""
        if len(group) == 1:
            return self._samples[group[0]]
        ids = np.concatenate([self._samples[i].ids for i in group])
        ids[np.cumsum([self._lengths[i] for i in group[:-1]])] = self._eos
        return Sample(ids, np.concatenate([self._samples[i].targets for i in group]))


def _role(sample: Sample, tokenizer: Tokenizer) -> str:
    """ "user" for a whole dialogue without a system message, which may be joined; else "system"."""
    ids = sample.ids
    whole = (len(sample) > 1 and ids[0] == tokenizer.bos_id and ids[1] == tokenizer.user_id
             and sample.targets[-1] == tokenizer.eos_id)
    return "user" if whole else "system"
