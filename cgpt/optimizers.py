"""Which optimizer: from a TrainConfig, or from what a checkpoint holds."""

from __future__ import annotations

from typing import Any

from cgpt.config import TrainConfig
from cgpt.errors import ConfigError
from cgpt.model import GPT
from cgpt.muon import Muon
from cgpt.optim import AdamW


def make_optimizer(gpt: GPT, config: TrainConfig, *, fresh: bool = True) -> AdamW:
    """The optimizer that `config` names; fresh=False keeps the moments of the arena."""
    settings: dict[str, Any] = {
        "betas": (config.beta1, config.beta2), "eps": config.eps,
        "weight_decay": config.weight_decay, "freeze": config.freeze,
        "embedding_lr": config.embedding_lr, "fresh": fresh}
    if config.optimizer == "muon":
        return Muon(gpt, momentum=config.momentum, **settings)
    return AdamW(gpt, **settings)


def restore_optimizer(gpt: GPT, values: dict[str, Any]) -> AdamW:
    """What `to_dict` described; files without a kind are of AdamW. Moments stay as they are.

    Raises ConfigError for an unknown kind or a setting out of range, KeyError for a missing one.
    """
    kind = values.get("kind", AdamW.kind)
    known = {one.kind: one for one in (AdamW, Muon)}
    if kind not in known:
        raise ConfigError(f"optimizer: unknown kind {kind!r:.60}; known: {', '.join(known)}")
    return known[kind].from_dict(gpt, values)
