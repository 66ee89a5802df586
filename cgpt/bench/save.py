"""Saving and loading against the plain write of the same bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cgpt.bench.decode import bench_folder
from cgpt.bench.measure import Measurement, ratio, seconds_of
from cgpt.bench.shapes import SHAPES
from cgpt.bench.table import Settings
from cgpt.checkpoint.saving import save_model_binary
from cgpt.llm import LLM, load_model_binary
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW
from cgpt.tokenizers.tokenizer import Tokenizer


def bench_save(run: Settings) -> Iterator[Measurement]:
    """Saving with optimizer state against writing the same bytes with fsync; loading."""
    gpt = GPT(SHAPES[run.config].config(), seed=0)
    llm = LLM(Tokenizer.train(["山高水长，天地之间。"] * 4, 300), gpt, AdamW(gpt))
    with tempfile.TemporaryDirectory(dir=bench_folder()) as place:
        path, other = Path(place) / "model.bin", Path(place) / "plain"
        save_model_binary(llm, path)
        content = path.read_bytes()

        def plain() -> None:
            with open(other, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

        plain()
        saves = Measurement("save", "s", [], config=run.config, higher=False)
        writes = Measurement("plain write + fsync", "s", [], "machine", run.config, False)
        for _ in range(run.repeats):
            writes.values.append(seconds_of(plain))
            saves.values.append(seconds_of(lambda: save_model_binary(llm, path)))
        yield from (saves, writes, ratio(saves, writes.values, writes.name))
        for label, training in (("load for chat", False), ("load for training", True)):
            values = [
                seconds_of(lambda: load_model_binary(path, training=training))  # noqa: B023
                for _ in range(run.repeats + 1)
            ][1:]
            yield Measurement(label, "s", values, config=run.config, higher=False)
        size = [len(content) / gpt.n_parameters]
        yield Measurement("bytes a parameter", "B", size, config=run.config, higher=False)
