"""What each epoch of a phase trains on, in which order: a function of (seed, phase, epoch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain
from typing import overload
from zlib import crc32

import numpy as np

from cgpt.config import TrainConfig
from cgpt.corpus import _packing
from cgpt.corpus.documents import Documents, Samples
from cgpt.corpus.encoding import Sample
from cgpt.corpus.packing import Batch, pack
from cgpt.corpus.splitting import TooLong
from cgpt.errors import DataError, Phrase
from cgpt.runtime.forking import cached_property
from cgpt.tokenizers.tokenizer import Tokenizer


def philox_stream(seed: int, *names: int | str) -> np.random.Philox:
    """The random stream of (seed, names): the same on every machine, unlike for other names."""
    keys = [crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.Philox(np.random.SeedSequence([seed, *keys]))


def shuffled(size: int, source: np.random.Philox) -> np.ndarray:
    """0 .. size-1 in random order, int64."""
    if not size:
        return np.empty(0, np.int64)
    keys = source.random_raw(size)
    order = np.argsort(keys)
    alike = keys[order[1:]] == keys[order[:-1]]  # then only a stable sort has one result
    return np.argsort(keys, kind="stable") if alike.any() else order


def held_out_documents(size: int, fraction: float, seed: int, phase: str) -> np.ndarray:
    """(size,) bool: which of so many documents are held out, some where fraction > 0, never all.

    Raises DataError where there are too few documents.
    """
    found = np.zeros(size, dtype=bool)
    if not size:
        raise DataError("{phase}: no documents to train on; give at least one", phase=Phrase(phase))
    if not fraction:
        return found
    if size < 2:
        raise DataError(
            "{phase}: val_fraction={fraction} holds documents out for evaluation and needs "
            "at least 2, found {n}; give more or set it to 0",
            phase=Phrase(phase),
            fraction=fraction,
            n=size,
        )
    most = min(max(1, round(fraction * size)), size - 1)
    found[shuffled(size, philox_stream(seed, phase, "split"))[:most]] = True
    return found


def cut(documents: Documents, longest: int, config: TrainConfig, phase: str) -> Samples:
    """The documents as the phase trains on them.

    Raises DataError where there are longer ones and config.too_long is "error".
    """
    _refuse(documents, longest, config, phase)
    return Samples(documents, longest, config.too_long, config.learns_all(phase))


def too_long(documents: Documents, longest: int, config: TrainConfig, phase: str) -> TooLong:
    """What `cut` does to longer documents, without looking at the others.

    Raises DataError as `cut`, and where it leaves nothing.
    """
    _refuse(documents, longest, config, phase)
    long = documents.lengths > longest
    found = Samples(documents.only(long), longest, config.too_long, config.learns_all(phase))
    if not found and long.all():
        raise DataError(
            "{phase}: all {n} documents are longer than the context of {longest} tokens, "
            "and nothing is left of them; shorten them, or train a model with a longer "
            "context",
            phase=Phrase(phase),
            n=len(long),
            longest=longest,
        )
    return replace(found.too_long, of=len(documents))


def _refuse(documents: Documents, longest: int, config: TrainConfig, phase: str) -> None:
    if config.too_long != "error":
        return
    sizes = documents.lengths
    long = np.flatnonzero(sizes > longest)
    if len(long):
        raise DataError(
            "{phase}: {n} of {most} documents are longer than the context of {longest} "
            "tokens, the first is number {number} with {size} tokens; shorten them, or cut "
            "them or leave them out by too_long 'cut' or 'drop'",
            hint="too_long",
            phase=Phrase(phase),
            n=len(long),
            most=len(sizes),
            longest=longest,
            number=long[0] + 1,
            size=sizes[long[0]],
        )


def digest(samples: Samples, held_out: Samples, config: TrainConfig) -> str:
    """Hexadecimal digest of all that the batches of a phase follow from: the samples' ids,
    targets, boundaries and weights, and the settings that order and pack them."""
    found = blake2b(digest_size=16)
    order = (config.seed, config.batch_tokens, config.join_dialogues)
    found.update(np.array(order, dtype="<i8").tobytes())
    if samples.weights is not None:
        found.update(samples.weights.astype("<f8").tobytes())
    parts = [one for one in (samples, held_out) if not samples.digest or not one.digest]
    if samples.digest:
        found.update(f"{samples.digest} {held_out.digest}".encode())
    if parts:
        lengths = np.concatenate([one.lengths for one in parts])
        found.update(lengths.astype("<i8").tobytes())
    for sample in chain(*parts):
        found.update(sample.ids.astype("<i4", copy=False).tobytes())
        found.update(sample.targets.astype("<i4", copy=False).tobytes())
    return found.hexdigest()


def batch_offsets(lengths: Sequence[int] | np.ndarray, batch_tokens: int) -> np.ndarray:
    """Where the batches begin that `pack` makes of samples of these lengths, and where they end.

    No sample is longer than batch_tokens.
    """
    offsets = np.empty(len(lengths) + 1, np.int64)
    count = _packing.batch_borders(np.ascontiguousarray(lengths, np.int64), batch_tokens, offsets)
    return offsets[: count + 1].copy()


def group_offsets(
    joinable: np.ndarray, lengths: np.ndarray, rng: np.random.Generator, most: int, longest: int
) -> np.ndarray:
    """Where the groups begin in a shuffled list, and where the last one ends.

    A group is 1..most neighbours (drawn by rng), to be joined into one longer dialogue, so that a
    model learns to answer after turns that have nothing to do with the question. What is not
    `joinable` (n,) bool stays alone, and no group is longer than `longest` tokens.
    """
    offsets = np.empty(len(lengths) + 1, np.int64)
    count = _packing.group_borders(
        joinable.view(np.uint8), rng.integers(1, most + 1, len(lengths)), lengths, longest, offsets
    )
    return offsets[: count + 1].copy()


@dataclass(frozen=True)
class Plan:
    """An epoch: which samples, joined in which groups, packed in which batches.

    samples  the documents as this epoch cuts them
    order    (n,) samples;  groups  offsets into `order`;  batches  offsets into `groups`
    """

    samples: Samples
    order: np.ndarray
    groups: np.ndarray
    batches: np.ndarray


class Batches(Sequence[Batch]):
    """The batches of an epoch, each packed when it is asked for."""

    def __init__(self, plan: Plan, eos: int) -> None:
        """eos: token that stands between joined samples."""
        self._plan, self._eos = plan, eos

    def __len__(self) -> int:
        return len(self._plan.batches) - 1

    @overload
    def __getitem__(self, number: int) -> Batch: ...

    @overload
    def __getitem__(self, number: slice) -> list[Batch]: ...

    def __getitem__(self, number: int | slice) -> Batch | list[Batch]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        first, last = self._plan.batches[number : number + 2]
        samples = [self.group(i) for i in range(first, last)]
        return pack(samples, sum(map(len, samples)))[0]

    def group(self, number: int) -> Sample:
        """One sample of several dialogues: after the first, <bos> gives way to the last <eos>."""
        start, end = self._plan.groups[number : number + 2]
        rows = self._plan.order[start:end].tolist()
        samples: list[Sample] = [self._plan.samples[i] for i in rows]
        if len(samples) == 1:
            return samples[0]
        ids = np.concatenate([sample.ids for sample in samples])
        ids[np.cumsum([len(sample) for sample in samples[:-1]])] = self._eos
        return Sample(ids, np.concatenate([sample.targets for sample in samples]))


class Epochs:
    """The packed micro-batches of every epoch of one phase.

    Texts longer than `longest` are cut at its multiples in epoch 0, and at other places in each
    epoch after it where `moving_cuts`: so tokens next to a cut are not always the same ones.
    """

    def __init__(
        self,
        samples: Samples,
        tokenizer: Tokenizer,
        config: TrainConfig,
        phase: str,
        longest: int,
        *,
        moving_cuts: bool = True,
    ) -> None:
        """samples: none longer than `longest` <= config.batch_tokens; joined ones neither."""
        self._samples, self._config, self._phase = samples, config, phase
        self._longest = longest
        self._moving = moving_cuts and samples.n_long > 0
        self._tokenizer = tokenizer
        self._known: tuple[int, Plan] | None = None

    def batches(self, epoch: int) -> Batches:
        """The micro-batches of epoch 0, 1, ... in the order of training."""
        return Batches(self.plan(epoch), self._tokenizer.eos_id)

    def steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch; none crosses its end."""
        return -(-len(self.batches(epoch)) // self._config.grad_accum)

    def plan(self, epoch: int) -> Plan:
        """What is trained in an epoch; the one asked for last is kept."""
        if self._known is None or self._known[0] != epoch:
            self._known = None  # one at a time
            self._known = epoch, self._planned(epoch)
        return self._known[1]

    def _planned(self, epoch: int) -> Plan:
        config, samples = self._config, self._cut(epoch)
        source = philox_stream(config.seed, self._phase, "shuffle", epoch)
        order = self._order(samples, epoch, source)
        lengths = samples.lengths[order]
        groups = np.arange(len(order) + 1)
        if config.join_dialogues > 1:
            joinable = (
                self._joinable if samples is self._samples else (samples.joinable(self._tokenizer))
            )
            groups = group_offsets(
                joinable[order],
                lengths,
                np.random.Generator(source),
                config.join_dialogues,
                self._longest,
            )
            lengths = np.diff(np.append(0, np.cumsum(lengths))[groups])
        return Plan(samples, order, groups, batch_offsets(lengths, config.batch_tokens))

    def _cut(self, epoch: int) -> Samples:
        """The samples of an epoch."""
        if not epoch or not self._moving:
            return self._samples
        source = philox_stream(self._config.seed, self._phase, "cuts", epoch)
        draws = source.random_raw(self._samples.n_long) % np.uint64(self._longest)
        return self._samples.recut(draws.astype(np.int64))

    @cached_property
    def _joinable(self) -> np.ndarray:
        """Of the samples as they are first cut; read from the tokens once."""
        return self._samples.joinable(self._tokenizer)

    def _order(self, samples: Samples, epoch: int, source: np.random.Philox) -> np.ndarray:
        """The samples of an epoch in random order, those of a weight above 1 several times.

        For a fraction, each epoch takes another part of the samples.
        """
        weights = samples.weights
        if weights is None:
            return shuffled(len(samples), source)
        often = np.floor(weights).astype(np.int64)
        for weight in np.unique(weights[weights > often]):
            alike = np.flatnonzero(weights == weight)
            part = philox_stream(self._config.seed, self._phase, "mix", epoch, len(alike))
            size = round((weight - np.floor(weight)) * len(alike))
            often[alike[shuffled(len(alike), part)[:size]]] += 1
        chosen: np.ndarray = np.repeat(np.arange(len(often)), often)
        chosen = chosen[shuffled(len(chosen), source)]
        return chosen
