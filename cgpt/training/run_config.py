"""The recipe of the guided run, and what a recorded RunConfig says.

A training state keeps it as a dictionary, so that a checkpoint alone says how to go on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cgpt.config import WINDOWS, RunConfig, TrainConfig
from cgpt.corpus.batches import packaged_data
from cgpt.corpus.files import EARLIER

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
