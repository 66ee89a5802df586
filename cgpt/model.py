"""GPT: the graph, declared once; forward, backward and inference follow from it.

Exactly GPT-2: learned positions, layer norm before each branch, fused queries, keys and values,
GELU (tanh), a final layer norm and a head tied to the token embedding.
Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cgpt import kernels as K
from cgpt.arena import Entry, Floats, Parameter, ParameterArena, Workspace, layout
from cgpt.arrays import Ints, expect_shape, int32
from cgpt.block import Block
from cgpt.config import GPTConfig, _check_int
from cgpt.errors import ConfigError, DataError
from cgpt.forking import ForkLock, renew_after_fork
from cgpt.head import Head, TiedHead
from cgpt.inference import Inference
from cgpt.kvcache import KVCache
from cgpt.layers import Embedding, InputLayer, Layer, LayerNorm, Step
from cgpt.weights import StoredTensor

if TYPE_CHECKING:
    from cgpt.inspection import Inspection

_HEAD_ROWS = 256      # rows whose logits are held at once where no gradient is wanted
_TOP = 4              # gradient slot of layers outside a branch (a branch has slots 0 to 3)


@dataclass(frozen=True)
class LayerRecord:
    """A layer as checkpoints list it: its name, its class and its parameters' names."""

    name: str
    type: str
    parameters: tuple[str, ...]


class GPT(Inference):
    """A GPT-2 graph with its parameters. `_declare` and `_layers` are the graph, all else follows.

    config     shape of the graph
    seed       of the initial weights: normal(0, 0.02), residual projections 1/sqrt(2L) of it
    weights    a flat float32 array laid out as `GPT.layout(config)`, used without copying and
               possibly read-only, instead of fresh weights
    recompute  of each block keep only the output for the backward pass, which then computes the
               block again: less memory, more time, the same bits; may be set between steps
    Any number of Python threads may infer, generate and ask for losses and logits at once (they
    take turns); training is for one thread that has the model to itself.
    """

    embedding: InputLayer
    ln_f: Layer
    head: Head

    def __init__(self, config: GPTConfig, seed: int = 0, weights: Floats | None = None, *,
                 recompute: bool = False) -> None:
        seed = _check_int("GPT", "seed", seed, 0)
        self.config = config
        self.recompute = recompute
        self._declare()
        self.blocks[-1].attn.narrows = True
        named = dict(self._named_parameters())
        self._arena = ParameterArena(layout(named.items()), weights)
        self._parameters = named
        for name, parameter in named.items():
            parameter.data = self.arena.view(name)
        if weights is None:         # else numpy.random, which takes long to load, is not needed
            rng = np.random.Generator(np.random.PCG64(seed))
            for parameter in named.values():
                parameter.data[...] = parameter.initial(rng)
        self._training: Workspace | None = None
        self._inference: Workspace | None = None
        self._planned: Workspace | None = None
        self._step: Step | None = None
        self._turn = ForkLock()     # the buffers belong to one pass at a time
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child of os.fork(): no pass of another thread goes on, so no buffer is in use."""
        self._planned = None        # another thread may have placed half of them
        self._step = None

    # The graph

    def _declare(self) -> None:
        config = self.config
        self.embedding = Embedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [Block(config, i) for i in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)
        self.head = TiedHead(self.embedding)

    def _layers(self) -> list[tuple[str, Layer]]:
        blocks = [(f"h.{i}", block) for i, block in enumerate(self.blocks)]
        return [("embedding", self.embedding), *blocks, ("ln_f", self.ln_f), ("head", self.head)]

    def _named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, layer in self._layers():
            yield from layer.named_parameters(name)

    @classmethod
    def layout(cls, config: GPTConfig) -> list[Entry]:
        """Name, shape and place of every parameter of a model of this shape; allocates nothing."""
        graph = object.__new__(cls)
        graph.config = config
        graph._declare()
        return layout(graph._named_parameters())

    def layer_records(self) -> list[LayerRecord]:
        """The layers in order, as checkpoints and `cgpt info` list them."""
        return [LayerRecord(name, type(layer).__name__,
                            tuple(n for n, _ in layer.named_parameters(name)))
                for name, layer in self._layers()]

    # Parameters

    @property
    def arena(self) -> ParameterArena:
        """The flat arrays of all parameters, and of what training keeps for each."""
        return self._arena

    @property
    def n_parameters(self) -> int:
        """Number of learned values."""
        return sum(entry.size for entry in self.arena.entries)

    def parameters(self) -> dict[str, Floats]:
        """Every parameter by name, as float32 views into the arena."""
        return {name: parameter.data for name, parameter in self._parameters.items()}

    def gradients(self) -> dict[str, Floats]:
        """Every gradient by name, as float32 views; zeros before the first backward pass.

        Between forward() and backward() that of the token embedding may hold the head's share.
        """
        self._require_grad()
        return {name: parameter.grad for name, parameter in self._parameters.items()}

    def load_parameters(self, values: Mapping[str, ArrayLike]) -> None:
        """Copy arrays in by name; all names, and only they, with their shapes.

        Raises ConfigError naming the first array that is missing, unknown or of another shape;
        nothing is changed then.
        """
        self.arena.require_writable()
        arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
        for name in arrays:
            if name not in self._parameters:
                raise ConfigError(f"load_parameters: this model has no parameter '{name}'; "
                                  "parameters() lists what it has")
        for name, parameter in self._parameters.items():
            if name not in arrays:
                raise ConfigError(f"load_parameters: '{name}' is missing; give an array for every "
                                  "name of parameters()")
            if arrays[name].shape != parameter.shape:
                raise ConfigError(f"load_parameters: '{name}' has shape {arrays[name].shape}, "
                                  f"expected {parameter.shape}")
        for name, array in arrays.items():
            self._parameters[name].data[...] = array

    def train_only(self, wanted: Callable[[str], bool],
                   adapters: Mapping[str, Callable[[Floats, Floats], object]]) -> None:
        """Say which gradients backward() is to make, until it is said again; at first all.

        wanted    tells it for a parameter's name; gradients of others mean nothing
        adapters  by the name of a Linear's weight (see Parameter)
        """
        for name, parameter in self._parameters.items():
            parameter.trained, parameter.adapter = wanted(name), adapters.get(name)

    def _require_grad(self) -> None:
        grad = self.arena.require_grad()
        if not hasattr(self.embedding.wte, "grad"):
            for name, parameter in reversed(self._parameters.items()):      # that of wte last
                parameter.grad = self.arena.view(name, grad)

    # Passes

    def reserve(self, rows: int, *, training: bool = True) -> None:
        """Place every activation buffer for batches of up to `rows` tokens."""
        workspace = self._training if training else self._inference
        recompute = training and self.recompute
        if workspace is None or workspace.rows < rows or workspace.recompute != recompute:
            workspace = Workspace(rows, keep=training, recompute=recompute)
            self._plan(workspace)      # once to learn the largest size of each shared buffer
            workspace.place()
            if training:
                self._training = workspace
            else:
                self._inference = workspace
        if workspace is not self._planned:
            self._plan(workspace)
            self._planned = workspace
            self.abandon()              # what backward() would read lies in other buffers

    def _plan(self, workspace: Workspace) -> None:
        for _, layer in self._layers():
            layer.plan(workspace, _TOP)

    def _prepare(self, ids: ArrayLike, offsets: ArrayLike | None,
                 positions: ArrayLike | None) -> tuple[Ints, Step]:
        """Flat ids (N,) and the step of a (B, T) or an offsets batch; checks ranges."""
        array = self._tokens("ids", ids, 0)
        if offsets is None:
            if array.ndim != 2 or array.size == 0:
                raise DataError(f"ids: found shape {array.shape}, expected (B, T) with at least "
                                "one token, or (N,) together with offsets")
            B, T = array.shape
            borders = np.arange(0, B * T + 1, T, dtype=np.int32)
        else:
            borders = int32("offsets", offsets, 0, array.size + 1)
        flat = array.reshape(-1)
        if borders.ndim != 1 or len(borders) < 2 or borders[0] != 0 or borders[-1] != len(flat):
            raise DataError(f"offsets: must run from 0 to the {len(flat)} tokens of the batch, "
                            f"found {borders.tolist()!r:.60}")
        lengths = np.diff(borders)
        if lengths.min() < 1 or lengths.max() > self.config.block_size:
            bad = lengths[(lengths < 1) | (lengths > self.config.block_size)][0]
            raise DataError(f"ids: a document of {bad} tokens, expected 1 to "
                            f"{self.config.block_size} (block_size)")
        if positions is None:
            places = np.arange(len(flat), dtype=np.int32) - np.repeat(borders[:-1], lengths)
        else:
            places = int32("positions", positions, 0, self.config.block_size)
            expect_shape("positions", places, flat.shape)
        return flat, Step(borders, places)

    def _targets(self, targets: ArrayLike, ids: ArrayLike) -> Ints:
        """Flat targets (N,) of as many ids; checks range and shape."""
        wanted = self._tokens("targets", targets, -1)
        expect_shape("targets", wanted, np.shape(ids))
        return wanted.reshape(-1)

    def inspect(self, ids: ArrayLike) -> Inspection:
        """Hidden states and attention weights for ids (T,): see cgpt.inspection.inspect."""
        from cgpt.inspection import inspect

        return inspect(self, ids)

    def _normed(self, ids: Ints, step: Step, rows: Ints, *, training: bool = False) -> Floats:
        """The final norm (R, C) of the rows (R,), rising, out of N; ends what backward() could use.

        Other rows are left out where no row needs them: behind the last block's keys and values.
        """
        self.reserve(len(ids), training=training)
        self.abandon()
        x = self.embedding.embed(ids, step)
        *earlier, last = self.blocks
        for block in earlier:
            x = block.forward(x, step)
        return self.ln_f.forward(last.forward(x, step, rows if len(rows) < len(x) else None), step)

    def forward(self, ids: ArrayLike, targets: ArrayLike, *, offsets: ArrayLike | None = None,
                positions: ArrayLike | None = None, dropout: float = 0.0, dropout_key: int = 0,
                scale: float | None = None, backward: bool = True,
                label_smoothing: float = 0.0) -> float:
        """Mean cross-entropy in nats over the counted tokens; 0 where none is counted.

        ids, targets  (B, T) int32, or (N,) with offsets; a target of -1 is ignored
        offsets       (D + 1,) int32 borders of documents that do not see each other
        positions     (N,) int32, default 0, 1, ... in each document
        dropout       probability, with `dropout_key` naming the masks
        scale         factor of the gradient, default 1 / counted tokens (so that accumulated
                      batches can be scaled by the count of all of them)
        backward      False keeps nothing for backward() and needs less memory
        label_smoothing  share of each target that is spread over the vocabulary
        Raises DataError for shapes or ids that do not fit the model, ConfigError for a dropout or
        label_smoothing out of range.
        """
        flat, step = self._prepare(ids, offsets, positions)
        wanted = self._targets(targets, ids)
        if not backward:
            losses = self._losses(flat, wanted, step)
            return float(losses.sum(dtype=np.float64) / max(np.count_nonzero(wanted >= 0), 1))
        for name, value in (("dropout", dropout), ("label_smoothing", label_smoothing)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name}: found {value}, expected at least 0 and below 1")
        step.dropout, step.key = dropout, dropout_key
        with self._turn:
            counted = np.flatnonzero(wanted >= 0).astype(np.int32)
            x = self._normed(flat, step, counted, training=True)
            if self.arena.data.flags.writeable:     # read-only weights have no backward()
                self._require_grad()
            add = self.arena.grad is not None and (self.arena.clean or not self.head.trained)
            total = self.head.loss(x, wanted[counted], scale, add=add, smoothing=label_smoothing)
            self._step = step
        return total / max(len(counted), 1)

    def abandon(self) -> None:
        """Forget the last forward(): no backward() will come. The gradients are as before it."""
        self._step = None
        self.head.abandon()

    def block_names(self) -> list[str]:
        """Names of the blocks, in order: their parameters begin with them."""
        return [name for name, layer in self._layers() if layer in self.blocks]

    def backward(self, finished: Callable[[str], object] | None = None) -> None:
        """Add the gradient of the last forward() into the arena. Raises ConfigError without one.

        finished  is called with a block's name when its parameters' gradients are complete
        """
        step = self._step
        if step is None:
            raise ConfigError("backward: call forward(ids, targets) first, once for each backward")
        self._step, self.arena.clean = None, False
        recompute = self._training is not None and self._training.recompute
        dx = self.ln_f.backward(self.head.gradient(), step)
        for name, block in zip(reversed(self.block_names()), reversed(self.blocks), strict=True):
            if block is not self.blocks[-1] and recompute:
                block.again(step)
            dx = block.backward(dx, step)
            if finished is not None:
                finished(name)
        self.embedding.backward(dx, step)

    def losses(self, ids: ArrayLike, targets: ArrayLike, *,
               offsets: ArrayLike | None = None) -> Floats:
        """Cross-entropy (N,) in nats of each token, 0 where the target is -1."""
        flat, step = self._prepare(ids, offsets, None)
        return self._losses(flat, self._targets(targets, ids), step)

    def _losses(self, ids: Ints, targets: Ints, step: Step) -> Floats:
        losses = np.zeros(len(ids), np.float32)
        counted = np.flatnonzero(targets >= 0).astype(np.int32)
        for rows, logits in self._logits_of(ids, counted, step):
            found = np.empty(len(rows), np.float32)
            K.cross_entropy(logits, targets[rows], found, 1.0, False)
            losses[rows] = found
        return losses

    def logits(self, ids: ArrayLike) -> Floats:
        """Logits (B, T, V) float32 of ids (B, T)."""
        flat, step = self._prepare(ids, None, None)
        found = np.empty((len(flat), self.config.vocab_size), np.float32)
        for rows, logits in self._logits_of(flat, np.arange(len(flat), dtype=np.int32), step):
            found[rows] = logits
        return found.reshape(*np.shape(ids), -1)

    def hidden(self, ids: ArrayLike, *, offsets: ArrayLike | None = None) -> Floats:
        """The final norm's output, from which the head makes the logits: (B, T, C) float32 of ids
        (B, T), or (N, C) of ids (N,) with offsets as of forward()."""
        flat, step = self._prepare(ids, offsets, None)
        shape = np.shape(ids) if offsets is None else flat.shape
        return self._hidden(flat, step).reshape(*shape, -1)

    def _hidden(self, ids: Ints, step: Step) -> Floats:
        with self._turn:
            return self._normed(ids, step, np.arange(len(ids), dtype=np.int32)).copy()

    def _logits_of(self, ids: Ints, rows: Ints, step: Step) -> Iterator[tuple[Ints, Floats]]:
        """The rows asked for, some at a time, with their logits, which the next ones overwrite."""
        logits = np.empty((min(_HEAD_ROWS, len(rows)), self.config.vocab_size), np.float32)
        with self._turn:
            x = self._normed(ids, step, rows)
            for start in range(0, len(rows), _HEAD_ROWS):
                part = slice(start, start + _HEAD_ROWS)
                yield rows[part], self.head.project(x[part], logits[:len(x[part])])

    # Inference (the rest of it in inference.py)

    def stored(self) -> dict[str, StoredTensor]:
        """Every parameter by name, as views into the arena."""
        return {name: StoredTensor(value) for name, value in self.parameters().items()}

    def _append_by_layers(self, ids: Ints, places: Ints, cache: KVCache, logits: Floats) -> None:
        step = Step(np.array([0, len(ids)], np.int32), places, cache=cache)
        rows = np.arange(len(ids) - len(logits), len(ids), dtype=np.int32)
        with self._turn:
            self.head.project(self._normed(ids, step, rows), logits)
