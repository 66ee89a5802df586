"""Which optimizer: from a TrainConfig and back, or from what a checkpoint holds."""

from __future__ import annotations

from typing import Any

from cgpt.config import TrainConfig
from cgpt.errors import ConfigError, shown
from cgpt.models.base import Model
from cgpt.optim.adamw import AdamW
from cgpt.optim.lora import Lora
from cgpt.optim.muon import Muon


def make_optimizer(
    gpt: Model,
    config: TrainConfig,
    current: AdamW | None = None,
    *,
    fresh: bool = True,
    base: str = "",
) -> AdamW:
    """The optimizer that `config` names, or that of a new phase where it names none.

    current  the model's optimizer until now; an adapter with the same settings stays
    fresh    begin with moments of zero; False goes on with the moments and steps of `current`
    base     the file that holds the weights as they are: a new adapter names it
    Where `current` is given it stays the model's, with its moments, until the operations
    `resetting` (where fresh) and `taking_over` of the new one are done.
    Raises ConfigError as the optimizers do, and where it cannot go on with `current`, as that is
    of another kind or trains another adapter.
    """
    config = config.resolved(gpt.config.n_embd)
    adam: dict[str, Any] = {"eps": config.eps, "weight_decay": config.weight_decay}
    adam["betas"] = (config.beta1, config.beta2)
    wanted = (
        _adapter(config.lora_rank, config.lora_alpha, config.lora_layers)
        if config.lora_rank
        else f"optimizer={config.optimizer}"
    )
    begun = (
        _adapter(current.rank, current.alpha, current.layers)
        if isinstance(current, Lora)
        else f"optimizer={current.kind}"
        if current is not None
        else ""
    )
    if not fresh and current is not None and begun != wanted:
        raise ConfigError(
            "the phase was begun with {begun} and cannot go on with {wanted}; give the "
            "same, or begin the phase anew: llm.training_state.begin(...)",
            begun=begun,
            wanted=wanted,
        )
    if not fresh and current is not None:
        current.require_owner()
    if isinstance(current, Lora) and begun == wanted:
        current.configure(**adam)
        return current
    adam.update(replaces=current, waits=current is not None)
    if config.lora_rank:
        return Lora(
            gpt,
            config.lora_rank,
            config.lora_alpha,
            config.lora_layers,
            seed=config.seed,
            base=base,
            **adam,
        )
    adam.update(freeze=config.freeze, embedding_lr=config.embedding_lr, fresh=fresh)
    found = (
        Muon(gpt, momentum=config.momentum, **adam)
        if config.optimizer == "muon"
        else AdamW(gpt, **adam)
    )
    found.step_count = 0 if fresh or current is None else current.step_count
    return found


def _adapter(rank: int, alpha: float, layers: tuple[str, ...]) -> str:
    """What two trainings of an adapter must have in common, as it is said."""
    return f"lora_rank={rank}, lora_alpha={alpha:g}, lora_layers={','.join(layers)}"


def begun_with(optimizer: AdamW | None) -> dict[str, Any]:
    """What a phase under this optimizer goes on with, where its TrainConfig names nothing else."""
    if optimizer is None or isinstance(optimizer, Lora):
        return {}
    return {"optimizer": optimizer.kind, "embedding_lr": optimizer.embedding_lr}


def settings_of(optimizer: AdamW) -> dict[str, Any]:
    """The fields of TrainConfig that `make_optimizer` would make this optimizer from."""
    found = {
        "optimizer": optimizer.kind,
        "embedding_lr": optimizer.embedding_lr,
        "beta1": optimizer.betas[0],
        "beta2": optimizer.betas[1],
        "eps": optimizer.eps,
        "weight_decay": optimizer.weight_decay,
        "freeze": optimizer.freeze,
    }
    return {**found, "momentum": optimizer.momentum} if isinstance(optimizer, Muon) else found


def restore_optimizer(gpt: Model, values: dict[str, Any]) -> AdamW:
    """What `to_dict` described; files without a kind are of AdamW. Moments stay as they are.

    Raises ConfigError for an unknown kind or a setting out of range, KeyError for a missing one.
    """
    kind = values.get("kind", AdamW.kind)
    known = {one.kind: one for one in (AdamW, Muon)}
    if kind not in known:
        raise ConfigError(
            "optimizer: unknown kind {name}; known: {known}", name=shown(kind), known=list(known)
        )
    return known[kind].from_dict(gpt, values)
