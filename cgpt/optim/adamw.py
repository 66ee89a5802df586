"""AdamW over the arena and global gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from weakref import ref

from cgpt import kernels as K
from cgpt.config import TrainConfig
from cgpt.config.declaration import check_option
from cgpt.errors import ConfigError, shown
from cgpt.models.base import Model
from cgpt.models.quantized import require_trainable
from cgpt.nn.arena import Entry, ParameterArena
from cgpt.nn.arrays import Floats
from cgpt.runtime.interrupts import Operation, uninterrupted
from cgpt.validation import check_bool, check_float, check_int, check_names, expect

LEAST_EPS = 1e-37  # about the smallest normal float32; 0 / 0 would be NaN


class AdamW:
    """Adam with decoupled weight decay; matrices decay, biases and norms do not.

    betas, eps, weight_decay  as in the paper; decay is multiplied by the learning rate
    freeze                    parameter-name patterns (fnmatch) that are left alone
    embedding_lr              learning rate of the embeddings as a multiple of that of the rest
    fresh                     start with moments of zero; False keeps those of the arena
    replaces                  the optimizer that an LLM has, where this one is to take its place
    waits                     leave the model and its moments as they are until the operations
                              `resetting` and `taking_over` are done
    A model is trained by one optimizer, which has the moments: the one that was made last. One
    before it raises ConfigError when it is asked for a step or saved. That of an LLM stays: to make
    another beside it raises ConfigError too, until `llm.optimizer = None` or with `replaces`.
    Raises ConfigError for values out of range or a pattern that fits no parameter.
    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    kind = "adamw"
    _keeper: ref[Any] | None = None

    def __init__(
        self,
        gpt: Model,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        freeze: Iterable[str] = (),
        *,
        embedding_lr: float = 1.0,
        fresh: bool = True,
        replaces: AdamW | None = None,
        waits: bool = False,
    ) -> None:
        self.gpt = require_trainable(gpt, type(self).__name__)
        expect("AdamW", replaces, (AdamW, type(None)), "an optimizer")
        fresh = check_bool("AdamW", "fresh", fresh)
        waits = check_bool("AdamW", "waits", waits)
        self._configure(betas, eps, weight_decay)
        self.freeze = check_names("AdamW", "freeze", freeze)
        self.embedding_lr = float(
            check_float("AdamW", "embedding_lr", embedding_lr, 0.0, open_below=True)
        )
        self.step_count = 0
        self._check_patterns()
        self._trained = self._spans(lambda entry: True)
        self._rates = self._rated_spans()
        self._require_free(replaces)
        self.arena.require_moments()
        if not waits:
            uninterrupted([*(self.resetting() if fresh else ()), *self.taking_over()])
        self._choose_gradients()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._repr_more()}betas={self.betas}, eps={self.eps:g}, "
            f"weight_decay={self.weight_decay:g}, step {self.step_count})"
        )

    def _repr_more(self) -> str:
        return ""

    def _configure(self, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        self.betas = _check_betas(betas)
        self.eps = float(check_float("AdamW", "eps", eps, LEAST_EPS))
        self.weight_decay = float(check_option(TrainConfig, "weight_decay", "AdamW", weight_decay))

    def _require_free(self, replaces: AdamW | None) -> None:
        """Raises ConfigError where an LLM has another optimizer, but for that one."""
        owner = self._owner()
        if owner is not self and owner is not replaces and owner is not None and owner.is_kept():
            raise ConfigError(
                "{owner}: this model is trained by llm.optimizer ({kind}), which has the "
                "moments; use that one, or set llm.optimizer = None first to let go of them",
                owner=type(self).__name__,
                kind=owner.kind,
            )

    def taking_over(self, llm: object = None) -> list[Operation]:
        """The operations by which this trains the model from now on, kept by the LLM given."""
        kept = [] if llm is None else [partial(setattr, self, "_keeper", ref(llm))]
        return [partial(setattr, self.gpt.arena, "owner", ref(self)), *kept]

    def _owner(self) -> AdamW | None:
        owner = self.gpt.arena.owner
        return None if owner is None else owner()

    def require_owner(self) -> None:
        """Raises ConfigError where another optimizer was made for the model later."""
        if self._owner() is not self:
            raise ConfigError(
                "{owner}: another optimizer was made for this model later and has the "
                "moments now; use that one, or make a new one",
                owner=type(self).__name__,
            )

    def keep(self, llm: object) -> None:
        """To be called by the LLM that has this as its `optimizer` from now on.

        Raises ConfigError where this is not the optimizer of the LLM's model.
        """
        if getattr(llm, "gpt", None) is not self.gpt:
            raise ConfigError(
                "LLM.optimizer: this optimizer trains another model than llm.gpt; make one for that"
            )
        self.require_owner()
        self._keeper = ref(llm)

    def is_kept(self) -> bool:
        """Whether an LLM has this as its `optimizer`."""
        return getattr(self._keeper and self._keeper(), "optimizer", None) is self

    @property
    def arena(self) -> ParameterArena:
        """Holds what is trained, with its gradients and moments: that of the model."""
        return self.gpt.arena

    def reset(self) -> None:
        """Begin again: moments of zero, step 1 comes next."""
        uninterrupted(self.resetting())

    def resetting(self) -> list[Operation]:
        """The operations of `reset`."""
        return [
            *(partial(moment.fill, 0) for moment in self.arena.require_moments()),
            partial(setattr, self, "step_count", 0),
        ]

    def replacing(self, weights: Floats) -> list[Operation]:
        """The operations by which what is trained gets these weights (arena.size,)."""
        return [partial(self.arena.data.__setitem__, slice(None), weights), *self.restoring()]

    def restoring(self) -> list[Operation]:
        """The operations that follow when the weights in `arena` were replaced: here none."""
        return []

    def restored(self) -> None:
        """To be called when the weights in `arena` were replaced."""
        uninterrupted(self.restoring())

    def _choose_gradients(self) -> None:
        """Let the model make the gradients that are needed, and no others."""
        self.gpt.train_only(lambda name: not self._frozen(name), {})

    def _frozen(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.freeze)

    def _by_adam(self, entry: Entry) -> bool:
        """Whether AdamW trains this parameter, where it is trained."""
        return True

    def _check_patterns(self) -> None:
        for pattern in self.freeze:
            if not any(fnmatchcase(entry.name, pattern) for entry in self.arena.entries):
                raise ConfigError(
                    "freeze: no parameter is named like '{pattern}'; gpt.parameters() "
                    "lists the names",
                    pattern=pattern,
                )

    def _spans(self, wanted: Callable[[Entry], bool]) -> list[tuple[int, int]]:
        """Spans of the arena that are trained and `wanted`, neighbours as one."""
        spans, start = [], 0
        for entry in self.arena.entries:
            if self._frozen(entry.name) or not wanted(entry):
                if entry.offset > start:
                    spans.append((start, entry.offset))
                start = entry.offset + -(-entry.size // 16) * 16
        size = self.arena.size
        return [*spans, (start, size)] if start < size else spans

    def _rated_spans(self) -> list[tuple[int, int, float]]:
        """The spans of AdamW with the factor of the learning rate in each."""
        if self.embedding_lr == 1:
            return [(a, b, 1.0) for a, b in self._spans(self._by_adam)]
        tables = self._spans(lambda entry: self._by_adam(entry) and entry.role.embeds)
        others = self._spans(lambda entry: self._by_adam(entry) and not entry.role.embeds)
        return [*((a, b, self.embedding_lr) for a, b in tables), *((a, b, 1.0) for a, b in others)]

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if self.arena.grad is not None:
            self.gpt.abandon()
            self.arena.grad.fill(0)
            self.arena.clean = True

    def step(self, lr: float, clip: float = 0.0) -> float:
        """One step; clears the gradients. Returns the global gradient norm before clipping.

        clip  largest norm: above it the whole gradient is scaled down; 0 never clips
        A norm that is not finite changes nothing, gradients included: the caller decides.
        Raises ConfigError for an lr or clip that is negative or no finite number.
        """
        lr = check_float("AdamW.step", "lr", lr, 0.0)
        if clip is not math.inf:
            clip = check_float("AdamW.step", "clip", clip, 0.0)
        norm, update = self.prepared(lr, clip)
        uninterrupted(update)
        return norm

    def prepared(self, lr: float, clip: float = 0.0) -> tuple[float, list[Operation]]:
        """What `step` returns, and the operations by which it is done: none where that is not
        finite. So a caller can do it in one with updates of its own."""
        self.require_owner()
        self.gpt.abandon()
        norm = self._norm()
        if not math.isfinite(norm):
            return norm, []
        factor = clip / norm if clip > 0 and norm > clip else 1.0
        grad = self.arena.require_grad()
        cleared = [partial(grad.fill, 0)] if self.freeze else []
        return norm, [
            *self._updates(lr, factor),
            partial(setattr, self, "step_count", self.step_count + 1),
            *cleared,
            partial(setattr, self.arena, "clean", True),
        ]

    def _norm(self) -> float:
        """The global norm of the gradients of what is trained."""
        grad = self.arena.require_grad()
        return math.sqrt(sum(K.sum_of_squares(grad[a:b]) for a, b in self._trained))

    def _updates(self, lr: float, factor: float) -> list[Operation]:
        """Update what is trained by the gradients times `factor` and clear them."""
        arena = self.arena
        grad = arena.require_grad()
        m, v = arena.require_moments()
        return [
            partial(
                K.adamw,
                arena.data[a:b],
                grad[a:b],
                m[a:b],
                v[a:b],
                lr * rate,
                *self.betas,
                self.eps,
                self.weight_decay / rate,
                self.step_count + 1,
                factor,
                arena.decay_end - a,
            )
            for a, b, rate in self._rates
        ]

    def to_dict(self) -> dict[str, Any]:
        """The settings and the step count, JSON-ready; the moments are in the arena."""
        return {
            "betas": list(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "embedding_lr": self.embedding_lr,
            "freeze": list(self.freeze),
            "step_count": self.step_count,
        }

    @classmethod
    def from_dict(cls, gpt: Model, values: dict[str, Any]) -> AdamW:
        """The optimizer that to_dict() described; the moments stay as the arena has them.

        Raises ConfigError for what to_dict() cannot have given.
        """
        try:
            arguments, steps = cls._arguments(values), values["step_count"]
        except (KeyError, TypeError, IndexError, AttributeError):
            raise ConfigError(
                "{owner}: expected settings as to_dict() gives them, found {found}",
                owner=cls.__name__,
                found=shown(values, 200),
            ) from None
        optimizer = cls(gpt, **arguments, fresh=False)
        optimizer.step_count = check_int(cls.__name__, "step_count", steps, 0)
        return optimizer

    def __copy__(self) -> AdamW:
        """With a model of its own too: two optimizers of one model cannot both have the moments."""
        return deepcopy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: of a model of its own, which has the moments."""
        return _restored, (type(self), self.gpt, self.to_dict())

    @staticmethod
    def _arguments(values: dict[str, Any]) -> dict[str, Any]:
        """Arguments of __init__ for what to_dict() gave."""
        return {
            "betas": (values["betas"][0], values["betas"][1]),
            "eps": values["eps"],
            "weight_decay": values["weight_decay"],
            "embedding_lr": values.get("embedding_lr", 1.0),
            "freeze": values.get("freeze", ()),
        }


def _check_betas(betas: tuple[float, float]) -> tuple[float, float]:
    """Both as floats. Raises ConfigError for anything but two numbers of at least 0 and below 1."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ConfigError("AdamW: betas must be two numbers, found {value}", value=shown(betas))
    first, second = (
        float(check_option(TrainConfig, f"beta{i}", "AdamW", beta))
        for i, beta in enumerate(betas, 1)
    )
    return first, second


def _restored(kind: type[AdamW], gpt: Model, values: dict[str, Any]) -> AdamW:
    """The optimizer that AdamW.__reduce__ took apart."""
    return kind.from_dict(gpt, values)
