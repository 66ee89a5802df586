"""What a model thinks of token sequences of any length: log-probabilities and hidden states.

One rule of windows for all of it. A window has at most block_size tokens and begins `stride` tokens
after the one before; of each, only the tokens that no earlier window had are counted. So every
token counts once, after at least block_size - stride tokens where there are that many. A stride
of block_size cuts the sequence into pieces, as training does; a small one gives every token nearly
a whole context and takes block_size / stride times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import numpy as np

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.corpus.encoding import IGNORED, Sample, encode_dialogue, encode_document
from cgpt.corpus.packing import Batch, packed
from cgpt.corpus.records import Dialogue
from cgpt.models.inference import InferenceModel
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.kv_cache import new_caches
from cgpt.runtime.cancellation import Limit, check
from cgpt.runtime.process_group import SINGLE_PROCESS, SingleProcess
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.validation import check_int

BATCH_TOKENS = 4096  # of one batch where nothing is trained
POOLINGS = ("mean", "last")
_TOGETHER = 16  # continuations of one prompt that are inferred side by side
_SHARED = 16  # tokens of a prompt from which on it is worth inferring once
_ROWS = 256  # whose logits are held at once

Scored = tuple[Sequence[int], int]  # ids, and the first of them that is asked for


def sample_of(tokenizer: Tokenizer, document: str | Dialogue) -> Sample:
    """A document or dialogue of any length as one sample."""
    if isinstance(document, str):
        return encode_document(tokenizer, document)
    return encode_dialogue(tokenizer, document)


def stride_of(owner: str, config: GPTConfig, stride: int | None) -> int:
    """The stride, half the context where it is None. Raises ConfigError out of range."""
    if stride is None:
        return max(1, config.block_size // 2)
    return check_int(owner, "stride", stride, 1, config.block_size)


def spans(n: int, longest: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """The windows over n tokens as (start, first that counts, end)."""
    start = counted = 0
    while counted < n:
        end = min(start + longest, n)
        yield start, counted, end
        start, counted = start + stride, end


def windows(sample: Sample, longest: int, stride: int) -> Iterator[Sample]:
    """A sample cut by the rule above; windows in which nothing that counts carries loss are left
    out."""
    if len(sample) <= longest:
        if (sample.targets != IGNORED).any():
            yield sample
        return
    for start, counted, end in spans(len(sample), longest, stride):
        targets = sample.targets[start:end].copy()
        targets[: counted - start] = IGNORED
        if (targets != IGNORED).any():
            yield Sample(sample.ids[start:end], targets)


def packed_windows(
    samples: Sequence[Sample], longest: int, stride: int
) -> Iterator[tuple[Batch, list[int]]]:
    """The windows of all samples in batches; with each batch the number of the sample that each
    of its documents is a window of."""
    owners: list[int] = []
    done = 0

    def cut() -> Iterator[Sample]:
        for owner, sample in enumerate(samples):
            for one in windows(sample, longest, stride):
                owners.append(owner)
                yield one

    for batch in packed(cut(), max(BATCH_TOKENS, longest)):
        n = len(batch.offsets) - 1
        yield batch, owners[done : done + n]
        done += n


def logprobs(
    gpt: InferenceModel, sequences: Sequence[Scored], stride: int, limit: Limit | None = None
) -> list[Floats]:
    """For each (ids, first), first at least 1: log-probabilities (len(ids) - first,) float32, in
    nats, of ids[first:], each after the tokens before it.

    Where several sequences have the same ids[:first] and fit the context, these are inferred once.
    Beside other sequences or alone the numbers agree to about 1e-5: sums are made in another order.
    Raises Cancelled where the limit is reached.
    """
    found: list[Floats] = [np.empty(0, np.float32) for _ in sequences]
    alone: list[int] = []
    for group in _groups(gpt, sequences):
        if len(group) == 1:
            alone += group
            continue
        for start in range(0, len(group), _TOGETHER):
            some = group[start : start + _TOGETHER]
            check(limit, "LLM.score")
            for number, values in zip(
                some, _after_shared_prompt(gpt, [sequences[number] for number in some]), strict=True
            ):
                found[number] = values
    parts: list[list[Floats]] = [[] for _ in sequences]
    samples = [_sample(*sequences[number]) for number in alone]
    for batch, owners in packed_windows(samples, gpt.config.block_size, stride):
        check(limit, "LLM.score")
        losses = gpt.losses(batch.ids, batch.targets, offsets=batch.offsets)
        for owner, (start, end) in zip(owners, pairwise(batch.offsets), strict=True):
            counted = batch.targets[start:end] != IGNORED
            parts[alone[owner]].append(-losses[start:end][counted])
    for number in alone:
        found[number] = np.concatenate([found[number], *parts[number]])
    return found


def _sample(ids: Sequence[int], first: int) -> Sample:
    """ids in which ids[first:] carry loss."""
    tokens = np.array(ids, np.int32)
    targets = tokens[1:].copy()
    targets[: first - 1] = IGNORED
    return Sample(tokens[:-1], targets)


def _groups(gpt: InferenceModel, sequences: Sequence[Scored]) -> list[list[int]]:
    """Numbers of sequences that are computed together since they share a prompt; others alone."""
    found: dict[object, list[int]] = {}
    for number, (ids, first) in enumerate(sequences):
        shares = first >= _SHARED and len(ids) - 1 <= gpt.config.block_size
        found.setdefault(tuple(ids[:first]) if shares else number, []).append(number)
    return list(found.values())


def _after_shared_prompt(gpt: InferenceModel, sequences: Sequence[Scored]) -> list[Floats]:
    """The log-probabilities of sequences with the same ids[:first], which are inferred once."""
    decoder, config, n = gpt.decoder, gpt.config, len(sequences)
    ids, first = sequences[0]
    keys, values = new_caches(config, n, max(len(one) for one, _ in sequences) - 1)
    logits: Floats = np.empty((1, config.vocab_size), np.float32)
    decoder.run(
        np.array(ids[:first], np.int32),
        np.arange(first, dtype=np.int32),
        np.zeros(first, np.int32),
        keys,
        values,
        logits,
    )
    for array in (keys, values):
        array[1:, :, :, :first] = array[0, :, :, :first]
    sizes = np.array([len(one) - first for one, _ in sequences])
    begins = np.cumsum(sizes) - sizes
    wanted = np.fromiter(chain.from_iterable(one[first:] for one, _ in sequences), np.int32)
    losses: Floats = np.empty(len(wanted), np.float32)
    some = begins[sizes > 0]
    losses[some] = _losses(np.repeat(logits, len(some), axis=0), wanted[some])
    # Every token but a sequence's last is fed; the one that follows it stands right after it.
    fed = np.delete(np.arange(len(wanted)), (begins + sizes - 1)[sizes > 0])
    rows = np.repeat(np.arange(n, dtype=np.int32), np.maximum(sizes - 1, 0))
    positions = (first + fed - begins[rows]).astype(np.int32)
    for start in range(0, len(fed), _ROWS):
        part = slice(start, start + _ROWS)
        logits = np.empty((len(fed[part]), config.vocab_size), np.float32)
        decoder.run(wanted[fed[part]], positions[part], rows[part], keys, values, logits)
        losses[fed[part] + 1] = _losses(logits, wanted[fed[part] + 1])
    return [-losses[start : start + size] for start, size in zip(begins, sizes, strict=True)]


def _losses(logits: Floats, targets: Ints) -> Floats:
    found: Floats = np.empty(len(targets), np.float32)
    K.cross_entropy(logits, targets, found, 1.0, False)
    return found


def embeddings(
    gpt: InferenceModel,
    sequences: Sequence[Scored],
    pooling: str,
    stride: int,
    limit: Limit | None = None,
) -> Floats:
    """(n, C) float32: the final norm's output of ids[first:] of each (ids, first), its mean over
    them ("mean") or that of the last of them ("last").

    Beside other sequences or alone the numbers agree to about 1e-5. Raises Cancelled where the
    limit is reached.
    """
    totals = np.zeros((len(sequences), gpt.config.n_embd))
    counts = np.zeros(len(sequences))
    samples = []
    for ids, first in sequences:
        tokens = np.array(ids, np.int32)
        samples.append(Sample(tokens, np.where(np.arange(len(tokens)) < first, IGNORED, tokens)))
    for batch, owners in packed_windows(samples, gpt.config.block_size, stride):
        check(limit, "LLM.embed")
        hidden = gpt.hidden(batch.ids, offsets=batch.offsets)
        for owner, (start, end) in zip(owners, pairwise(batch.offsets), strict=True):
            rows = hidden[start:end][batch.targets[start:end] != IGNORED]
            if pooling == "last":
                totals[owner], counts[owner] = rows[-1], 1
            else:
                totals[owner] += rows.sum(axis=0, dtype=np.float64)
                counts[owner] += len(rows)
    return (totals / counts[:, None]).astype(np.float32)


def summed_loss(
    gpt: InferenceModel, samples: Sequence[Sample], processes: SingleProcess = SINGLE_PROCESS
) -> tuple[float, int]:
    """(sum of the loss in nats, counted tokens) of the samples, which the processes share.

    The sum is made in the order of the batches: the same bits for any number of processes.
    """
    found, counted = [], 0
    for i, batch in enumerate(packed(samples, max(BATCH_TOKENS, gpt.config.block_size))):
        mine = i % processes.size == processes.rank
        loss = (
            gpt.loss(batch.ids, batch.targets, offsets=batch.offsets, positions=batch.positions)
            if mine
            else 0.0
        )
        found.append(loss * batch.counted)
        counted += batch.counted
    total = 0.0
    for one in processes.summed(np.array(found)).tolist():
        total += one
    return total, counted
