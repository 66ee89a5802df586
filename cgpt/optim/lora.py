"""LoRA: matrices that learn by the product of two narrow ones; everything else stays as it is."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np

from cgpt import kernels as K
from cgpt.config import TrainConfig
from cgpt.config.declaration import check_option
from cgpt.errors import ConfigError, shown
from cgpt.models.base import Model
from cgpt.models.quantized import require_trainable
from cgpt.nn.arena import Entry, Parameter, ParameterArena, Role, aligned_copy, layout
from cgpt.nn.arrays import Floats
from cgpt.optim.adamw import AdamW
from cgpt.runtime.interrupts import Operation
from cgpt.validation import check_int, check_names, path_text

A, B = ".lora_a", ".lora_b"  # behind the name of a matrix


def fingerprint(gpt: Model) -> str:
    """Hexadecimal digest of all weights: an adapter fits only those that it was trained on."""
    data = gpt.arena.data.astype("<f4", copy=False)
    return blake2b(data.data.cast("B"), digest_size=16).hexdigest()


class Lora(AdamW):
    """AdamW over A (rank, columns) and B (rows, rank) with W = W0 + alpha / rank B A.

    The model's own arrays hold W, so it infers as fast as ever. The gradients are dA = s B^T dW and
    dB = s dW A^T, s = alpha / rank, computed without dW, which would take a third of the time of a
    step. Weights that no pattern names stay to the bit.
    layers  patterns (fnmatch) of parameter names; matrices of the blocks among them are adapted
    seed    of A, normal with variance 1 / columns; B begins with zeros, so W begins as W0
    base    where the model with W0 was loaded from or saved to, "" where that is unknown: a file of
            the adapter then carries W0 along
    arena   holds A and B by name (`h.0.attn.c_attn.weight.lora_a`), their gradients and moments;
            moments that the model's weights have are let go
    Raises ConfigError for settings out of range or a pattern that fits no matrix.
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """

    kind = "lora"
    # Size, time and inode of the file `base` when it was compared last, and whether it was intact.
    base_seen: tuple[tuple[int, int, int], bool] | None = None

    def __init__(
        self,
        gpt: Model,
        rank: int,
        alpha: float,
        layers: Iterable[str] = ("h.*",),
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        seed: int = 0,
        base: str = "",
        replaces: AdamW | None = None,
        waits: bool = False,
    ) -> None:
        require_trainable(gpt, "LoRA")
        self.layers = check_names("LoRA", "lora_layers", layers)
        self.base, seed = path_text("LoRA: base", base), check_int("LoRA", "seed", seed, 0)
        self._matrices = self._adapted(gpt)
        self.rank = rank = check_int(
            "LoRA", "lora_rank", rank, 1, min(min(one.shape) for one in self._matrices)
        )
        self.alpha = float(check_option(TrainConfig, "lora_alpha", "LoRA", alpha))
        self._scale = np.float32(self.alpha / rank)
        self._arena = self._make_arena(seed)
        self._rows = np.empty((0, rank), np.float32)
        super().__init__(gpt, betas, eps, weight_decay, replaces=replaces, waits=waits)
        self.fingerprint = fingerprint(gpt)
        self._first = {entry.name: gpt.arena.view(entry.name).copy() for entry in self._matrices}

    def _repr_more(self) -> str:
        return (
            f"rank={self.rank}, alpha={self.alpha:g}, {len(self._matrices)} matrices, "
            f"{sum(one.size for one in self._arena.entries):,} parameters, "
        )

    def _adapted(self, gpt: Model) -> list[Entry]:
        """The matrices that the patterns name."""
        matrices = [entry for entry in gpt.arena.entries if entry.role is Role.MATRIX]
        for pattern in self.layers:
            if not any(fnmatchcase(entry.name, pattern) for entry in matrices):
                raise ConfigError(
                    "lora_layers: no matrix of the layers is named like '{pattern}'; 'h.*' "
                    "adapts them all",
                    pattern=pattern,
                )
        found = [
            entry
            for entry in matrices
            if any(fnmatchcase(entry.name, pattern) for pattern in self.layers)
        ]
        if not found:
            raise ConfigError(
                "lora_layers: found no pattern; 'h.*' adapts all matrices of the layers"
            )
        return found

    def _make_arena(self, seed: int) -> ParameterArena:
        parameters = []
        for entry in self._matrices:
            rows, columns = entry.shape
            parameters += [
                (entry.name + A, Parameter(self.rank, columns, std=columns**-0.5)),
                (entry.name + B, Parameter(rows, self.rank)),
            ]
        arena = ParameterArena(layout(parameters))
        rng = np.random.Generator(np.random.PCG64(seed))
        for name, parameter in parameters:
            arena.view(name)[...] = parameter.initial(rng)
        return arena

    def configure(self, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        """Train A and B further with these settings of AdamW; moments stay until `reset`."""
        self._configure(betas, eps, weight_decay)
        self._choose_gradients()

    def resetting(self) -> list[Operation]:
        """The operations of `reset`; moments of the model's weights are let go."""
        weights = self.gpt.arena
        return [
            *super().resetting(),
            partial(setattr, weights, "m", None),
            partial(setattr, weights, "v", None),
        ]

    @property
    def arena(self) -> ParameterArena:
        """That of A and B."""
        return self._arena

    def _choose_gradients(self) -> None:
        """No gradient of the model's own; its matrices hand theirs on as it comes."""
        pairs = {entry.name: partial(self._add_gradients, entry.name) for entry in self._matrices}
        self.gpt.train_only(lambda name: False, pairs)

    def release(self) -> None:
        """Leave the model to others, with its weights as they are now."""
        self.gpt.train_only(lambda name: True, {})
        self.gpt.arena.owner = None

    def base_weights(self, name: str) -> Floats:
        """A parameter of the model as it is without the adapter, W0 of an adapted matrix."""
        return self._first[name] if name in self._first else self.gpt.arena.view(name)

    def _add_gradients(self, name: str, dy: Floats, x: Floats) -> None:
        """dA += s B^T dy^T x and dB += s dy^T x A^T, without the product dy^T x."""
        arena, n = self.arena, len(x)
        grad = arena.require_grad()
        if len(self._rows) < n:
            self._rows = np.empty((n, self.rank), np.float32)
        narrow = self._rows[:n]
        K.linear_forward(x, arena.view(name + A), None, narrow)
        narrow *= self._scale
        K.linear_backward_weight(dy, narrow, arena.view(name + B, grad), None)
        K.linear_backward_input(dy, arena.view(name + B), narrow)
        narrow *= self._scale
        K.linear_backward_weight(narrow, x, arena.view(name + A, grad), None)

    def _updates(self, lr: float, factor: float) -> list[Operation]:
        return [*super()._updates(lr, factor), *self.restoring()]

    def restoring(self) -> list[Operation]:
        """The operations that bring the matrices in line with A and B, which have changed."""
        found: list[Operation] = []
        for entry in self._matrices:
            W = self.gpt.arena.view(entry.name)
            found += [
                partial(
                    K.linear_backward_input,
                    self.arena.view(entry.name + B),
                    self.arena.view(entry.name + A),
                    W,
                ),
                partial(np.multiply, W, self._scale, W),
                partial(np.add, W, self._first[entry.name], W),
            ]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The settings and the step count, JSON-ready; the numbers are in `arena`."""
        return {
            "kind": self.kind,
            "betas": list(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "step_count": self.step_count,
            "rank": self.rank,
            "alpha": self.alpha,
            "layers": list(self.layers),
            "base": self.base,
            "fingerprint": self.fingerprint,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: of a model of its own."""
        arena = self.arena
        return _restored, (
            type(self),
            self.gpt,
            self.to_dict(),
            self._first,
            self.base_seen,
            {
                "data": arena.data,
                "grad": None if self.gpt.arena.clean else arena.grad,
                "m": arena.m,
                "v": arena.v,
            },
        )

    @classmethod
    def from_dict(cls, gpt: Model, values: dict[str, Any]) -> Lora:
        """The adapter that to_dict() described, on its model; A, B and moments are to be read.

        Raises ConfigError for what to_dict() cannot have given.
        """
        try:
            kind, steps = values["kind"], values["step_count"]
            arguments = {
                name: values[name]
                for name in ("rank", "alpha", "layers", "betas", "eps", "weight_decay", "base")
            }
        except (KeyError, TypeError, IndexError, AttributeError):
            raise ConfigError(
                "Lora: expected settings as to_dict() gives them, found {found}",
                found=shown(values, 200),
            ) from None
        if kind != cls.kind:
            raise ConfigError(
                "optimizer: unknown kind {name}; known: {known}", name=shown(kind), known=cls.kind
            )
        found = cls(gpt, **arguments)
        found.step_count = check_int("Lora", "step_count", steps, 0)
        return found


def _restored(
    kind: type[Lora],
    gpt: Model,
    values: dict[str, Any],
    first: dict[str, Floats],
    seen: tuple[tuple[int, int, int], bool] | None,
    arrays: dict[str, Floats | None],
) -> Lora:
    """The adapter that Lora.__reduce__ took apart, on a model that has its weights."""
    lora = kind.from_dict(gpt, values)
    lora.fingerprint, lora.base_seen = values["fingerprint"], seen
    lora._first = {name: array.copy() for name, array in first.items()}
    for name, array in arrays.items():
        if array is not None:
            setattr(lora.arena, name, aligned_copy(array))
            lora.arena.clean &= name != "grad"
    return lora
