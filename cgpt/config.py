"""GPTConfig and TrainConfig: frozen, validated once when they are made; presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from cgpt.errors import ConfigError, shown
from cgpt.validation import (
    check_bool,
    check_choice,
    check_float,
    check_int,
    check_names,
    expect,
    plain,
    unknown_name,
)

# Shapes by name. vocab_size is the most the tokenizer may learn; a small corpus gives fewer.
PRESETS: dict[str, dict[str, int]] = {
    "tiny": dict(n_layer=2, n_head=2, n_embd=64, n_ff=256, vocab_size=1024, block_size=128),
    "small": dict(n_layer=2, n_head=8, n_embd=256, n_ff=1024, vocab_size=3000, block_size=256),
    "base": dict(n_layer=4, n_head=8, n_embd=512, n_ff=768, vocab_size=3000, block_size=256),
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768, n_ff=3072, vocab_size=50257, block_size=1024),
}

# What is drawn where nothing else is asked for; SamplingConfig has the rest, which does nothing.
TEMPERATURE, TOP_P, MAX_NEW_TOKENS = 0.8, 0.9, 256

OPTIMIZERS = ("adamw", "muon")
# Tuned up to this width, see docs/learning.md: the rate, and that of the embeddings beside it.
LEARNING_RATES = {"adamw": 2e-3, "muon": 3e-3}
EMBEDDING_RATES = {"adamw": 1.0, "muon": 3.0}
TUNED_WIDTH = 256
MOST_WARMUP = 50
EARLIER_WARMUP = 50  # of a phase begun by a version that did not record it and had no choice
KINDS = ("words", "chars", "bpe")  # of a vocabulary
FORMS = ("float32", "float16", "int8")  # of a model's matrices, in memory and in files
SCHEDULES = ("cosine", "linear", "constant", "wsd")
TOO_LONG = ("cut", "drop", "error")  # what to do with documents longer than the context
WINDOWS = "windows"  # what was done before dialogues were cut between turns
LOSS_ON = ("all", "answers")  # which tokens of a dialogue carry loss

SHAPE = ("n_layer", "n_head", "n_embd", "n_ff", "block_size")  # fields that shape the graph

# Generous limits that keep every size product far inside 63 bits.
MOST = {
    "n_layer": 1024,
    "n_head": 1024,
    "n_embd": 65536,
    "n_ff": 1 << 18,
    "vocab_size": 1 << 24,
    "block_size": 1 << 20,
}

Config = TypeVar("Config", bound="_Config")


@dataclass(frozen=True)
class _Config:
    """What the configurations share: plain values, and a round trip through a dictionary that
    refuses unknown names."""

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, plain(getattr(self, one.name)))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Build from a mapping. Raises ConfigError naming an unknown field or a bad value."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__}: expected the fields by name, found {shown(values)}")
        _check_fields(cls, values)
        return cls(**values)

    if not TYPE_CHECKING:  # type checkers know the fields themselves

        def __new__(cls, *values: Any, **named: Any) -> Any:
            """Raises ConfigError, before __init__ would raise TypeError, for an unknown name."""
            _check_fields(cls, named)
            return super().__new__(cls)


def _check_fields(cls: type, named: Mapping[str, Any]) -> None:
    known = sorted(field.name for field in fields(cls))
    for name in named:
        if name not in known:
            raise ConfigError(f"{cls.__name__}: " + unknown_name("field", name, known))


@dataclass(frozen=True)
class GPTConfig(_Config):
    """Shape of a GPT-2 graph.

    n_layer     L  transformer blocks
    n_head      H  attention heads; must divide n_embd
    n_embd      C  width of the residual stream
    n_ff        F  width of the MLP, 0 for 4 * n_embd
    vocab_size  V  rows of the (tied) token embedding
    block_size  T  longest context, rows of the position embedding
    Raises ConfigError naming the field, the value found and the range expected.
    """

    n_layer: int = 2
    n_head: int = 8
    n_embd: int = 256
    n_ff: int = 0
    vocab_size: int = 3000
    block_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("GPTConfig", "n_embd", self.n_embd, 1, MOST["n_embd"])
        if type(self.n_ff) is int and self.n_ff == 0:
            object.__setattr__(self, "n_ff", 4 * self.n_embd)
        for name, most in MOST.items():
            check_int("GPTConfig", name, getattr(self, name), 1, most)
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"GPTConfig: n_head must divide n_embd, found n_head={self.n_head} and n_embd="
                f"{self.n_embd} (remainder {self.n_embd % self.n_head}); choose another pair"
            )

    @property
    def matrix_elements(self) -> int:
        """Elements of all matrices: of the blocks', and of the tables outside them."""
        C = self.n_embd
        blocks = self.n_layer * (4 * C * C + 2 * C * self.n_ff)
        return blocks + C * (self.vocab_size + self._other_rows)

    @property
    def _other_rows(self) -> int:
        """Rows of width n_embd that are not of the token embedding: here the positions."""
        return self.block_size

    @classmethod
    def preset(cls, name: str, **changes: int) -> GPTConfig:
        """The named shape ("tiny", "small", "base", "gpt2") with fields changed by keyword."""
        name = check_choice("GPTConfig", "preset", name, PRESETS)
        return cls.from_dict({**PRESETS[name], **changes})


@dataclass(frozen=True)
class TrainConfig(_Config):
    """How one phase is trained.

    epochs         passes over the documents; 0 trains nothing
    batch_tokens   most tokens of one packed micro-batch
    grad_accum     micro-batches of one optimizer step
    lr             peak learning rate, None for `default_lr`; warmed up over `warmup` steps, then
                   down to lr * min_lr_ratio at the phase's last step as `schedule` says
    warmup         None for `default_warmup` of the steps in which the rate rises and falls, or as
                   the phase was begun
    schedule       "cosine", "linear", "constant" (which stays at lr) or "wsd": warm-up, stay at
                   lr, fall linearly over the last part `decay_share` of the steps
    schedule_steps steps in which the rate falls; 0 for those of all epochs. For a run that a
                   budget will end: the rate is then at its lowest when it does.
    optimizer      "muon": orthogonal updates of the blocks' matrices with `momentum`, AdamW for
                   the rest; "adamw": AdamW for all; None: the one with which the phase was begun,
                   of a new one muon, or adamw where lora_rank is given
    embedding_lr   learning rate of the embeddings as a multiple of lr; None for 3 with muon and 1
                   with adamw, or as the phase was begun
    clip           global gradient norm is scaled down to this; 0 never clips
    dropout        probability, on the embeddings and on each residual branch
    val_fraction   share of the documents held out for evaluation; 0 trains on all
    eval_every     steps between two evaluations on the held-out documents; 0 for one after each
                   epoch
    patience       evaluations without improvement before the phase stops; 0 never stops early.
                   Both need held-out documents, which also restore the best weights.
    max_steps      optimizer steps of the phase at the most, 0 for no bound
    max_minutes    minutes of the phase at the most, 0 for no bound; neither budget changes the
                   schedule, so a phase can go on after it as if there had been none
    freeze         parameter-name patterns (fnmatch) that are not trained
    join_dialogues dialogues joined at random into one document, up to this many (1 never joins)
    recompute      keep only the blocks' outputs and compute the rest again in the backward pass:
                   about a third less memory for activations of a small model, far less for a deep
                   one, a tenth to a fifth more time, the same bits
    label_smoothing  share of a target's probability that is spread over all tokens; the losses of
                   training are then of that, the held-out ones are not
    ema            the moving average of the weights keeps this much of itself a step; it is what
                   is evaluated and what the phase ends with. 0 keeps none.
    too_long       what becomes of documents and dialogues longer than the context: "cut" cuts
                   texts anywhere and dialogues between turns (see cgpt/corpus/cutting.py),
                   "drop" leaves them out, "error" refuses them. "windows" cuts dialogues anywhere
                   too, as runs did that were recorded before there was a choice.
    loss_on        which tokens of dialogues carry loss: "all", "answers" (with their <eos>), None
                   for all in pre-training and the answers in fine-tuning; of texts all do
    lora_rank      rank of the two matrices by which each matrix that `lora_layers` (patterns)
                   names is changed, lora_alpha / lora_rank times their product, while all weights
                   stay; they are trained by AdamW. 0 trains the weights themselves.
    Raises ConfigError naming the field, the value found and the range expected.
    """

    epochs: int = 10
    batch_tokens: int = 4096
    grad_accum: int = 1
    lr: float | None = None
    min_lr_ratio: float = 0.1
    warmup: int | None = None
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0
    dropout: float = 0.0
    val_fraction: float = 0.0
    patience: int = 0
    seed: int = 0
    max_steps: int = 0
    max_minutes: float = 0.0
    freeze: tuple[str, ...] = ()
    join_dialogues: int = 1
    recompute: bool = False
    optimizer: str | None = None
    momentum: float = 0.95
    embedding_lr: float | None = None
    schedule: str = "cosine"
    schedule_steps: int = 0
    decay_share: float = 0.2
    label_smoothing: float = 0.0
    ema: float = 0.0
    too_long: str = "cut"
    loss_on: str | None = None
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_layers: tuple[str, ...] = ("h.*",)
    eval_every: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "TrainConfig"
        for name, least in (
            ("epochs", 0),
            ("batch_tokens", 1),
            ("grad_accum", 1),
            ("warmup", 0),
            ("patience", 0),
            ("seed", 0),
            ("max_steps", 0),
            ("join_dialogues", 1),
            ("schedule_steps", 0),
            ("lora_rank", 0),
            ("eval_every", 0),
        ):
            if name != "warmup" or self.warmup is not None:
                check_int(owner, name, getattr(self, name), least, (1 << 63) - 1)
        for name in ("lr", "eps", "embedding_lr", "lora_alpha"):
            if getattr(self, name) is not None or name not in ("lr", "embedding_lr"):
                check_float(owner, name, getattr(self, name), 0.0, open_below=True)
        for name in ("weight_decay", "clip", "max_minutes"):
            check_float(owner, name, getattr(self, name), 0.0)
        for name in (
            "beta1",
            "beta2",
            "dropout",
            "val_fraction",
            "momentum",
            "label_smoothing",
            "ema",
        ):
            check_float(owner, name, getattr(self, name), 0.0, 1.0, open_above=True)
        check_float(owner, "min_lr_ratio", self.min_lr_ratio, 0.0, 1.0)
        check_bool(owner, "recompute", self.recompute)
        check_float(owner, "decay_share", self.decay_share, 0.0, 1.0, open_below=True)
        if self.optimizer is not None:
            check_choice(owner, "optimizer", self.optimizer, OPTIMIZERS)
        check_choice(owner, "schedule", self.schedule, SCHEDULES)
        check_choice(owner, "too_long", self.too_long, (*TOO_LONG, WINDOWS))
        if self.loss_on is not None:
            check_choice(owner, "loss_on", self.loss_on, LOSS_ON)
        for name in ("freeze", "lora_layers"):
            object.__setattr__(self, name, check_names(owner, name, getattr(self, name)))
        if self.lora_rank and self.optimizer not in (None, "adamw"):
            raise ConfigError(
                f"{owner}: lora_rank={self.lora_rank} is trained by adamw, found "
                f"optimizer {self.optimizer!r}; leave one of the two out"
            )
        if self.lora_rank and self.freeze:
            raise ConfigError(
                f"{owner}: lora_rank={self.lora_rank} leaves all weights as they "
                "are, so there is nothing to freeze; choose by lora_layers"
            )

    def require_validation(self, phase: str, own: bool) -> None:
        """Raises ConfigError where evaluations have nothing to look at, or two things.

        own  whether there are validation documents beside those that are trained on
        """
        if own and self.val_fraction:
            raise ConfigError(
                f"{phase}: found validation documents and val_fraction="
                f"{self.val_fraction}; give one of the two"
            )
        for name, value in (("patience", self.patience), ("eval_every", self.eval_every)):
            if value and not own and not self.val_fraction:
                raise ConfigError(
                    f"{phase}: {name}={value} needs held-out documents to look at; "
                    "set val_fraction above 0 or give validation documents"
                )

    def learns_all(self, phase: str) -> bool:
        """Whether every token of a dialogue carries loss in "pretrain" or "finetune"."""
        return (self.loss_on or ("all" if phase == "pretrain" else "answers")) == "all"

    def settled(
        self, width: int, begun: Mapping[str, Any] | None = None, steps: int = 0
    ) -> TrainConfig:
        """The same with an optimizer, learning rates and, given the steps, a warm-up.

        width  n_embd of the model
        begun  optimizer, embedding_lr and warmup with which the phase was begun, where it was
        steps  in which the rate rises and falls; 0 where that is not known yet
        """
        width = check_int("TrainConfig.settled", "width", width, 1)
        if begun is not None:
            expect("TrainConfig.settled", begun, Mapping, "settings by name")
        steps = check_int("TrainConfig.settled", "steps", steps, 0, (1 << 63) - 1)
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
