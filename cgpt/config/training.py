"""How a phase is trained: TrainConfig. A training option is declared here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cgpt.config.declaration import (
    ABOVE_0,
    BELOW_1,
    COUNT,
    POSITIVE,
    SHARE,
    Options,
    documented,
    option,
)
from cgpt.errors import ConfigError, Phrase, shown
from cgpt.validation import check_int, expect

OPTIMIZERS = ("adamw", "muon")


# Tuned up to this width, see docs/learning.md: the rate, and that of the embeddings beside it.
LEARNING_RATES = {"adamw": 2e-3, "muon": 3e-3}


EMBEDDING_RATES = {"adamw": 1.0, "muon": 3.0}


TUNED_WIDTH = 256


MOST_WARMUP = 50


EARLIER_WARMUP = 50  # of a phase begun by a version that did not record it and had no choice


SCHEDULES = ("cosine", "linear", "constant", "wsd")


TOO_LONG = ("cut", "drop", "error")  # what to do with documents longer than the context


WINDOWS = "windows"  # what was done before dialogues were cut between turns


LOSS_ON = ("all", "answers")  # which tokens of a dialogue carry loss


@documented
@dataclass(frozen=True)
class TrainConfig(Options):
    """How one phase is trained. Raises ConfigError naming the field, the value and the range."""

    group = "recipe"
    epochs: int = option(10, **COUNT, doc="passes over the documents; 0 trains nothing")
    batch_tokens: int = option(4096, **POSITIVE, doc="most tokens of one packed micro-batch")
    grad_accum: int = option(1, **POSITIVE, help="batches added up in a step")
    lr: float | None = option(
        None,
        **ABOVE_0,
        flag_maximum=1,
        help="peak learning rate (of a new training that of the optimizer at the model's width)",
        doc="peak learning rate, None for `default_lr`; warmed up over `warmup` steps, then down to"
        " lr * min_lr_ratio at the phase's last step as `schedule` says",
    )
    min_lr_ratio: float = option(
        0.1, **SHARE, help="share of the peak that the learning rate falls to"
    )
    warmup: int | None = option(
        None,
        **COUNT,
        help="steps of learning-rate warm-up (own data: by default a tenth of all, at least 1 and "
        "at most 50)",
        doc="steps of warm-up, None for `default_warmup` of the steps in which the rate rises and "
        "falls, or as the phase was begun",
    )
    weight_decay: float = option(0.1, minimum=0.0, doc="AdamW's weight decay, of the matrices")
    beta1: float = option(0.9, **BELOW_1, doc="decay of AdamW's first moment")
    beta2: float = option(0.95, **BELOW_1, doc="decay of AdamW's second moment")
    eps: float = option(1e-8, **ABOVE_0, doc="AdamW's epsilon")
    clip: float = option(
        1.0, minimum=0.0, doc="global gradient norm is scaled down to this; 0 never clips"
    )
    dropout: float = option(0.0, **BELOW_1, help="dropout probability")
    val_fraction: float = option(0.0, **BELOW_1, help="share of the documents held out")
    patience: int = option(
        0,
        **COUNT,
        help="evaluations without a lower held-out loss before it stops, 0 never",
        doc="evaluations without improvement before the phase stops; 0 never stops early. It needs "
        "held-out documents, which also restore the best weights",
    )
    seed: int = option(0, **COUNT, doc="seed of shuffling and dropout")
    max_steps: int = option(
        0,
        **COUNT,
        group="budget",
        help="most steps of a phase (in all, where it is resumed), 0 for no bound",
    )
    max_minutes: float = option(
        0.0,
        minimum=0.0,
        group="budget",
        help="most minutes of a phase (in all, where it is resumed), 0 for no bound",
        doc="most minutes of the phase, 0 for no bound; neither budget changes the schedule, so a "
        "phase can go on after it as if there had been none",
    )
    freeze: tuple[str, ...] = option(
        (),
        group="finetune",
        metavar="PATTERN",
        help="parameters left as they are while fine-tuning, such as 'h.0.*'; repeatable",
        doc="parameter-name patterns (fnmatch) that are not trained",
    )
    join_dialogues: int = option(
        1,
        **POSITIVE,
        doc="dialogues joined at random into one document, up to this many (1 never joins)",
    )
    recompute: bool = option(
        False,
        help="less memory: compute activations again in the backward pass, a tenth to a fifth "
        "slower",
        doc="keep only the blocks' outputs and compute the rest again in the backward pass: about "
        "a third less memory for activations of a small model, far less for a deep one, the same "
        "bits",
    )
    optimizer: str | None = option(
        None,
        choices=OPTIMIZERS,
        help="muon for the matrices of the layers and AdamW for the rest (the default); adamw for "
        "all (that of LoRA)",
        doc='"muon": orthogonal updates of the blocks\' matrices with `momentum`, AdamW for the '
        'rest; "adamw": AdamW for all; None: the one with which the phase was begun, of a new one '
        "muon, or adamw where lora_rank is given",
    )
    momentum: float = option(0.95, **BELOW_1, doc="Muon's momentum")
    embedding_lr: float | None = option(
        None,
        **ABOVE_0,
        flag_maximum=1e6,
        help="learning rate of the embeddings as a multiple of the others' (by default 3 with "
        "muon, 1 with adamw)",
        doc="learning rate of the embeddings as a multiple of lr; None for 3 with muon and 1 with "
        "adamw, or as the phase was begun",
    )
    schedule: str = option(
        "cosine",
        choices=SCHEDULES,
        help="how the learning rate falls; wsd stays, then falls linearly",
        doc='"cosine", "linear", "constant" (which stays at lr) or "wsd": warm-up, stay at lr, '
        "fall linearly over the last part `decay_share` of the steps",
    )
    schedule_steps: int = option(
        0, **COUNT, help="steps in which the learning rate falls, 0 for those of all epochs"
    )
    decay_share: float = option(
        0.2, **SHARE, open_below=True, help="share of the steps of wsd in which it falls"
    )
    label_smoothing: float = option(
        0.0,
        **BELOW_1,
        help="share of each target spread over the vocabulary, 0 for none",
        doc="share of a target's probability that is spread over all tokens; the losses of "
        "training are then of that, the held-out ones are not",
    )
    ema: float = option(
        0.0,
        **BELOW_1,
        help="keep a moving average of the weights, such as 0.999; 0 for none",
        doc="the moving average of the weights keeps this much of itself a step; it is what is "
        "evaluated and what the phase ends with. 0 keeps none",
    )
    too_long: str = option(
        "cut",
        choices=TOO_LONG,
        recorded=(WINDOWS,),
        group="corpus",
        help="texts and dialogues longer than the context: cut them, leave them out, or end with "
        "an error (by default cut)",
        doc='what becomes of documents longer than the context: "cut" cuts texts anywhere and '
        'dialogues between turns (see cgpt/corpus/splitting.py), "drop" leaves them out, "error" '
        'refuses them; "windows" cuts dialogues anywhere too, as in runs of before there was a '
        "choice",
    )
    loss_on: str | None = option(
        None,
        choices=LOSS_ON,
        doc='which tokens of dialogues carry loss: "all", "answers" (with their <eos>), None for '
        "all in pre-training and the answers in fine-tuning; of texts all do",
    )
    lora_rank: int = option(
        0,
        **COUNT,
        group="finetune",
        help="fine-tune a LoRA adapter of rank N only, 0 for none; --out holds it alone",
        doc="rank of the two matrices by which each matrix of `lora_layers` is changed, lora_alpha "
        "/ lora_rank times their product, while all weights stay; AdamW trains them. 0 trains the "
        "weights themselves",
    )
    lora_alpha: float = option(
        16.0,
        **ABOVE_0,
        flag_maximum=1e6,
        group="finetune",
        help="the adapter is multiplied by F / rank (16)",
        doc="the adapter is multiplied by lora_alpha / lora_rank",
    )
    lora_layers: tuple[str, ...] = option(
        ("h.*",),
        group="finetune",
        metavar="PATTERN",
        help="matrices that are adapted, repeatable ('h.*')",
        doc="patterns (fnmatch) of the matrices that are adapted",
    )
    eval_every: int = option(
        0, **COUNT, help="steps between two evaluations, 0 for one after each epoch"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "TrainConfig"
        if self.lora_rank and self.optimizer not in (None, "adamw"):
            raise ConfigError(
                "{owner}: lora_rank={rank} is trained by adamw, found optimizer {value}; "
                "leave one of the two out",
                owner=owner,
                rank=self.lora_rank,
                value=shown(self.optimizer),
            )
        if self.lora_rank and self.freeze:
            raise ConfigError(
                "{owner}: lora_rank={rank} leaves all weights as they are, so there is "
                "nothing to freeze; choose by lora_layers",
                owner=owner,
                rank=self.lora_rank,
            )

    def require_validation(self, phase: str, own: bool) -> None:
        """Raises ConfigError where evaluations have nothing to look at, or two things.

        own  whether there are validation documents beside those that are trained on
        """
        if own and self.val_fraction:
            raise ConfigError(
                "{phase}: found validation documents and val_fraction={fraction}; give one "
                "of the two",
                phase=Phrase(phase),
                fraction=self.val_fraction,
            )
        for name, value in (("patience", self.patience), ("eval_every", self.eval_every)):
            if value and not own and not self.val_fraction:
                raise ConfigError(
                    "{phase}: {name}={value} needs held-out documents to look at; set "
                    "val_fraction above 0 or give validation documents",
                    phase=Phrase(phase),
                    name=name,
                    value=value,
                )

    def learns_all(self, phase: str) -> bool:
        """Whether every token of a dialogue carries loss in "pretrain" or "finetune"."""
        return (self.loss_on or ("all" if phase == "pretrain" else "answers")) == "all"

    def resolved(
        self, width: int, begun: Mapping[str, Any] | None = None, steps: int = 0
    ) -> TrainConfig:
        """The same with an optimizer, learning rates and, given the steps, a warm-up.

        width  n_embd of the model
        begun  optimizer, embedding_lr and warmup with which the phase was begun, where it was
        steps  in which the rate rises and falls; 0 where that is not known yet
        """
        width = check_int("TrainConfig.resolved", "width", width, 1)
        if begun is not None:
            expect("TrainConfig.resolved", begun, Mapping, "settings by name")
        steps = check_int("TrainConfig.resolved", "steps", steps, 0, (1 << 63) - 1)
        begun = begun or {}
        optimizer = self.optimizer or (
            "adamw" if self.lora_rank else begun.get("optimizer", "muon")
        )
        embeddings = self.embedding_lr or begun.get("embedding_lr", EMBEDDING_RATES[optimizer])
        warmup = self.warmup
        if warmup is None and steps:
            warmup = begun.get("warmup", default_warmup(steps))
        return replace(
            self,
            optimizer=optimizer,
            embedding_lr=embeddings,
            warmup=warmup,
            lr=self.lr or default_lr(optimizer, width),
        )


def default_warmup(steps: int) -> int:
    """Steps of warm-up in a schedule of so many: a tenth, at least 1, at most 50, never all."""
    return min(max(1, steps // 10), MOST_WARMUP, max(0, steps - 1))


def default_lr(optimizer: str, width: int) -> float:
    """The peak learning rate for a model of this width (n_embd); wider ones learn more slowly.

    It falls with the width, as Adam's steps have to. Source: Yang et al. 2022, arXiv:2203.03466,
    table 8.
    """
    return LEARNING_RATES[optimizer] * min(1.0, TUNED_WIDTH / width)
