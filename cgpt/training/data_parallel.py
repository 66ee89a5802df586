"""Data-parallel training: each process takes a share of a step's documents, gradients are added.

What a process asks of the others are the methods of `runtime.process_group.SingleProcess`;
`training.mpi.Ranks` has them over MPI. A step's global batch is that of its
settings (batch_tokens * grad_accum), whatever the number of processes, so a training may
resume with another number of them. Every process holds the whole model and applies the same update
to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cgpt.corpus.packing import Batch
from cgpt.models.base import Model
from cgpt.nn.arena import ParameterArena, aligned
from cgpt.nn.arrays import Floats
from cgpt.runtime.process_group import SingleProcess

_BUCKET = 1 << 19  # least float32 elements of an all-reduce (2 MB): latency no longer shows


def share(
    batches: Sequence[Batch], grad_accum: int, rank: int, size: int
) -> list[tuple[int, int, Batch]]:
    """What process `rank` of `size` computes of a step: (micro-batch, first token of it, part).

    Whole micro-batches where `size` divides grad_accum, so that the sums are those of one process;
    else about an equal number of tokens, cut where documents end.
    """
    count = len(batches)
    if size == 1 or grad_accum % size == 0:
        return [(i, 0, batches[i]) for i in range(rank * count // size, (rank + 1) * count // size)]
    found = []
    for i, batch in enumerate(batches):
        first, last = (_nearest_document(batch, end * count / size - i) for end in (rank, rank + 1))
        if first < last:
            found.append((i, int(batch.offsets[first]), _part(batch, first, last)))
    return found


def _nearest_document(batch: Batch, fraction: float) -> int:
    """Which document begins nearest to this fraction of the batch's tokens."""
    return int(np.abs(batch.offsets - fraction * len(batch.ids)).argmin())


def _part(batch: Batch, first: int, last: int) -> Batch:
    """The documents from `first` up to `last`."""
    start, stop = batch.offsets[first], batch.offsets[last]
    targets = batch.targets[start:stop]
    return Batch(
        batch.ids[start:stop],
        targets,
        batch.offsets[first : last + 1] - start,
        batch.positions[start:stop],
        int(np.count_nonzero(targets >= 0)),
    )


class GradientSum:
    """The gradient of a step: the sum over its micro-batches, then over all processes.

    Each micro-batch's gradient is computed separately and then added, so that the bits do not
    depend on whether micro-batches are computed one after another or by as many processes. Parts of
    the arena are summed over the processes while earlier layers are still computed: see `buckets`.
    """

    def __init__(
        self, gpt: Model, parallel: SingleProcess, arena: ParameterArena | None = None
    ) -> None:
        """arena  the one with what is trained; the model's where it is not given."""
        self._gpt = gpt
        self._parallel = parallel
        self._arena = gpt.arena if arena is None else arena
        self._buckets = buckets(self._arena, gpt.block_names()) if parallel.size > 1 else []
        self._begun = 0
        self._accumulated: Floats | None = None
        self._has_accumulated = False  # whether _held has anything of this step

    def add(self, *, last: bool) -> None:
        """gpt.backward() of a micro-batch, the last of this process or not."""
        if last:
            if self._buckets:
                self._gpt.backward(finished=self._layer_done)
            else:
                self._gpt.backward()
                self._add_accumulated(0, self._arena.size)
            return
        self._gpt.backward()
        arena = self._arena
        grad = arena.require_grad()
        if self._accumulated is None:
            self._accumulated = aligned(arena.size)
        if self._has_accumulated:
            self._accumulated += grad
        else:
            np.copyto(self._accumulated, grad)
        self._has_accumulated = True
        grad.fill(0)
        arena.clean = True

    def finish(self) -> None:
        """The sum over all processes is in the arena. Raises PeerError."""
        while self._begun < len(self._buckets):
            self._begin()
        self._parallel.finish_sums()
        if self._buckets:
            self._arena.clean = False
        self._begun, self._has_accumulated = 0, False

    def _layer_done(self, name: str) -> None:
        while self._begun < len(self._buckets) and self._buckets[self._begun][0] == name:
            self._begin()
        self._parallel.progress()

    def _begin(self) -> None:
        _, start, stop = self._buckets[self._begun]
        self._add_accumulated(start, stop)
        self._parallel.begin_sum(self._arena.require_grad()[start:stop])
        self._begun += 1

    def _add_accumulated(self, start: int, stop: int) -> None:
        """Add what is held of earlier micro-batches."""
        if self._has_accumulated and self._accumulated is not None:
            self._arena.require_grad()[start:stop] += self._accumulated[start:stop]


def buckets(
    arena: ParameterArena, blocks: Sequence[str], least: int = _BUCKET
) -> list[tuple[str, int, int]]:
    """(block, start, stop): parts of the gradient, complete when backward has left the block.

    From the last block on, each of at least `least` elements; then with the name "" the rest, which
    is complete at the end: the embeddings, biases and norms, and what lies elsewhere than expected.
    """
    found: list[tuple[str, int, int]] = []
    stop = arena.decay_end
    start = stop
    for block in reversed(blocks):
        spans = [
            (entry.offset, entry.offset + entry.size)
            for entry in arena.entries
            if entry.role.decays and entry.name.startswith(f"{block}.")
        ]
        if not spans or max(end for _, end in spans) > start:
            break
        start = min(begin for begin, _ in spans)
        if stop - start >= least:
            found.append((block, start, stop))
            stop = start
    rest = [("", arena.decay_end, arena.size), ("", 0, stop)]
    return found + [(name, begin, end) for name, begin, end in rest if begin < end]
