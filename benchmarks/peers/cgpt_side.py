"""cgpt's tasks beside those of `cgpt bench`: products, and packed dialogues."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.products import operands
from cgpt import kernels
from cgpt.bench import tasks
from cgpt.bench.measure import repeated
from cgpt.checkpoint.saving import save_model_binary
from cgpt.config import GPTConfig, TrainConfig
from cgpt.corpus.files import packaged_data
from cgpt.corpus.reader import read_corpus
from cgpt.corpus.records import Dialogue
from cgpt.errors import DataError
from cgpt.llm import LLM, load_model_binary
from cgpt.training.trainer import Trainer

BATCH_TOKENS = 2048  # of a packed step: the recipe of `cgpt train`
WARM_STEPS = 2


def dialogues_in(paths: list[str]) -> list[Dialogue]:
    """The dialogues of these files, the packaged ones for none. Raises DataError without any."""
    found = read_corpus(paths or [packaged_data()[1]]).dialogues
    if not found:
        raise DataError(
            "bench: packing needs dialogues, found none in the files of --data; name "
            "a file of dialogues"
        )
    return found


def make_dialogues(folder: str, paths: list[str]) -> Callable[[], None]:
    """Task: a fresh `small` model with a vocabulary of its own, and the encoded dialogues.

    model.bin; samples.npz with ids, targets (all samples end to end) and lengths; config.json.
    """
    dialogues = dialogues_in(paths)
    texts = [message.content for dialogue in dialogues for message in dialogue]
    llm = LLM.from_texts(texts, GPTConfig.preset("small"))
    samples = llm.samples(dialogues)
    place = Path(folder)
    save_model_binary(llm, place / "model.bin", optimizer=False)
    np.savez(
        place / "samples.npz",
        ids=np.concatenate([one.ids for one in samples]),
        targets=np.concatenate([one.targets for one in samples]),
        lengths=[len(one) for one in samples],
    )
    (place / "config.json").write_text(json.dumps(llm.config.to_dict()), "utf-8")
    return lambda: None


def packed(folder: str, paths: list[str]) -> Callable[[], dict[str, Any]]:
    """Task: an epoch of the Trainer: {"seconds", "steps", "tokens", "counted"}."""
    llm = load_model_binary(Path(folder) / "model.bin")
    dialogues = dialogues_in(paths)
    counted = sum(int((one.targets >= 0).sum()) for one in llm.samples(dialogues))

    def epoch(steps: int) -> dict[str, Any]:
        llm.training_state.begin("finetune")  # anew, with fresh moments
        config = TrainConfig(
            epochs=1, batch_tokens=BATCH_TOKENS, lr=1e-4, optimizer="adamw", max_steps=steps
        )
        result = Trainer(llm, config, "finetune").fit(dialogues)
        return {
            "seconds": result.seconds,
            "steps": result.steps,
            "tokens": result.tokens,
            "counted": counted,
        }

    epoch(WARM_STEPS)
    return lambda: epoch(0)


def product(name: str, rows: int, depth: int, columns: int, seconds: float) -> Callable[[], float]:
    """Task: GFLOP/s of one product of a linear layer (rows, depth) -> (rows, columns)."""
    x, weight, y = operands(rows, depth, columns)
    actions: dict[str, Callable[[], Any]] = {
        "forward": lambda: kernels.linear_forward(x, weight, None, y),
        "backward_input": lambda: kernels.linear_backward_input(y, weight, x),
        "backward_weight": lambda: kernels.linear_backward_weight(y, x, weight, None),
    }
    measure = repeated(actions[name], seconds)
    return lambda: 2e-9 * rows * depth * columns / measure()


TASKS = {**tasks.TASKS, "make_dialogues": make_dialogues, "packed": packed, "product": product}
