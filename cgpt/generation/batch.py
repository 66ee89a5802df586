"""Several prompts at once: one pass through the layers gives each its next token.

Prompts of unequal lengths lie side by side without padding, each with a cache of its own; a row
that has ended takes no more time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import chain

import numpy as np

from cgpt.generation.results import Dropped, FinishReason, Recorder
from cgpt.generation.sampling import Sampler, batch_request, noted_token, sample_processed
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decoder import SampleRequest
from cgpt.nn.inference import Inference
from cgpt.nn.kv_cache import new_caches
from cgpt.runtime.cancellation import Cancelled, Limit


class Rows:
    """The sequences and their caches; row i of the arrays is prompt i.

    tokens     (N, capacity) int32: what is in the caches, `lengths` (N,) of each
    forgotten  (N,) tokens that have left a cache because it was full
    """

    def __init__(self, gpt: Inference, n: int, capacity: int) -> None:
        self.decoder, self.capacity = gpt.decoder, capacity
        self.keys, self.values = new_caches(gpt.config, n, capacity)
        self.logits: Floats = np.empty((n, gpt.config.vocab_size), np.float32)
        self.tokens: Ints = np.empty((n, capacity), np.int32)
        self.lengths: Ints = np.zeros(n, np.int32)
        self.forgotten: Ints = np.zeros(n, np.int32)

    def seen(self, rows: Iterable[int]) -> list[Ints]:
        """What is in the cache of each of these rows."""
        return [self.tokens[row, : self.lengths[row]] for row in rows]

    def append(self, rows: Ints, tokens: Ints, request: SampleRequest | None = None) -> Floats:
        """One token for each of these rows; logits (n, V) behind them, until the next call.

        request  n tokens that are picked from them in the same call
        A full row first keeps its last half.
        """
        full = self.lengths[rows] == self.capacity
        if full.any():
            half = self.capacity - self.capacity // 2
            self.forgotten[rows[full]] += half
            return self.feed(
                rows,
                [
                    [*self.tokens[row, half:].tolist(), token] if over else [token]
                    for row, token, over in zip(rows, tokens.tolist(), full, strict=True)
                ],
                full,
                request,
            )
        positions = self.lengths[rows]
        self.tokens[rows, positions] = tokens
        self.lengths[rows] += 1
        return self._run(tokens, positions, rows, len(rows), request)

    def feed(
        self,
        rows: Ints,
        fresh: Sequence[Sequence[int]],
        anew: np.ndarray,
        request: SampleRequest | None = None,
        limit: Limit | None = None,
    ) -> Floats:
        """Several tokens for each of these rows, from the start where `anew`; as append.

        limit  as of Context.feed
        """
        self.lengths[rows[anew]] = 0
        sizes = np.array([len(ids) for ids in fresh])
        ids = np.fromiter(chain.from_iterable(fresh), np.int32)
        sequences = np.repeat(rows, sizes)
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions = (
            np.repeat(self.lengths[rows], sizes) + np.arange(len(ids), dtype=np.int32) - first
        )
        self.tokens[sequences, positions] = ids
        self.lengths[rows] += sizes.astype(np.int32)
        # The last tokens of all rows come last, for those are the ones that have logits.
        last = np.cumsum(sizes) - 1
        order = np.concatenate([np.delete(np.arange(len(ids)), last), last])
        ids, positions, sequences = ids[order], positions[order].astype(np.int32), sequences[order]
        if limit is not None:
            length, first_run = self.decoder.prefill_length, 0
            limit.check("prompts")
            while len(ids) - first_run - len(rows) > length:
                part = slice(first_run, first_run + length)
                self._run(ids[part], positions[part], sequences[part], 0, None)
                first_run += length
                limit.check("prompts")
            ids, positions, sequences = (
                ids[first_run:],
                positions[first_run:],
                sequences[first_run:],
            )
        return self._run(ids, positions, sequences, len(rows), request)

    def _run(
        self, ids: Ints, positions: Ints, sequences: Ints, n: int, request: SampleRequest | None
    ) -> Floats:
        logits = self.logits[:n]
        self.decoder.run(ids, positions, sequences, self.keys, self.values, logits, request)
        return logits


def steps(
    gpt: Inference,
    prompts: Sequence[Sequence[int]],
    samplers: Sequence[Sampler],
    ends: frozenset[int],
    ended: set[int],
    recorders: Sequence[Recorder] = (),
    *,
    limit: Limit | None = None,
) -> Generator[list[tuple[int, int]], None, None]:
    """At every step the tokens that follow, as pairs (number of the prompt, token).

    The samplers differ in their seed alone. A row ends with a token of `ends`, which is not given,
    after max_new_tokens, and where the caller has added its number to `ended`.
    recorders  one for each prompt, or none: note its tokens and why it ended
    limit      ends all rows; by default that of the recorders
    """
    left = samplers[0].sampling.max_new_tokens if samplers else 0
    capacity = min(gpt.config.block_size, max(map(len, prompts), default=0) + left)
    kept = [prompt[-capacity:] for prompt in prompts]
    for recorder, prompt, part in zip(recorders, prompts, kept, strict=False):
        recorder.prompt_tokens, recorder.dropped = len(part), Dropped(len(prompt) - len(part))
    if not left:
        _end_rows(recorders, range(len(recorders)), "length")
        return
    limit = recorders[0].limit if recorders else limit
    rows = Rows(gpt, len(prompts), capacity)
    live: Ints = np.arange(len(prompts), dtype=np.int32)
    tokens: Ints | None = None
    while limit is None or not limit.reached():
        own = [samplers[row] for row in live]
        request = batch_request(own)
        inside = None if own[0].has_logit_processors else request
        try:
            logits = (
                rows.feed(live, kept, live >= 0, inside, limit)
                if tokens is None
                else rows.append(live, tokens, inside)
            )
        except Cancelled:
            return
        if inside is None:
            sample_processed(own, logits, rows.seen(live), request)
        found = request.tokens.tolist()
        if min(found) < 0:
            row = int(request.tokens.argmin())
            raise own[row].nothing_left(logits[row])
        if recorders:
            _note(recorders, live.tolist(), found, ends, logits, rows.forgotten)
        tokens = request.tokens
        if not ends.isdisjoint(found):
            live, tokens = _only(live, tokens, [token not in ends for token in found])
        yield list(zip(live.tolist(), tokens.tolist(), strict=True))
        left -= 1
        if ended:
            live, tokens = _only(live, tokens, [row not in ended for row in live.tolist()])
        if not left:
            _end_rows(recorders, live.tolist(), "length")
        if not left or not len(live):
            return


def _only(live: Ints, tokens: Ints, going: list[bool]) -> tuple[Ints, Ints]:
    """Those of the rows, and of their tokens, that are going."""
    kept = np.array(going, np.bool_)
    return live[kept], tokens[kept]


def _note(
    recorders: Sequence[Recorder],
    live: list[int],
    found: list[int],
    ends: frozenset[int],
    logits: Floats,
    forgotten: Ints,
) -> None:
    """Tell the recorders of the rows what was picked for them; those with a token of `ends` end."""
    noted = recorders[0].noted if recorders[0].noted else None
    for i, (row, token) in enumerate(zip(live, found, strict=True)):
        recorder = recorders[row]
        if token in ends:
            recorder.end("stop")
        elif noted is None:
            recorder.add_id(token)
        else:
            recorder.add(noted_token(token, logits[i], noted))
    if forgotten.any():
        for row in live:
            recorders[row].later = int(forgotten[row])


def _end_rows(recorders: Sequence[Recorder], rows: Iterable[int], reason: FinishReason) -> None:
    if recorders:
        for row in rows:
            recorders[row].end(reason)
