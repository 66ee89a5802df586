"""From the start of a process to its first result: a training step, a token of a chat."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cgpt.bench.measure import Measurement, seconds_of
from cgpt.bench.shapes import Shape
from cgpt.bench.table import Settings
from cgpt.bench.workers import Worker, environment_of, require_package
from cgpt.config import PRESETS

PRESET = "base"  # of the model that is talked to


def bench_startup(run: Settings) -> Iterator[Measurement]:
    """Seconds of whole processes, all in turn: one training step at S; the first token of
    `cgpt chat MODEL -p 你好` for a `base` model, and of the same shape in llama.cpp."""
    steps = {side: ["first", side] for side in ("cgpt", *run.peers) if side != "llama-cpp"}
    yield from processes("first training step", steps, "S", run)
    with tempfile.TemporaryDirectory() as folder:
        model = PRESETS[PRESET]
        shape = Shape(
            T=model["block_size"],
            B=1,
            **{name: value for name, value in model.items() if name != "block_size"},
        )
        make_models(folder, shape, run)
        tokens = {
            "cgpt": [
                "cgpt",
                "chat",
                str(Path(folder) / "chat.bin"),
                "-p",
                "你好",
                "--max-new-tokens",
                "1",
            ]
        }
        if "llama-cpp" in run.peers:
            tokens["llama-cpp"] = ["first", "llama-cpp", folder]
        yield from processes("first token", tokens, PRESET, run)


def make_models(folder: str, shape: Shape, run: Settings) -> None:
    """chat.bin with a vocabulary learnt from the packaged data, and model.gguf where asked for."""
    with Worker("maker", run.threads) as maker:
        maker.prepare("make_chat", {"folder": folder, "preset": PRESET})
        if "llama-cpp" in run.peers:
            maker.prepare(
                "make",
                {
                    "shape": vars(shape),
                    "folder": folder,
                    "peers": ["llama-cpp"],
                    "weights": "float32",
                },
            )


def processes(
    name: str, commands: dict[str, list[str]], config: str, run: Settings
) -> Iterator[Measurement]:
    """Seconds of each command as a whole process, in turn, after one of each to fill the disk
    cache; a command begins with "cgpt" or with "first" for first.py."""
    for side in commands:
        require_package(side)
    times: dict[str, list[float]] = {side: [] for side in commands}
    for repeat in range(run.repeats + 1):
        for side, words in commands.items():
            spent = seconds_of(partial(one, side, words, run.threads))
            if repeat:
                times[side].append(spent)
    found = {
        side: Measurement(name, "s", values, side, config, False) for side, values in times.items()
    }
    yield from found.values()
    for side, values in times.items():
        if side != "cgpt":
            yield Measurement(
                name + ", speed",
                "x",
                [theirs / ours for theirs, ours in zip(values, times["cgpt"], strict=True)],
                config=config,
                to=side,
            )


def one(side: str, words: list[str], threads: int) -> None:
    """Run one process to its end; its own errors are shown. Raises CalledProcessError."""
    module = "cgpt" if words[0] == "cgpt" else "cgpt.bench.first"
    subprocess.run(
        [sys.executable, "-m", module, *words[1:]],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment_of(side, threads),
        stdin=subprocess.DEVNULL,
    )
