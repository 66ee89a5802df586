"""From the start of a process to its first result, beside PyTorch and llama.cpp."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from benchmarks.peers.compare import compared
from cgpt.bench import startup
from cgpt.bench.measure import Measurement
from cgpt.bench.shapes import Shape
from cgpt.bench.table import Settings
from cgpt.bench.workers import CGPT, Worker
from cgpt.config import PRESETS


def bench_startup(run: Settings) -> Iterator[Measurement]:
    """Seconds of whole processes, all in turn: one training step at S; the first token of
    `cgpt chat MODEL -p 你好` for a `base` model, and of the same shape in llama.cpp."""
    peers = dict(run.peers)
    llama = peers.pop("llama-cpp", None)
    peers.pop("llama-cpp-1", None)
    steps = {side: (one, ["-m", one.module, *one.details]) for side, one in peers.items()} | {
        "cgpt": (CGPT, ["-c", startup.FIRST_STEP])
    }
    yield from compared(startup.processes("first training step", steps, "S", run))
    with tempfile.TemporaryDirectory() as folder:
        tokens = {"cgpt": (CGPT, startup.first_token(folder, run))}
        if llama:
            model = PRESETS[startup.PRESET]
            sizes = {name: value for name, value in model.items() if name != "block_size"}
            shape = vars(Shape(T=model["block_size"], B=1, **sizes))
            with Worker("llama-cpp", llama, run.threads) as maker:
                details = {"shape": shape, "folder": folder, "weights": "float32"}
                maker.prepare("make", details)
            tokens["llama-cpp"] = (llama, ["-m", llama.module, folder, str(run.threads)])
        yield from compared(startup.processes("first token", tokens, startup.PRESET, run))
