"""AdamW over the arena, global gradient clipping, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from cgpt import kernels as K
from cgpt.errors import ConfigError
from cgpt.model import GPT

_LEAST_EPS = 1e-37      # about the smallest normal float32; 0 / 0 would be NaN


class AdamW:
    """Adam with decoupled weight decay; matrices decay, biases and norms do not.

    betas, eps, weight_decay  as in the paper; decay is multiplied by the learning rate
    freeze                    parameter-name patterns (fnmatch) that are left alone
    fresh                     start with moments of zero; False keeps those of the arena
    Raises ConfigError for values out of range or a pattern that fits no parameter.
    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    def __init__(self, gpt: GPT, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
                 weight_decay: float = 0.1, freeze: Iterable[str] = (), *,
                 fresh: bool = True) -> None:
        for name, value, top in (("beta1", betas[0], 1.0), ("beta2", betas[1], 1.0),
                                 ("weight_decay", weight_decay, math.inf)):
            if not 0 <= value < top:
                raise ConfigError(f"AdamW: {name} must be in [0, {top}), found {value}")
        if not _LEAST_EPS <= eps < math.inf:
            raise ConfigError(f"AdamW: eps must be a finite number of at least {_LEAST_EPS:g}, "
                              f"found {eps}")
        self.gpt = gpt
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = float(eps)
        self.weight_decay = float(weight_decay)
        self.freeze = tuple(freeze)
        self.step_count = 0
        self._trained = self._trained_spans()
        for moment in gpt.arena.require_moments():
            if fresh:
                moment.fill(0)

    def _frozen(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.freeze)

    def _trained_spans(self) -> list[tuple[int, int]]:
        """Spans of the arena that are trained: all of it, or what lies between frozen entries."""
        arena = self.gpt.arena
        for pattern in self.freeze:
            if not any(fnmatchcase(entry.name, pattern) for entry in arena.entries):
                raise ConfigError(f"freeze: no parameter is named like '{pattern}'; "
                                  "gpt.parameters() lists the names")
        spans, start = [], 0
        for entry in arena.entries:
            if self._frozen(entry.name):
                if entry.offset > start:
                    spans.append((start, entry.offset))
                start = entry.offset + -(-entry.size // 16) * 16
        return [*spans, (start, arena.size)] if start < arena.size else spans

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        if self.gpt.arena.grad is not None:
            self.gpt.abandon()
            self.gpt.arena.grad.fill(0)
            self.gpt.arena.clean = True

    def step(self, lr: float, clip: float = 0.0) -> float:
        """One step; clears the gradients. Returns the global gradient norm before clipping.

        clip  largest norm: above it the whole gradient is scaled down; 0 never clips
        A norm that is not finite changes nothing, gradients included: the caller decides.
        Raises ConfigError for a negative or NaN lr or clip.
        """
        if not 0 <= lr < math.inf or not clip >= 0:
            raise ConfigError(f"AdamW.step: found lr={lr} and clip={clip}, expected finite numbers "
                              "of at least 0")
        arena = self.gpt.arena
        self.gpt.abandon()
        grad = arena.require_grad()
        m, v = arena.require_moments()
        norm = math.sqrt(sum(K.sum_of_squares(grad[a:b]) for a, b in self._trained))
        if not math.isfinite(norm):
            return norm
        self.step_count += 1
        factor = clip / norm if clip > 0 and norm > clip else 1.0
        for a, b in self._trained:
            K.adamw(arena.data[a:b], grad[a:b], m[a:b], v[a:b], lr, *self.betas, self.eps,
                    self.weight_decay, self.step_count, factor, arena.decay_end - a)
        if self.freeze:
            grad.fill(0)
        arena.clean = True
        return norm

    def to_dict(self) -> dict[str, Any]:
        """The settings and the step count, JSON-ready; the moments are in the arena."""
        return {"betas": list(self.betas), "eps": self.eps, "weight_decay": self.weight_decay,
                "freeze": list(self.freeze), "step_count": self.step_count}

    @classmethod
    def from_dict(cls, gpt: GPT, values: dict[str, Any]) -> AdamW:
        """The optimizer that to_dict() described; the moments stay as the arena has them."""
        optimizer = cls(gpt, (values["betas"][0], values["betas"][1]), values["eps"],
                        values["weight_decay"], values.get("freeze", ()), fresh=False)
        optimizer.step_count = int(values["step_count"])
        return optimizer


def schedule(step: int, *, lr: float, warmup: int, total: int, min_lr_ratio: float = 0.1) -> float:
    """Learning rate of step 0, 1, ...: a linear rise to lr, then a cosine to lr * min_lr_ratio.

    warmup, total  optimizer steps; the last step of `total` has the lowest rate
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    lowest = lr * min_lr_ratio
    return lowest + 0.5 * (lr - lowest) * (1 + math.cos(math.pi * progress))
