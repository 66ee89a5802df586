"""What a run trains: RunConfig, the data and settings of both phases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cgpt.config.declaration import COUNT, Options, documented, option
from cgpt.config.model import KINDS, PRESETS, SHAPE, GPTConfig, _preset
from cgpt.config.training import TrainConfig
from cgpt.errors import ConfigError, shown
from cgpt.validation import path_list, path_text

CHECKPOINTS, EXPORTS = "checkpoints", "exports"  # folders of a run's models


SAMPLE_EVERY = 100  # steps of training between two texts that the model writes meanwhile


STRATEGIES = ("best", "last", "periodic", "best+last", "best+periodic")  # of CheckpointManager


MAX_MIX = 1000  # how often an epoch takes a file


def _mix_pairs(owner: str, name: str, mix: Any) -> tuple[tuple[str, float], ...]:
    """Pairs of a path and a weight, also of a mapping. Raises ConfigError for anything else."""
    try:
        pairs = tuple(
            (os.fspath(path), float(weight))
            for path, weight in (mix.items() if isinstance(mix, Mapping) else mix)
        )
    except (TypeError, ValueError):
        raise ConfigError(
            "RunConfig: mix must be pairs of a path and a weight, found {value}",
            value=shown(mix, 200),
        ) from None
    for path, weight in pairs:
        if not 0 <= weight <= MAX_MIX:
            raise ConfigError(
                "RunConfig: the weight of {path} in mix must be between 0 and 1000, found {value}",
                path=path,
                value=shown(weight),
            )
    return pairs


def _paths(owner: str, name: str, value: Any) -> tuple[str, ...]:
    return tuple(path_list(f"{owner}: {name}", value))


def _path(owner: str, name: str, value: Any) -> str:
    return path_text(f"{owner}: {name}", value)


def _vocabulary(owner: str, name: str, value: Any) -> str:
    """A kind of vocabulary or the path of one. Raises ConfigError for anything else."""
    if not isinstance(value, str) or not (
        value in KINDS or value.lower().endswith((".json", ".bin"))
    ):
        raise ConfigError(
            "RunConfig: tokenizer must be {known}, or a .json or .bin file that holds a "
            "vocabulary, found {value}",
            known=list(KINDS),
            value=shown(value),
        )
    return value


@documented
@dataclass(frozen=True)
class RunConfig(Options):
    """What a run trains, and how.

    n_layer, n_head, n_embd, n_ff and block_size change the preset's where they are not None, as
    does vocab_size. pretrain_train and finetune_train say how the phases are trained; their seed
    becomes `seed`. Raises ConfigError naming the field that is wrong.
    """

    pretrain: tuple[str, ...] = option(
        (),
        check=_paths,
        metavar="PATH...",
        help="texts: files or folders, several",
        doc="files or folders of pre-training, as given; () skips the phase",
    )
    chat: tuple[str, ...] = option(
        (),
        check=_paths,
        metavar="PATH...",
        help="dialogues: files or folders, several",
        doc="files or folders of fine-tuning, as given; () skips the phase",
    )
    validation: tuple[str, ...] = option(
        (),
        check=_paths,
        metavar="PATH...",
        help="documents to evaluate on and not to train on: files or folders, several",
        doc="files or folders of documents that both phases are evaluated on and not trained on: "
        "each on those of the kinds (texts, dialogues) that it trains on",
    )
    init: str = option(
        "",
        check=_path,
        group="model",
        metavar="MODEL",
        help="begin with the weights and vocabulary of this model",
        doc='file of a model whose weights, shape and vocabulary the run begins with; "" for fresh '
        "ones, as preset, vocab_size and tokenizer say",
    )
    preset: str = option(
        "small",
        choices=tuple(PRESETS),
        check=lambda owner, name, value: _preset(value),
        group="shape",
        help="size of the model",
    )
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    n_ff: int | None = None
    block_size: int | None = None
    vocab_size: int | None = None
    tokenizer: str = option(
        "words",
        check=_vocabulary,
        group="model",
        metavar="words|chars|bpe|FILE",
        help="kind of vocabulary (words by default), or a .json or .bin that holds one",
    )
    keep_duplicates: bool = option(
        False,
        group="corpus",
        help="keep exact duplicates (left out by default)",
        doc="whether exact duplicates among a phase's documents are trained on too",
    )
    skip_invalid: bool = option(
        False,
        group="rows",
        help="leave out rows that cannot be used (by default they are listed, and that is the end)",
        doc="whether rows that cannot be used are left out instead of refused",
    )
    plain_text: tuple[str, ...] = option(
        (),
        check=_paths,
        doc="files or folders whose strings are texts even where they look like dialogues",
    )
    suffixes: tuple[str, ...] = option(
        (), doc="those of the files that folders are read for; () for all that are known"
    )
    mix: tuple[tuple[str, float], ...] = option(
        (),
        check=_mix_pairs,
        group="corpus",
        metavar="PATH=F",
        help="take the data at PATH F times an epoch (a fraction takes a part, another one each "
        "epoch); repeatable",
        doc="(path, weight): how often an epoch takes what lies there, once where it is not named; "
        "of a fraction another part each epoch",
    )
    seed: int = option(
        0,
        **COUNT,
        group="recipe",
        help="seed of all that is random",
        doc="of the weights, and of the shuffling and dropout of both phases",
    )
    pretrain_train: TrainConfig = field(default_factory=TrainConfig)
    finetune_train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pretrain_train", "finetune_train"):
            value = getattr(self, name)
            if isinstance(value, dict):
                value = TrainConfig.from_dict(value)
            if not isinstance(value, TrainConfig):
                raise ConfigError(
                    "RunConfig: {name} must be a TrainConfig, found {value}",
                    name=name,
                    value=shown(value),
                )
            object.__setattr__(self, name, replace(value, seed=self.seed))
        self.shape()
        for name in ("pretrain", "finetune"):
            files, train = self.phase(name)
            if files and train.epochs:
                train.require_validation(name, bool(self.validation))
        for name in SHAPE if self.init else ():
            if getattr(self, name) is not None:
                raise ConfigError(
                    "RunConfig: init names a model, which has its own shape, found "
                    "{name}={value}; leave one of the two out",
                    name=name,
                    value=getattr(self, name),
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

    def resolved(self, width: int) -> RunConfig:
        """The same with all that is named that the phases leave open.

        width  n_embd of the model
        """
        phases = {"pretrain": self.pretrain_train, "finetune": self.finetune_train}
        return self.with_phases(
            {
                name: replace(
                    train.resolved(width), loss_on="all" if train.learns_all(name) else "answers"
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
