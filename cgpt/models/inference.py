"""InferenceModel: what a model does without learning, whatever its weights are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from cgpt import kernels as K
from cgpt.errors import DataError, shown
from cgpt.generation.generate import TokenGenerator
from cgpt.models.graph import Graph, LayerRecord
from cgpt.models.inspection import Inspection
from cgpt.nn.arrays import Floats, Ints, expect_shape, float32, int32
from cgpt.nn.heads import total_weight, weighted_sum
from cgpt.nn.layer import Step


class InferenceModel(TokenGenerator):
    """A graph with weights: its losses, logits and hidden states, and what it generates.

    graph  its layers
    """

    graph: Graph

    def __repr__(self) -> str:
        c = self.config
        return (
            f"{type(self).__name__}({self.n_parameters:,} parameters, n_layer={c.n_layer}, "
            f"n_head={c.n_head}, n_embd={c.n_embd}, n_ff={c.n_ff}, "
            f"vocab_size={c.vocab_size}, block_size={c.block_size}{self._repr_more()})"
        )

    def _repr_more(self) -> str:
        return ""

    @property
    def n_parameters(self) -> int:
        """Number of learned values."""
        return sum(one.data.size for one in self.stored().values())

    def parameters(self) -> dict[str, Floats]:
        """Every parameter by name, in float32."""
        return {name: one.floats() for name, one in self.stored().items()}

    def layer_records(self) -> list[LayerRecord]:
        """The layers in order, as checkpoints and `cgpt info` list them."""
        return self.graph.layer_records()

    def block_names(self) -> list[str]:
        """Names of the blocks, in order: their parameters begin with them."""
        return self.graph.block_names()

    def _prepare(
        self, ids: ArrayLike, offsets: ArrayLike | None, positions: ArrayLike | None
    ) -> Step:
        """The step of a (B, T) or an offsets batch, with all rows as results; checks ranges."""
        array = self._tokens("ids", ids, 0)
        if offsets is None:
            if array.ndim != 2 or array.size == 0:
                raise DataError(
                    "ids: found shape {shape}, expected (B, T) with at least one token, or "
                    "(N,) together with offsets",
                    shape=array.shape,
                )
            B, T = array.shape
            borders = np.arange(0, B * T + 1, T, dtype=np.int32)
        else:
            borders = int32("offsets", offsets, 0, array.size + 1)
        flat = array.reshape(-1)
        if borders.ndim != 1 or len(borders) < 2 or borders[0] != 0 or borders[-1] != len(flat):
            raise DataError(
                "offsets: must run from 0 to the {n} tokens of the batch, found {value}",
                n=len(flat),
                value=shown(borders.tolist()),
            )
        lengths = np.diff(borders)
        if lengths.min() < 1 or lengths.max() > self.config.block_size:
            bad = lengths[(lengths < 1) | (lengths > self.config.block_size)][0]
            raise DataError(
                "ids: a document of {n} tokens, expected 1 to {most} (block_size)",
                n=bad,
                most=self.config.block_size,
            )
        if positions is None:
            own = np.arange(len(flat), dtype=np.int32) - np.repeat(borders[:-1], lengths)
        else:
            own = int32("positions", positions, 0, self.config.block_size)
            expect_shape("positions", own, flat.shape)
        return Step(flat, borders, own, np.arange(len(flat), dtype=np.int32))

    def _targets(self, targets: ArrayLike, ids: ArrayLike) -> Ints:
        """Flat targets (N,) of as many ids; checks range and shape."""
        wanted = self._tokens("targets", targets, -1)
        expect_shape("targets", wanted, np.shape(ids))
        return wanted.reshape(-1)

    def _counted(
        self, targets: Ints, weights: ArrayLike | None, ids: ArrayLike
    ) -> tuple[Ints, Floats | None]:
        """The rows that have a target and a weight other than 0, and their weights (None: ones)."""
        if weights is None:
            return np.flatnonzero(targets >= 0).astype(np.int32), None
        given = float32("weights", weights)
        expect_shape("weights", given, np.shape(ids))
        given = given.reshape(-1)
        counted = np.flatnonzero((targets >= 0) & (given != 0)).astype(np.int32)
        return counted, given[counted]

    def loss(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        positions: ArrayLike | None = None,
    ) -> float:
        """Mean cross-entropy in nats over the counted tokens; 0 where none is counted.

        ids, targets  (B, T) int32, or (N,) with offsets; a target of -1 is ignored
        weights       float32 of the same shape: the loss is sum(w nll) / sum(|w|) over the tokens
                      that are counted; None for ones
        offsets       (D + 1,) int32 borders of documents that do not see each other
        positions     (N,) int32, default 0, 1, ... in each document
        Raises DataError for shapes, ids or weights that do not fit the model.
        """
        step = self._prepare(ids, offsets, positions)
        wanted = self._targets(targets, ids)
        counted, weight = self._counted(wanted, weights, ids)
        losses = self._losses(wanted, step)
        total = weighted_sum(losses if weight is None else losses[counted], weight)
        return total / total_weight(len(counted), weight)

    def losses(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        *,
        offsets: ArrayLike | None = None,
        positions: ArrayLike | None = None,
    ) -> Floats:
        """Cross-entropy (N,) in nats of each token, 0 where the target is -1; ids as forward()."""
        step = self._prepare(ids, offsets, positions)
        return self._losses(self._targets(targets, ids), step)

    def _losses(self, targets: Ints, step: Step) -> Floats:
        losses = np.zeros(len(targets), np.float32)
        counted = np.flatnonzero(targets >= 0).astype(np.int32)
        for rows, logits in self._logits_of(replace(step, rows=counted)):
            found = np.empty(len(rows), np.float32)
            K.cross_entropy(logits, targets[rows], found, 1.0, False)
            losses[rows] = found
        return losses

    def logits(
        self,
        ids: ArrayLike,
        *,
        offsets: ArrayLike | None = None,
        positions: ArrayLike | None = None,
    ) -> Floats:
        """Logits (B, T, V) float32 of ids (B, T), or (N, V) of ids (N,) with offsets.

        offsets, positions   of packed documents, as loss()
        Raises DataError for ids that do not fit the model.
        """
        return self._all_logits(ids, self._prepare(ids, offsets, positions))

    def _all_logits(self, ids: ArrayLike, step: Step) -> Floats:
        found = np.empty((len(step.ids), self.config.vocab_size), np.float32)
        for some, logits in self._logits_of(step):
            found[some] = logits
        return found.reshape(*np.shape(ids), -1)

    def hidden(self, ids: ArrayLike, *, offsets: ArrayLike | None = None) -> Floats:
        """The final norm's output, from which the head makes the logits: (B, T, C) float32 of ids
        (B, T), or (N, C) of ids (N,) with offsets as of forward()."""
        step = self._prepare(ids, offsets, None)
        shape = np.shape(ids) if offsets is None else step.ids.shape
        return self._hidden(step).reshape(*shape, -1)

    def _hidden(self, step: Step) -> Floats:
        """(N, C) behind the last layer before the head."""
        raise NotImplementedError

    def _logits_of(self, step: Step) -> Iterator[tuple[Ints, Floats]]:
        """The step's rows, some at a time, with their logits, which the next ones overwrite."""
        raise NotImplementedError

    def inspect(self, ids: ArrayLike) -> Inspection:
        """Hidden states, attention weights and logits for ids (T,), from the layers themselves.

        Raises DataError for ids out of range or of a wrong shape, or more than block_size of them.
        """
        raise NotImplementedError
