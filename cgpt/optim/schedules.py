"""Learning rate of every step: a warm-up, then one of several ways down."""

from __future__ import annotations

import math
from collections.abc import Callable

from cgpt.config import SCHEDULES, TrainConfig
from cgpt.config.declaration import check_option
from cgpt.validation import check_choice, check_float, check_int


def _cosine(progress: float, decay: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _linear(progress: float, decay: float) -> float:
    return 1 - progress


def _constant(progress: float, decay: float) -> float:
    return 1.0


def _wsd(progress: float, decay: float) -> float:
    return min(1.0, (1 - progress) / decay)


# How much of the way from the lowest rate to the peak is left, from progress 0 to 1.
_SHAPES: dict[str, Callable[[float, float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "wsd": _wsd,
}


def schedule(
    step: int,
    *,
    lr: float,
    warmup: int,
    total: int,
    min_lr_ratio: float = 0.1,
    kind: str = "cosine",
    decay: float = 0.2,
) -> float:
    """Learning rate of step 0, 1, ...: a linear rise to lr, then down to lr * min_lr_ratio.

    warmup, total  optimizer steps; the last step of `total` has the lowest rate, as has any later
    kind           "cosine", "linear" or "constant" (which stays at lr), or "wsd": warm up, stay
                   at lr, and fall linearly over the last part `decay` of the steps behind warm-up
    Raises ConfigError naming the argument, the value found and the range expected.
    Source: cosine: Loshchilov and Hutter 2017, arXiv:1608.03983; wsd: Hu et al. 2024,
    arXiv:2404.06395, with the linear fall of Hagele et al. 2024, arXiv:2405.18392.
    """
    owner = "schedule"
    step, warmup, total = (
        check_int(owner, name, value, 0, (1 << 63) - 1)
        for name, value in (("step", step), ("warmup", warmup), ("total", total))
    )
    lr = check_float(owner, "lr", lr, 0.0)
    min_lr_ratio = check_option(TrainConfig, "min_lr_ratio", owner, min_lr_ratio)
    decay = check_float(owner, "decay", decay, 0.0, 1.0, open_below=True)
    kind = check_choice(owner, "kind", kind, SCHEDULES)
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    lowest = 1.0 if kind == "constant" else min_lr_ratio
    return lr * lowest + (lr - lr * lowest) * _SHAPES[kind](progress, decay)
