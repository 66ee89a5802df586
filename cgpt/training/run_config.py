"""What a run trains, and how: RunConfig; and the recipe of the guided run.

A training state keeps it as a dictionary, so that a checkpoint alone says how to go on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cgpt.config import KINDS, SHAPE, WINDOWS, GPTConfig, TrainConfig, _Config
from cgpt.corpus.batches import packaged_data
from cgpt.corpus.files import EARLIER
from cgpt.errors import ConfigError, shown
from cgpt.validation import check_bool, check_int, check_names, path_list, path_text

# The recipe of the guided run, tuned on the packaged data with the `small` preset
# (benchmarks/bench_chat_quality.py). Joining up to eight dialogues fills the context, so that a
# chat's later turns look like what was trained. The schedule is that of the texts of
# benchmarks/peers/learning.py.
PRETRAIN = TrainConfig(
    epochs=8, batch_tokens=2048, warmup=20, schedule="wsd", decay_share=0.6, min_lr_ratio=0.0
)
FINETUNE = replace(PRETRAIN, epochs=22, join_dialogues=8)


@dataclass(frozen=True)
class RunConfig(_Config):
    """What a run trains, and how.

    pretrain, chat   files or folders of the two phases, as given; () skips the phase
    validation       files or folders of documents that both phases are evaluated on and not trained
                     on: each on those of the kinds (texts, dialogues) that it trains on
    init             file of a model whose weights, shape and vocabulary the run begins with; ""
                     for fresh ones, as preset, vocab_size and tokenizer say
    preset           shape of the model; n_layer, n_head, n_embd, n_ff and block_size change it
                     where they are not None (n_ff 0 is 4 * n_embd)
    vocab_size       most tokens of the vocabulary; None for the preset's
    tokenizer        kind of vocabulary to learn ("words", "chars", "bpe"), or a .json or .bin file
                     that holds one
    keep_duplicates  whether exact duplicates among a phase's documents are trained on too
    skip_invalid     whether rows that cannot be used are left out instead of refused
    plain_text       files or folders whose strings are texts even where they look like dialogues
    suffixes         those of the files that folders are read for; () for all that are known
    mix              (path, weight): how often an epoch takes what lies there, once where it is
                     not named; of a fraction another part each epoch
    seed             of the weights, and of the shuffling and dropout of both phases
    pretrain_train, finetune_train  how the phases are trained; their seed becomes `seed`
    Raises ConfigError naming the field that is wrong.
    """

    pretrain: tuple[str, ...] = ()
    chat: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    init: str = ""
    preset: str = "small"
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    n_ff: int | None = None
    block_size: int | None = None
    vocab_size: int | None = None
    tokenizer: str = "words"
    keep_duplicates: bool = False
    skip_invalid: bool = False
    plain_text: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    mix: tuple[tuple[str, float], ...] = ()
    seed: int = 0
    pretrain_train: TrainConfig = field(default_factory=TrainConfig)
    finetune_train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "suffixes", check_names("RunConfig", "suffixes", self.suffixes))
        for name in ("pretrain", "chat", "validation", "plain_text"):
            paths = path_list(f"RunConfig: {name}", getattr(self, name))
            object.__setattr__(self, name, tuple(paths))
        object.__setattr__(self, "mix", _mix_pairs(self.mix))
        for name in ("keep_duplicates", "skip_invalid"):
            check_bool("RunConfig", name, getattr(self, name))
        object.__setattr__(self, "init", path_text("RunConfig: init", self.init))
        check_int("RunConfig", "seed", self.seed, 0, (1 << 63) - 1)
        if not isinstance(self.tokenizer, str) or not (
            self.tokenizer in KINDS or self.tokenizer.lower().endswith((".json", ".bin"))
        ):
            raise ConfigError(
                f"RunConfig: tokenizer must be {', '.join(KINDS)}, or a .json or "
                f".bin file that holds a vocabulary, found {shown(self.tokenizer)}"
            )
        for name in ("pretrain_train", "finetune_train"):
            value = getattr(self, name)
            if isinstance(value, dict):
                value = TrainConfig.from_dict(value)
            if not isinstance(value, TrainConfig):
                raise ConfigError(f"RunConfig: {name} must be a TrainConfig, found {shown(value)}")
            object.__setattr__(self, name, replace(value, seed=self.seed))
        self.shape()
        for name in ("pretrain", "finetune"):
            files, train = self.phase(name)
            if files and train.epochs:
                train.require_validation(name, bool(self.validation))
        for name in SHAPE if self.init else ():
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"RunConfig: init names a model, which has its own shape, found "
                    f"{name}={getattr(self, name)}; leave one of the two out"
                )

    def shape(self) -> GPTConfig:
        """The model's shape, with the most tokens that its vocabulary may have."""
        changes = {name: getattr(self, name) for name in (*SHAPE, "vocab_size")}
        return GPTConfig.preset(
            self.preset, **{name: value for name, value in changes.items() if value is not None}
        )

    def phase(self, name: str) -> tuple[tuple[str, ...], TrainConfig]:
        """(paths, TrainConfig) of "pretrain" or "finetune"."""
        return (
            (self.pretrain, self.pretrain_train)
            if name == "pretrain"
            else (self.chat, self.finetune_train)
        )

    def data(self, name: str) -> tuple[str, ...]:
        """The paths of "pretrain", "finetune" or "validation"."""
        return self.validation if name == "validation" else self.phase(name)[0]

    def settled(self, width: int) -> RunConfig:
        """The same with all that is named that the phases leave open.

        width  n_embd of the model
        """
        phases = {"pretrain": self.pretrain_train, "finetune": self.finetune_train}
        return self.with_phases(
            {
                name: replace(
                    train.settled(width), loss_on="all" if train.learns_all(name) else "answers"
                )
                for name, train in phases.items()
            }
        )

    def with_phases(self, phases: Mapping[str, TrainConfig]) -> RunConfig:
        """The same run with other settings for the phases that are named."""
        return replace(
            self,
            pretrain_train=phases.get("pretrain", self.pretrain_train),
            finetune_train=phases.get("finetune", self.finetune_train),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready."""
        values = asdict(self)
        for value in (values, values["pretrain_train"], values["finetune_train"]):
            value.update((key, list(one)) for key, one in value.items() if isinstance(one, tuple))
        return values


def recorded(run: dict[str, Any]) -> dict[str, Any]:
    """The fields of the RunConfig that a training state holds.

    One of before duplicates were left out was trained with them, one of before there was a choice
    of optimizers by AdamW; before too_long and loss_on long dialogues were cut anywhere, and of
    dialogues only the answers were learnt; before skip_invalid folders were read for other files.
    """
    names = [str(name) for name in ("pretrain_train", "finetune_train") if name in run]
    before = {"optimizer": "adamw", "embedding_lr": 1.0, "too_long": WINDOWS, "loss_on": "answers"}
    phases = {name: {**before, **run[name]} for name in names}
    known = () if "skip_invalid" in run else EARLIER
    return {"keep_duplicates": True, "suffixes": known, **run, **phases}


def default_run(preset: str = "small") -> RunConfig:
    """The recipe of the guided run on the packaged data."""
    pretrain, chat = packaged_data()
    return RunConfig(
        pretrain=(str(pretrain),),
        chat=(str(chat),),
        preset=preset,
        pretrain_train=PRETRAIN,
        finetune_train=FINETUNE,
    )


def _mix_pairs(mix: Any) -> tuple[tuple[str, float], ...]:
    """Pairs of a path and a weight, also of a mapping. Raises ConfigError for anything else."""
    try:
        pairs = tuple(
            (os.fspath(path), float(weight))
            for path, weight in (mix.items() if isinstance(mix, Mapping) else mix)
        )
    except (TypeError, ValueError):
        raise ConfigError(
            f"RunConfig: mix must be pairs of a path and a weight, found {mix!r:.200}"
        ) from None
    for path, weight in pairs:
        if not 0 <= weight <= 1000:
            raise ConfigError(
                f"RunConfig: the weight of {path} in mix must be between 0 and 1000, "
                f"found {weight!r}"
            )
    return pairs
