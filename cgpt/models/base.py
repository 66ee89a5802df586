"""Model: a graph with float32 weights that may learn: forward, backward, logits, inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cgpt.config import GPTConfig
from cgpt.errors import ConfigError, DataError
from cgpt.models.graph import Graph
from cgpt.models.inference import InferenceModel
from cgpt.models.inspection import Inspection, check_sequence
from cgpt.nn.arena import Entry, ParameterArena, aligned_copy, layout, read_only
from cgpt.nn.arrays import Floats, Ints, expect_shape, float32, real
from cgpt.nn.attention import CausalAttention
from cgpt.nn.decoder import Decoder, FusedDecoder, LayerDecoder
from cgpt.nn.heads import Loss, total_weight
from cgpt.nn.layer import GradientTargets, Step
from cgpt.nn.planning import Mode, make_plan
from cgpt.nn.quantized import StoredTensor
from cgpt.nn.workspace import Pass, Workspace
from cgpt.runtime.forking import ForkLock, cached_property, renew_after_fork
from cgpt.validation import check_bool, check_float, check_int, expect, expect_function

_HEAD_ROWS = 256  # rows whose logits are held at once where no gradient is wanted


@dataclass(frozen=True)
class _Pending:
    """The pass that backward() would go back through.

    loss          what forward() has computed; None after logits(ids, keep=True)
    logits_shape  of the logits where there is no loss
    """

    run: Pass
    step: Step
    loss: Loss | None = None
    logits_shape: tuple[int, ...] = ()


class Model(InferenceModel):
    """A graph of layers with its parameters; a family says which by `graph_class`.

    config     shape of the graph
    seed       of the initial weights: normal(0, 0.02), residual projections 1/sqrt(2L) of it
    weights    a flat float32 array laid out as `layout(config)`, used without copying and
               possibly read-only, instead of fresh weights
    recompute  of each block keep only the output for the backward pass, which then computes the
               block again: less memory, more time, the same bits; may be set between steps
    Any number of Python threads may infer, generate and ask for losses and logits at once (they
    take turns); training is for one thread that has the model to itself.
    """

    graph_class: type[Graph]

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
        self.graph = self.graph_class(config)
        named = dict(self.graph.named_parameters())
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
        self._pending: _Pending | None = None
        self._early = False  # whether forward() has added the head's gradients
        self._gradients = GradientTargets()
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
        """In a child of os.fork(): no pass of another thread goes on."""
        self._pending = None

    def _repr_more(self) -> str:
        return "" if self.arena.data.flags.writeable else ", read-only"

    @classmethod
    def layout(cls, config: GPTConfig) -> list[Entry]:
        """Name, shape and place of every parameter of a model of this shape; allocates nothing."""
        expect("GPT.layout", config, GPTConfig, "a GPTConfig")
        return cls.graph_class(config).layout()

    # Parameters

    @property
    def arena(self) -> ParameterArena:
        """The flat arrays of all parameters, and of what training keeps for each."""
        return self._arena

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
                    "load_parameters: this model has no parameter '{name}'; parameters() "
                    "lists what it has",
                    name=name,
                )
        for name, parameter in self._parameters.items():
            if name not in arrays:
                raise ConfigError(
                    "load_parameters: '{name}' is missing; give an array for every name of "
                    "parameters()",
                    name=name,
                )
            if arrays[name].shape != parameter.shape:
                raise ConfigError(
                    "load_parameters: '{name}' has shape {shape}, expected {wanted}",
                    name=name,
                    shape=arrays[name].shape,
                    wanted=parameter.shape,
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
        adapters  by the name of a Linear's weight: adapter(dy, x) takes the place of its gradient
        """
        expect_function("GPT.train_only", "wanted", wanted)
        expect("GPT.train_only", adapters, Mapping, "a dictionary")
        self._gradients = GradientTargets(
            frozenset(one for name, one in self._parameters.items() if not wanted(name)),
            {self._parameters[name]: adapter for name, adapter in adapters.items()},
        )

    def _require_grad(self) -> None:
        grad = self.arena.require_grad()
        if not hasattr(self.graph.embedding.wte, "grad"):
            for name, parameter in reversed(self._parameters.items()):  # that of wte last
                parameter.grad = self.arena.view(name, grad)

    # Passes

    def reserve(self, rows: int, *, training: bool = True) -> None:
        """Place every activation buffer for batches of up to `rows` tokens."""
        rows = check_int("GPT.reserve", "rows", rows, 1, (1 << 31) - 1)
        training = check_bool("GPT.reserve", "training", training)
        self._workspace(rows, Mode(training, recompute=training and self.recompute))

    def _workspace(self, rows: int, mode: Mode) -> Workspace:
        """A workspace for passes of up to `rows` rows: the one that there is where that serves."""
        found = self._training if mode.training else self._inference
        if found is not None and found.plan.mode == mode and found.plan.rows >= rows:
            return found
        if found is not None and found.plan.mode != mode:
            rows = max(rows, found.plan.rows)
        blocks = self.block_names()[:-1]  # the last one's activations are there still
        found = Workspace(make_plan(self.graph.layers()[:-1], self.graph.head, mode, rows, blocks))
        if mode.training:
            self.abandon()  # what backward() would read lies in other buffers
            self._training = found
        else:
            self._inference = found
        return found

    def inspect(self, ids: ArrayLike) -> Inspection:
        """Hidden states, attention weights and logits for ids (T,), from the layers themselves.

        Raises DataError for ids out of range or of a wrong shape, or more than block_size of them.
        """
        step = self._prepare(check_sequence(ids, self.config)[None], None, None)
        T, config = len(step.ids), self.config
        behind, attention = dict[str, Floats](), list[Floats]()
        logits = np.empty((T, config.vocab_size), np.float32)
        with self._turn:
            run = self._pass_for(step)
            for part, layer, inputs, y in run.operations(step):
                behind[part] = y.copy()  # the last one of a part stays
                if isinstance(layer, CausalAttention):
                    attention.append(layer.weights(inputs[0]))
            self.graph.head.project(run.x, logits)
        hidden = np.stack([behind[name] for name in ("embedding", *self.block_names())])
        weights = np.stack(attention) if attention else np.empty((0, config.n_head, T, T), "f4")
        return Inspection(hidden, weights, logits)

    def _run(self, step: Step, *, training: bool = False) -> Pass:
        """The layers up to the head, run; ends what backward() could use."""
        self.abandon()
        run = self._pass_for(step, training=training)
        run.forward(step)
        return run

    def _pass_for(self, step: Step, *, training: bool = False) -> Pass:
        """The layers up to the head with arrays for such a step, not run yet."""
        mode = Mode(training, step.dropout > 0, training and self.recompute)
        return self._workspace(len(step.ids), mode).bind(len(step.ids), len(step.rows))

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
        if not check_bool("GPT", "backward", backward):
            return self.loss(ids, targets, weights, offsets=offsets, positions=positions)
        step = self._prepare(ids, offsets, positions)
        wanted = self._targets(targets, ids)
        counted, weight = self._counted(wanted, weights, ids)
        whole = total_weight(len(counted), weight)
        step = _dropping(step, dropout, dropout_key)
        smoothing = _share("label_smoothing", label_smoothing)
        scale = 1 / whole if scale is None else check_float("GPT", "scale", scale, -math.inf)
        loss = Loss(wanted[counted], weight, scale, smoothing)
        with self._turn:
            step = replace(step, rows=counted)
            run = self._run(step, training=True)
            if self.arena.data.flags.writeable:  # read-only weights have no backward()
                self._require_grad()
            clean = self.arena.clean or not self._gradients.wants(
                self.graph.head.table, self.graph.head.bias
            )
            self._early = self.arena.grad is not None and clean
            total = self.graph.head.loss(run.head, loss, self._gradients if self._early else None)
            self._pending = _Pending(run, step, loss)
        return total / whole

    def abandon(self) -> None:
        """Forget the last forward(): no backward() will come. The gradients are as before it."""
        self._pending = None
        if self._early:
            self.graph.head.clear_gradients()
            self._early = False

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
        pending = self._pending
        if pending is None:
            raise ConfigError(
                "backward: call forward(ids, targets) first, or logits(ids, "
                "keep=True), once for each backward"
            )
        if dlogits is not None and pending.loss is not None:
            raise ConfigError(
                "backward: forward(ids, targets) has a loss of its own; leave "
                "dlogits out, or call logits(ids, keep=True) in its place"
            )
        if dlogits is None and pending.loss is None:
            raise ConfigError(
                "backward: logits(ids, keep=True) has no loss; pass dlogits, the "
                "gradient of yours to these logits"
            )
        own = None if dlogits is None else _dlogits(dlogits, pending.logits_shape)
        run, early = pending.run, self._early
        self._pending, self._early, self.arena.clean = None, False, False
        if own is not None:
            self.graph.head.own_gradient(run.head, own, self._gradients)
        elif pending.loss is not None:
            self.graph.head.gradient(run.head, pending.loss, self._gradients, early=early)
        names = self.block_names()
        for part in run.backward(replace(pending.step, gradients=self._gradients)):
            if finished is not None and part in names:
                finished(part)

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
        step = _dropping(self._prepare(ids, offsets, positions), dropout, dropout_key)
        if not check_bool("GPT", "keep", keep):
            if dropout:
                raise ConfigError("logits: dropout is for training; pass keep=True too")
            return self._all_logits(ids, step)
        found = np.empty((len(step.ids), self.config.vocab_size), np.float32)
        shape = (*np.shape(ids), found.shape[1])
        self.arena.require_writable("logits")
        with self._turn:
            run = self._run(step, training=True)
            self._require_grad()
            self.graph.head.write_logits(run.x, found)
            self._pending = _Pending(run, step, logits_shape=shape)
        return found.reshape(shape)

    def _hidden(self, step: Step) -> Floats:
        with self._turn:
            return self._run(step).x.copy()

    def _logits_of(self, step: Step) -> Iterator[tuple[Ints, Floats]]:
        """The step's rows, some at a time, with their logits, which the next ones overwrite."""
        rows = step.rows
        logits = np.empty((min(_HEAD_ROWS, len(rows)), self.config.vocab_size), np.float32)
        with self._turn:
            x = self._run(step).x
            for start in range(0, len(rows), _HEAD_ROWS):
                part = slice(start, start + _HEAD_ROWS)
                yield rows[part], self.graph.head.project(x[part], logits[: len(x[part])])

    # Inference (the rest of it in nn/inference.py)

    def weights_mark(self) -> bytes:
        """As Inference's: of all weights, whoever wrote them."""
        return self.arena.mark()

    def stored(self) -> dict[str, StoredTensor]:
        """Every parameter by name, as views into the arena."""
        return {name: StoredTensor(value) for name, value in self.parameters().items()}

    @cached_property
    def decoder(self) -> Decoder:
        """What appends tokens to caches, with the weights as they are at that time."""
        plan = self.graph.decode_plan()
        return FusedDecoder(plan, self.stored()) if plan else LayerDecoder(self._write_logits)

    def _write_logits(self, step: Step, logits: Floats) -> None:
        with self._turn:
            self.graph.head.project(self._run(step).x, logits)


def _share(name: str, value: float) -> float:
    """The value where it is at least 0 and below 1. Raises ConfigError elsewhere."""
    return check_float("GPT", name, value, 0.0, 1.0, open_above=True)


def _dropping(step: Step, dropout: float, key: int) -> Step:
    """The step with this dropout. Raises ConfigError for one out of range."""
    key = check_int("GPT", "dropout_key", key, 0, (1 << 63) - 1)
    return replace(step, dropout=_share("dropout", dropout), key=key)


def _dlogits(values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """dlogits (N, V) float32 as given for logits of a shape. Raises DataError for others."""
    array = real("dlogits", values)
    if array.dtype.kind != "f":
        raise DataError("dlogits: found {type}, expected float32", type=array.dtype)
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
