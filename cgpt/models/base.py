"""Model: the passes that every family has: forward, backward, logits, inference.

A family declares its layers (`_declare`; gpt2.py is the example), all else follows from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.errors import ConfigError, DataError
from cgpt.models.decoder import Decoder, FusedDecoder, LayerDecoder
from cgpt.models.inference import Inference
from cgpt.nn.arena import Entry, Floats, Parameter, ParameterArena, aligned_copy, layout, read_only
from cgpt.nn.arrays import Ints, expect_shape, float32, int32, real
from cgpt.nn.embedding import InputLayer
from cgpt.nn.heads import Head, total_weight, weighted_sum
from cgpt.nn.layer import Layer, Step
from cgpt.nn.quantized import StoredTensor
from cgpt.nn.residual import Residual
from cgpt.nn.workspace import Workspace
from cgpt.runtime.forking import ForkLock, cached_property, renew_after_fork
from cgpt.validation import check_bool, check_float, check_int, expect, expect_function

if TYPE_CHECKING:
    from cgpt.models.inspection import Inspection

_HEAD_ROWS = 256  # rows whose logits are held at once where no gradient is wanted
_TOP = 4  # gradient slot of layers outside a branch (a branch has slots 0 to 3)


@dataclass(frozen=True)
class LayerRecord:
    """A layer as checkpoints list it: its name, its kind and its parameters' names."""

    name: str
    type: str
    parameters: tuple[str, ...]


class Block(Layer):
    """Residual branches in a row, declared as attributes: first attention, if there is any."""

    branches: list[Residual]

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.branches = [layer for _, layer in self.children() if isinstance(layer, Residual)]
        self.branches[-1].always = True
        workspace.block = self.name if workspace.recompute else ""
        super().plan(workspace)
        workspace.block = ""

    def forward(self, x: Floats, step: Step, rows: Ints | None = None) -> Floats:
        """y (N, C); of the last block, whose rows no other will see, (R, C) for rows (R,)."""
        self.x = x
        for branch in self.branches:
            x, rows = branch.forward(x, step, rows), None
        return x

    def again(self, step: Step) -> None:
        """Make what backward reads again, after other blocks have used the same buffers."""
        x = self.x
        for branch in self.branches[:-1]:
            x = branch.forward(x, step)
        self.branches[-1].enter(x, step)

    def backward(self, dy: Floats, step: Step) -> Floats:
        for branch in reversed(self.branches):
            dy = branch.backward(dy, step)
        return dy


class Model(Inference):
    """A graph of layers with its parameters. `_declare` and `_layers` are the graph.

    config     shape of the graph
    seed       of the initial weights: normal(0, 0.02), residual projections 1/sqrt(2L) of it
    weights    a flat float32 array laid out as `layout(config)`, used without copying and
               possibly read-only, instead of fresh weights
    recompute  of each block keep only the output for the backward pass, which then computes the
               block again: less memory, more time, the same bits; may be set between steps
    Any number of Python threads may infer, generate and ask for losses and logits at once (they
    take turns); training is for one thread that has the model to itself.
    """

    fused = False  # whether the kernel's decoder knows the graph
    embedding: InputLayer
    blocks: Sequence[Block]
    ln_f: Layer
    head: Head

    def __init__(
        self,
        config: GPTConfig,
        seed: int = 0,
        weights: Floats | None = None,
        *,
        recompute: bool = False,
    ) -> None:
        expect("GPT", config, GPTConfig, "a GPTConfig")
        seed = check_int("GPT", "seed", seed, 0)
        self.config = config
        self.recompute = check_bool("GPT", "recompute", recompute)
        self._declare()
        next(
            one for _, one in self.blocks[-1].children() if isinstance(one, Residual)
        ).narrows = True
        named = dict(self._named_parameters())
        self._arena = ParameterArena(layout(named.items()), weights)
        self._parameters = named
        for name, parameter in named.items():
            parameter.data = self.arena.view(name)
        if weights is None:  # else numpy.random, which takes long to load, is not needed
            rng = np.random.Generator(np.random.PCG64(seed))
            for parameter in named.values():
                parameter.data[...] = parameter.initial(rng)
        self._training: Workspace | None = None
        self._inference: Workspace | None = None
        self._planned: Workspace | None = None
        self._step: Step | None = None  # of the pass that backward() would go back through
        self._logits_shape: tuple[int, ...] | None = None  # of its logits where it has no loss
        self._turn = ForkLock()  # the buffers belong to one pass at a time
        renew_after_fork(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: a model with arrays of its own, without activations or optimizer."""
        arena = self.arena
        return _restored, (
            type(self),
            self.config,
            arena.data,
            {
                "writeable": bool(arena.data.flags.writeable),
                "recompute": self.recompute,
                "grad": None if arena.clean else arena.grad,
                "m": arena.m,
                "v": arena.v,
            },
        )

    def after_fork(self) -> None:
        """In a child of os.fork(): no pass of another thread goes on, so no buffer is in use."""
        self._planned = None  # another thread may have placed half of them
        self._step = None

    def __repr__(self) -> str:
        c = self.config
        return (
            f"{type(self).__name__}({self.n_parameters:,} parameters, n_layer={c.n_layer}, "
            f"n_head={c.n_head}, n_embd={c.n_embd}, n_ff={c.n_ff}, "
            f"vocab_size={c.vocab_size}, block_size={c.block_size}{self._repr_more()})"
        )

    def _repr_more(self) -> str:
        return "" if self.arena.data.flags.writeable else ", read-only"

    # The graph

    def _declare(self) -> None:
        """Make the layers of `config`: embedding, blocks, ln_f and head."""
        raise NotImplementedError

    def _layers(self) -> list[tuple[str, Layer]]:
        blocks = [(f"h.{i}", block) for i, block in enumerate(self.blocks)]
        return [("embedding", self.embedding), *blocks, ("ln_f", self.ln_f), ("head", self.head)]

    def _named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, layer in self._layers():
            yield from layer.named_parameters(name)

    @classmethod
    def layout(cls, config: GPTConfig) -> list[Entry]:
        """Name, shape and place of every parameter of a model of this shape; allocates nothing."""
        expect("GPT.layout", config, GPTConfig, "a GPTConfig")
        graph = object.__new__(cls)
        graph.config = config
        graph._declare()
        return layout(graph._named_parameters())

    def layer_records(self) -> list[LayerRecord]:
        """The layers in order, as checkpoints and `cgpt info` list them."""
        return [
            LayerRecord(name, layer.kind, tuple(n for n, _ in layer.named_parameters(name)))
            for name, layer in self._layers()
        ]

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

        Raises ConfigError naming the first array that is missing, unknown or of another shape,
        DataError for one that has other than numbers that float32 can hold; nothing changes then.
        """
        self.arena.require_writable("load_parameters")
        expect("load_parameters", values, Mapping, "arrays by name, as parameters() gives them")
        arrays = {
            name: float32(f"load_parameters: '{name}'", value) for name, value in values.items()
        }
        for name in arrays:
            if name not in self._parameters:
                raise ConfigError(
                    f"load_parameters: this model has no parameter '{name}'; "
                    "parameters() lists what it has"
                )
        for name, parameter in self._parameters.items():
            if name not in arrays:
                raise ConfigError(
                    f"load_parameters: '{name}' is missing; give an array for every "
                    "name of parameters()"
                )
            if arrays[name].shape != parameter.shape:
                raise ConfigError(
                    f"load_parameters: '{name}' has shape {arrays[name].shape}, "
                    f"expected {parameter.shape}"
                )
        for name, array in arrays.items():
            self._parameters[name].data[...] = array

    def train_only(
        self,
        wanted: Callable[[str], bool],
        adapters: Mapping[str, Callable[[Floats, Floats], object]],
    ) -> None:
        """Say which gradients backward() is to make, until it is said again; at first all.

        wanted    tells it for a parameter's name; gradients of others mean nothing
        adapters  by the name of a Linear's weight (see Parameter)
        """
        expect_function("GPT.train_only", "wanted", wanted)
        expect("GPT.train_only", adapters, Mapping, "a dictionary")
        for name, parameter in self._parameters.items():
            parameter.trained, parameter.adapter = wanted(name), adapters.get(name)

    def _require_grad(self) -> None:
        grad = self.arena.require_grad()
        if not hasattr(self.embedding.wte, "grad"):
            for name, parameter in reversed(self._parameters.items()):  # that of wte last
                parameter.grad = self.arena.view(name, grad)

    # Passes

    def reserve(self, rows: int, *, training: bool = True) -> None:
        """Place every activation buffer for batches of up to `rows` tokens."""
        rows = check_int("GPT.reserve", "rows", rows, 1, (1 << 31) - 1)
        training = check_bool("GPT.reserve", "training", training)
        workspace = self._training if training else self._inference
        recompute = training and self.recompute
        if workspace is None or workspace.rows < rows or workspace.recompute != recompute:
            workspace = Workspace(rows, keep=training, recompute=recompute)
            self._planned = None  # so that what fails on the way is made anew
            self._plan(workspace)  # once to learn the largest size of each shared buffer
            workspace.place()
            if training:
                self._training = workspace
            else:
                self._inference = workspace
        if workspace is not self._planned:
            self._planned = None
            self._plan(workspace)
            self._planned = workspace
            self.abandon()  # what backward() would read lies in other buffers

    def _plan(self, workspace: Workspace) -> None:
        for _, layer in self._layers():
            layer.plan(workspace, _TOP)

    def _prepare(
        self, ids: ArrayLike, offsets: ArrayLike | None, positions: ArrayLike | None
    ) -> tuple[Ints, Step]:
        """Flat ids (N,) and the step of a (B, T) or an offsets batch; checks ranges."""
        array = self._tokens("ids", ids, 0)
        if offsets is None:
            if array.ndim != 2 or array.size == 0:
                raise DataError(
                    f"ids: found shape {array.shape}, expected (B, T) with at least "
                    "one token, or (N,) together with offsets"
                )
            B, T = array.shape
            borders = np.arange(0, B * T + 1, T, dtype=np.int32)
        else:
            borders = int32("offsets", offsets, 0, array.size + 1)
        flat = array.reshape(-1)
        if borders.ndim != 1 or len(borders) < 2 or borders[0] != 0 or borders[-1] != len(flat):
            raise DataError(
                f"offsets: must run from 0 to the {len(flat)} tokens of the batch, "
                f"found {borders.tolist()!r:.60}"
            )
        lengths = np.diff(borders)
        if lengths.min() < 1 or lengths.max() > self.config.block_size:
            bad = lengths[(lengths < 1) | (lengths > self.config.block_size)][0]
            raise DataError(
                f"ids: a document of {bad} tokens, expected 1 to "
                f"{self.config.block_size} (block_size)"
            )
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
        """Hidden states and attention weights for ids (T,): see cgpt.models.inspection.inspect."""
        from cgpt.models.inspection import inspect

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

    def forward(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        offsets: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        dropout: float = 0.0,
        dropout_key: int = 0,
        scale: float | None = None,
        backward: bool = True,
        label_smoothing: float = 0.0,
    ) -> float:
        """Mean cross-entropy in nats over the counted tokens; 0 where none is counted.

        ids, targets  (B, T) int32, or (N,) with offsets; a target of -1 is ignored
        weights       float32 of the same shape: the loss is sum(w nll) / sum(|w|) over the tokens
                      that are counted; None for ones
        offsets       (D + 1,) int32 borders of documents that do not see each other
        positions     (N,) int32, default 0, 1, ... in each document
        dropout       probability, with `dropout_key` naming the masks
        scale         factor of sum(w nll) in the gradient, default 1 / sum(|w|) (so that
                      accumulated batches can be scaled by the count of all of them)
        backward      False keeps nothing for backward() and needs less memory
        label_smoothing  share of each target that is spread over the vocabulary
        Raises DataError for shapes, ids or weights that do not fit the model, ConfigError for a
        dropout or label_smoothing out of range.
        """
        flat, step = self._prepare(ids, offsets, positions)
        wanted = self._targets(targets, ids)
        counted, weight = self._counted(wanted, weights, ids)
        if not check_bool("GPT", "backward", backward):
            losses = self._losses(flat, wanted, step)
            total = weighted_sum(losses if weight is None else losses[counted], weight)
            return total / total_weight(len(counted), weight)
        step.dropout = _share("dropout", dropout)
        step.key = check_int("GPT", "dropout_key", dropout_key, 0, (1 << 63) - 1)
        smoothing = _share("label_smoothing", label_smoothing)
        if scale is not None:
            scale = check_float("GPT", "scale", scale, -math.inf)
        with self._turn:
            x = self._normed(flat, step, counted, training=True)
            if self.arena.data.flags.writeable:  # read-only weights have no backward()
                self._require_grad()
            add = self.arena.grad is not None and (self.arena.clean or not self.head.trained)
            total = self.head.loss(
                x, wanted[counted], scale, add=add, smoothing=smoothing, weights=weight
            )
            self._step, self._logits_shape = step, None
        return total / total_weight(len(counted), weight)

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

    def abandon(self) -> None:
        """Forget the last forward(): no backward() will come. The gradients are as before it."""
        self._step = None
        self.head.abandon()

    def block_names(self) -> list[str]:
        """Names of the blocks, in order: their parameters begin with them."""
        return [name for name, layer in self._layers() if layer in self.blocks]

    def backward(
        self, dlogits: ArrayLike | None = None, *, finished: Callable[[str], object] | None = None
    ) -> None:
        """Add the gradient of the last pass into the arena.

        dlogits   behind logits(ids, keep=True): the gradient of a loss to these logits, of their
                  shape, float32; behind forward() it is left out
        finished  is called with a block's name when its parameters' gradients are complete
        Raises ConfigError where no such pass came before, or the weights are read-only; DataError
        for dlogits of another shape or type, or that are not finite: the gradients are as before.
        """
        expect_function("GPT.backward", "finished", finished, optional=True)
        self.arena.require_writable("backward")
        step, shape = self._step, self._logits_shape
        if step is None:
            raise ConfigError(
                "backward: call forward(ids, targets) first, or logits(ids, "
                "keep=True), once for each backward"
            )
        if dlogits is not None and shape is None:
            raise ConfigError(
                "backward: forward(ids, targets) has a loss of its own; leave "
                "dlogits out, or call logits(ids, keep=True) in its place"
            )
        own = None
        if shape is not None:
            if dlogits is None:
                raise ConfigError(
                    "backward: logits(ids, keep=True) has no loss; pass dlogits, the "
                    "gradient of yours to these logits"
                )
            own = _dlogits(dlogits, shape)
        self._step, self.arena.clean = None, False
        recompute = self._training is not None and self._training.recompute
        dx = self.head.gradient() if own is None else self.head.own_gradient(own)
        dx = self.ln_f.backward(dx, step)
        for name, block in zip(reversed(self.block_names()), reversed(self.blocks), strict=True):
            if block is not self.blocks[-1] and recompute:
                block.again(step)
            dx = block.backward(dx, step)
            if finished is not None:
                finished(name)
        self.embedding.backward(dx, step)

    def losses(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        *,
        offsets: ArrayLike | None = None,
        positions: ArrayLike | None = None,
    ) -> Floats:
        """Cross-entropy (N,) in nats of each token, 0 where the target is -1; ids as forward()."""
        flat, step = self._prepare(ids, offsets, positions)
        return self._losses(flat, self._targets(targets, ids), step)

    def _losses(self, ids: Ints, targets: Ints, step: Step) -> Floats:
        losses = np.zeros(len(ids), np.float32)
        counted = np.flatnonzero(targets >= 0).astype(np.int32)
        for rows, logits in self._logits_of(ids, counted, step):
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
        keep: bool = False,
        dropout: float = 0.0,
        dropout_key: int = 0,
    ) -> Floats:
        """Logits (B, T, V) float32 of ids (B, T), or (N, V) of ids (N,) with offsets.

        offsets, positions   of packed documents, as forward()
        keep                 keep what backward(dlogits) needs: for losses of your own
        dropout, dropout_key as forward(); only with keep
        Raises DataError for ids that do not fit the model, ConfigError where keep=True and the
        weights are read-only.
        """
        flat, step = self._prepare(ids, offsets, positions)
        found = np.empty((len(flat), self.config.vocab_size), np.float32)
        rows, shape = np.arange(len(flat), dtype=np.int32), (*np.shape(ids), found.shape[1])
        step.dropout = _share("dropout", dropout)
        step.key = check_int("GPT", "dropout_key", dropout_key, 0, (1 << 63) - 1)
        if not check_bool("GPT", "keep", keep):
            if dropout:
                raise ConfigError("logits: dropout is for training; pass keep=True too")
            for some, logits in self._logits_of(flat, rows, step):
                found[some] = logits
            return found.reshape(shape)
        self.arena.require_writable("logits")
        with self._turn:
            x = self._normed(flat, step, rows, training=True)
            self._require_grad()
            self.head.keep(x, found)
            self._step, self._logits_shape = step, shape
        return found.reshape(shape)

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
                yield rows[part], self.head.project(x[part], logits[: len(x[part])])

    # Inference (the rest of it in inference.py)

    def weights_mark(self) -> bytes:
        """As Inference's: of all weights, whoever wrote them."""
        return self.arena.mark()

    def stored(self) -> dict[str, StoredTensor]:
        """Every parameter by name, as views into the arena."""
        return {name: StoredTensor(value) for name, value in self.parameters().items()}

    @cached_property
    def decoder(self) -> Decoder:
        """What appends tokens to caches, with the weights as they are at that time."""
        if self.fused:
            return FusedDecoder(self.config, self.stored())
        return LayerDecoder(self._write_logits)

    def _write_logits(self, ids: Ints, step: Step, rows: Ints, logits: Floats) -> None:
        with self._turn:
            self.head.project(self._normed(ids, step, rows), logits)


def _share(name: str, value: float) -> float:
    """The value where it is at least 0 and below 1. Raises ConfigError elsewhere."""
    return check_float("GPT", name, value, 0.0, 1.0, open_above=True)


def _dlogits(values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """dlogits (N, V) float32 as given for logits of a shape. Raises DataError for others."""
    array = real("dlogits", values)
    if array.dtype.kind != "f":
        raise DataError(f"dlogits: found {array.dtype}, expected float32")
    expect_shape("dlogits", array, shape, "logits")
    return float32("dlogits", array).reshape(-1, shape[-1])


def _restored(kind: type[Model], config: GPTConfig, data: Floats, state: dict[str, Any]) -> Model:
    """The model that Model.__reduce__ took apart, in memory of its own."""
    weights = aligned_copy(data)
    gpt = kind(
        config,
        weights=weights if state["writeable"] else read_only(weights),
        recompute=state["recompute"],
    )
    for name in ("grad", "m", "v"):
        if state[name] is not None:
            setattr(gpt.arena, name, aligned_copy(state[name]))
            gpt.arena.clean &= name != "grad"
    return gpt
