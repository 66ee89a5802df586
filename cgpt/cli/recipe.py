"""From options to a RunConfig: which data, which recipe; and what a run says before it starts."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt.cli.config_file import OF_THE_MODEL, with_fields
from cgpt.config import GPTConfig, RunConfig, TrainConfig
from cgpt.errors import ConfigError
from cgpt.options import Options, options_of

DATA = "data"  # folder of the current directory


BEGINNING = 1000  # items of a large file that say what it holds


ATTENTION = ("h.*.attn.*",)  # parameters that --freeze-attn leaves as they are


FALLING = ("cosine", "linear", "wsd")


SCHEDULES_OF = {"decay_share": ("wsd",), "min_lr_ratio": FALLING, "schedule_steps": FALLING}


def local_data() -> tuple[str, ...]:
    """data/*.json of the current directory, or where there is none all data files in data/."""
    found = tuple(path.as_posix() for path in sorted(Path(DATA).glob("*.json")) if path.is_file())
    return found or tuple(path for path, skipped in _in_data() if not skipped)


def _in_data() -> list[tuple[str, str]]:
    """Every file in data/ with "" or the reason why it cannot be read."""
    from cgpt.corpus.files import walk

    return [
        (Path(path).as_posix(), skipped)
        for path, skipped in (walk(DATA) if os.path.isdir(DATA) else ())
    ]


def split_by_kind(
    paths: Iterable[str], as_text: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(files for pre-training, files for chat): those with dialogues are for chat.

    A file with both is in both. Rows that cannot be used say nothing.
    Raises DataError where a file cannot be read.
    """
    from cgpt.corpus.files import find_files

    found: dict[str, list[str]] = {"texts": [], "dialogues": []}
    for path, skipped in find_files(paths):
        for kind in () if skipped else kinds_in(path, as_text):
            found[kind].append(path)
    return tuple(found["texts"]), tuple(found["dialogues"])


def kinds_in(path: str, as_text: bool = False) -> set[str]:
    """Whether a file holds "texts", "dialogues" or both; of a large one its beginning decides.

    One of which no row can be used counts as texts: reading it as such says what is wrong.
    """
    from cgpt.corpus.invalid_rows import InvalidRowsError
    from cgpt.corpus.reader import LARGE, Reading, data_size

    found: set[str] = set()
    large = data_size(path, LARGE) > LARGE
    try:
        for number, item in enumerate(Reading([path], skip_invalid=True, as_text=as_text)):
            found.add("texts" if isinstance(item, str) else "dialogues")
            if len(found) == 2 or (number >= BEGINNING and large):
                break
    except InvalidRowsError:
        found.add("texts")
    return found


def default_recipe(preset: str | None, as_text: bool = False) -> RunConfig:
    """The tuned recipe on the data of the current directory, else on the packaged data."""
    from cgpt.training.run_config import default_run

    config = default_run(preset or "small")
    found = local_data()
    if found:
        pretrain, chat = split_by_kind(found, as_text)
        config = replace(config, pretrain=pretrain, chat=chat)
    return config


def is_packaged(paths: tuple[str, ...]) -> bool:
    """Whether these are the files that come with cgpt, or copies of them."""
    from cgpt.corpus.batches import packaged_data

    known = {path.name: path for path in packaged_data()}
    return all(
        os.path.isfile(path)
        and os.path.basename(path) in known
        and filecmp.cmp(path, known[os.path.basename(path)], shallow=False)
        for path in paths
    )


def with_own_warmup(config: RunConfig) -> RunConfig:
    """The recipe; for other data than it was tuned on, its warm-up follows from their steps."""
    if is_packaged(config.pretrain + config.chat):
        return config
    return replace(
        config,
        pretrain_train=replace(config.pretrain_train, warmup=None),
        finetune_train=replace(config.finetune_train, warmup=None),
    )


def shape_of(path: str | None) -> dict[str, int] | None:
    """The shape of the model in a file, None without a path."""
    from cgpt.checkpoint.info import describe

    return describe(path)["config"] if path else None


def check_init(values: dict[str, Any]) -> None:
    """Raises ConfigError for an option of the model beside the model that --init names."""
    for name in OF_THE_MODEL if values.get("init") else ():
        if values.get(name) is not None:
            raise ConfigError(
                f"--init {values['init']} brings its own shape and vocabulary; leave "
                f"out --{name.replace('_', '-')}"
            )


def given(values: dict[str, Any], config: type[Options], *groups: str) -> dict[str, Any]:
    """The options of these groups that have a value from flags, the environment or a file."""
    return {
        name: values[name]
        for name, one in options_of(config).items()
        if one.group in groups and values.get(name) not in (None, ()) and values[name] is not False
    }


def run_config(values: dict[str, Any], fields: dict[str, Any] | None = None) -> RunConfig:
    """The recipe with the options given; None leaves a field as the recipe has it.

    fields  of the RunConfig, from a file; options come on top of them
    Raises CheckpointError where the model of --init cannot be read.
    """
    check_init(values)
    shape = shape_of(values.get("init"))
    pretrain, chat, validation = (
        tuple(values.get(name) or ()) for name in ("pretrain", "chat", "validation")
    )
    as_text = bool(values.get("as_text"))
    if values.get("data"):
        more = split_by_kind(values["data"], as_text)
        pretrain, chat = pretrain + more[0], chat + more[1]
    if pretrain or chat:
        from cgpt.training.run_config import default_run

        config = replace(default_run(values.get("preset") or "small"), pretrain=pretrain, chat=chat)
    else:
        config = default_recipe(values.get("preset"), as_text)
    changes = {
        **given(values, RunConfig, "model", "rows", "corpus", "recipe"),
        **given(values, GPTConfig, "shape", "recipe"),
    }
    config = with_fields(with_own_warmup(config), {**(fields or {}), "validation": validation})
    if as_text:  # --chat is for dialogues, whatever they are written as
        named = {*(values.get("chat") or ())}
        changes["plain_text"] = tuple(
            path for path in (*config.pretrain, *validation) if path not in named
        )
    config = replace(config, **changes)
    both = given(values, TrainConfig, "recipe", "budget", "corpus")
    if values.get("batch_size"):
        both["batch_tokens"] = values["batch_size"] * (
            shape["block_size"] if shape else config.shape().block_size
        )

    def phase(train: Any, epochs: int | None, **more: Any) -> Any:
        if epochs is not None:
            more["epochs"] = epochs
        return replace(train, **both, **more)

    names = (*(ATTENTION if values.get("freeze_attn") else ()), *(values.get("freeze") or ()))
    tuned = given(values, TrainConfig, "finetune")
    if names:
        tuned["freeze"] = names
    config = replace(
        config,
        pretrain_train=phase(config.pretrain_train, values.get("pretrain_epochs")),
        finetune_train=phase(config.finetune_train, values.get("finetune_epochs"), **tuned),
    )
    _check_schedules(config, both)
    return config


def _check_schedules(config: RunConfig, given: dict[str, Any]) -> None:
    """Raises ConfigError for an option that no schedule of the run looks at."""
    found = (config.pretrain_train.schedule, config.finetune_train.schedule)
    for name, schedules in SCHEDULES_OF.items():
        if name in given and not set(schedules) & set(found):
            raise ConfigError(
                f"--{name.replace('_', '-')} is of the schedules "
                f"{', '.join(schedules)}, found {found[-1]}; leave it out, or name "
                "one of them by --schedule"
            )


def continued_chat(given: tuple[str, ...], run: dict[str, Any]) -> tuple[str, ...] | None:
    """Dialogues that a loaded model is trained on further; None for the packaged ones.

    given  --data; else data/ here, else the files that the model was trained on
    """
    paths = given or local_data()
    if paths:
        chat = split_by_kind(paths)[1]
        if chat or given:
            return chat or None
    known: tuple[str, ...] = tuple(run.get("chat") or ())
    return known if known and all(os.path.exists(path) for path in known) else None
