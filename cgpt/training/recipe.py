"""The recipe of the guided run: its settings, the data that it finds, and what a recorded one says.

A training state keeps a RunConfig as a dictionary, so that a checkpoint alone says how to continue.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgpt.config import WINDOWS, RunConfig, TrainConfig
from cgpt.corpus.files import EARLIER, packaged_data

# The recipe of the guided run, tuned on the packaged data with the `small` preset
# (benchmarks/bench_chat_quality.py). Joining up to eight dialogues fills the context, so that a
# chat's later turns look like what was trained. The schedule is that of the texts of
# benchmarks/peers/learning.py.
PRETRAIN = TrainConfig(
    epochs=8, batch_tokens=2048, warmup=20, schedule="wsd", decay_share=0.6, min_lr_ratio=0.0
)
FINETUNE = replace(PRETRAIN, epochs=22, join_dialogues=8)


def recorded(run: dict[str, Any]) -> dict[str, Any]:
    """The fields of the RunConfig that a training state holds.

    What a run of an earlier version does not say is what that version did: it kept duplicates,
    trained by AdamW on the answers of dialogues, cut long dialogues anywhere and read only files
    of the EARLIER suffixes in folders.
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


DATA = "data"  # folder of the current directory
BEGINNING = 1000  # items of a large file that say what it holds


def local_data() -> tuple[str, ...]:
    """data/*.json of the current directory, or where there is none all data files in data/."""
    found = tuple(path.as_posix() for path in sorted(Path(DATA).glob("*.json")) if path.is_file())
    return found or tuple(path for path, skipped in data_files() if not skipped)


def data_files() -> list[tuple[str, str]]:
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

    config = default_run(preset or "small")
    found = local_data()
    if found:
        pretrain, chat = split_by_kind(found, as_text)
        config = replace(config, pretrain=pretrain, chat=chat)
    return config


def is_packaged(paths: tuple[str, ...]) -> bool:
    """Whether these are the files that come with cgpt, or copies of them."""
    from cgpt.corpus.files import packaged_data

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
