"""From the start of a process to its first result: a training step, a token of a chat."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial

from cgpt.bench.measure import Measurement, seconds_of
from cgpt.bench.table import Settings
from cgpt.bench.workers import CGPT, Side, Worker

PRESET = "base"  # of the model that is talked to
FIRST_STEP = """
from cgpt import GPT, AdamW
from cgpt.bench.shapes import SHAPES, random_batch
gpt = GPT(SHAPES["S"].config(), seed=0)
optimizer = AdamW(gpt)
gpt.forward(*random_batch(SHAPES["S"]))
gpt.backward()
optimizer.step(lr=1e-4, clip=1.0)
"""


def bench_startup(run: Settings) -> Iterator[Measurement]:
    """Seconds of whole processes: one training step at S; the first token of
    `cgpt chat MODEL -p 你好` for a `base` model."""
    yield from processes("first training step", {"cgpt": (CGPT, ["-c", FIRST_STEP])}, "S", run)
    with tempfile.TemporaryDirectory() as folder:
        chat = (CGPT, first_token(folder, run))
        yield from processes("first token", {"cgpt": chat}, PRESET, run)


def first_token(folder: str, run: Settings) -> list[str]:
    """The arguments of Python for one token of a chat; its model is written to the folder."""
    with Worker("cgpt", CGPT, run.threads) as maker:
        maker.prepare("make_chat", {"folder": folder, "preset": PRESET})
    return ["-m", "cgpt", "chat", f"{folder}/chat.bin", "-p", "你好", "--max-new-tokens", "1"]


def processes(
    name: str, commands: Mapping[str, tuple[Side, list[str]]], config: str, run: Settings
) -> Iterator[Measurement]:
    """Seconds of Python with these arguments as a whole process, each in turn, after one of each
    to fill the disk cache."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(run.repeats + 1):
        for label, (side, words) in commands.items():
            environment = side.process_environment(run.threads)
            times[label].append(seconds_of(partial(run_python, words, environment)))
    for label, values in times.items():
        yield Measurement(name, "s", values[1:], label, config, False)


def run_python(words: list[str], environment: dict[str, str]) -> None:
    """Run one process to its end; its own errors are shown. Raises CalledProcessError."""
    subprocess.run(
        [sys.executable, *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
