"""Saving and loading against the disk: a model with Adam state, and a plain write of its bytes.

    python benchmarks/bench_checkpoint.py [--preset base] [--repeats 9] [--folder DIR] [--json]

Every save is followed by a plain write + fsync of as many bytes and, where they are installed, by
safetensors and numpy with the same tensors (with fsync); median and spread (quarter to quarter) of
each, and the ratio of the medians. A load for chat (weights, vocabulary, every checksum of them) is
followed by safetensors' memory-mapped load of the same weights. Files are read warm. Choose a
--folder on the disk that counts. Of the JSON files the memory of a process that saves and loads
them is measured too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import GPTConfig
from cgpt.llm import LLM, load_model_binary, load_model_json
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.tokenizers.vocabulary import FIRST_WORD

Action = Callable[[], object]
_WEIGHTS = ("load for chat", "safetensors mapped load")  # of files a third as large


def make_model(preset: str) -> LLM:
    """Random weights and moments, a full vocabulary."""
    config = GPTConfig.preset(preset)
    words = [chr(0x4E00 + i) for i in range(min(config.vocab_size, 20000) - FIRST_WORD)]
    tokenizer = Tokenizer.from_state({"words": words, "scores": [-8.0] * len(words)})
    gpt = GPT(config)
    llm = LLM(tokenizer, gpt, AdamW(gpt))
    rng = np.random.default_rng(0)
    for array, scale in zip(gpt.arena.require_moments(), (1e-3, 1e-6), strict=True):
        for entry in gpt.arena.entries:
            array[entry.offset : entry.offset + entry.size] = scale * rng.random(entry.size)
    return llm


def synced(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def plain_write(path: Path, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def plain_read(path: Path) -> np.ndarray:
    """The whole file into memory that is taken for it, as a load with copy does."""
    target = np.empty(path.stat().st_size, np.uint8)
    with open(path, "rb", buffering=0) as file:
        file.readinto(target)
    return target


def tensors_of(llm: LLM) -> dict[str, np.ndarray]:
    """Weights, m and v by name."""
    arena = llm.gpt.arena
    arrays = {"": arena.data, "m.": arena.m, "v.": arena.v}
    return {
        prefix + entry.name: arena.view(entry.name, array)
        for prefix, array in arrays.items()
        for entry in arena.entries
    }


def actions(llm: LLM, folder: Path, with_json: bool) -> dict[str, Action]:
    """What is timed, in the order in which it runs; each save before the loads of its file."""
    binary, plain, weights = folder / "model.bin", folder / "plain.bin", folder / "weights.bin"
    save_model_binary(llm, weights, optimizer=False)
    content = save_model_binary(llm, binary).read_bytes()
    plain_write(plain, content)
    tensors = tensors_of(llm)
    found: dict[str, Action] = {
        "save": lambda: save_model_binary(llm, binary),
        "plain write + fsync": lambda: plain_write(plain, content),
        "load for training": lambda: load_model_binary(binary),
        "plain read": lambda: plain_read(plain),
        "verify": lambda: describe(binary, verify=True),
        "load for chat": lambda: load_model_binary(weights, training=False),
    }
    if importlib.util.find_spec("safetensors"):
        from safetensors import safe_open
        from safetensors.numpy import save_file

        other, mapped = folder / "model.safetensors", folder / "weights.safetensors"
        save_file(llm.gpt.parameters(), mapped)

        def load_mapped() -> dict[str, np.ndarray]:
            with safe_open(mapped, "np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

        found["safetensors mapped load"] = load_mapped
        found["safetensors save + fsync"] = lambda: (save_file(tensors, other), synced(other))
    numpy_file = folder / "model.npz"
    found["numpy savez + fsync"] = lambda: (np.savez(numpy_file, **tensors), synced(numpy_file))
    found["numpy load"] = lambda: dict(np.load(numpy_file))
    if with_json:
        text = folder / "model.json"
        found["JSON save"] = lambda: save_model_json(llm, text)
        found["JSON load"] = lambda: load_model_json(text)
    return found


def run(found: dict[str, Action], repeats: int) -> dict[str, list[float]]:
    """Seconds of each action; all that write take turns, then all that read.

    The first turn does not count. A read right after a write would be timed together with what the
    disk still does. The JSON files take seconds and have one turn.
    """
    times: dict[str, list[float]] = {name: [] for name in found}
    json_files = [name for name in found if name.startswith("JSON")]
    others = [name for name in found if name not in json_files]
    writes = [name for name in others if "save" in name or "write" in name]
    reads = [name for name in others if name not in writes]
    for names, turns in ((writes, repeats), (reads, repeats), (json_files, 0)):
        for turn in range(turns + 1):
            for name in names:
                start = time.perf_counter()
                found[name]()
                if turn or not turns:
                    times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="base")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where the files are written")
    parser.add_argument("--no-json-files", action="store_true", help="leave out the JSON format")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    llm = make_model(args.preset)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        times = run(actions(llm, folder, not args.no_json_files), args.repeats)
        size = (folder / "model.bin").stat().st_size
        text = folder / "model.json"
        json_size = text.stat().st_size if text.exists() else 0
    report(args, llm, times, size, json_size)


def report(
    args: argparse.Namespace, llm: LLM, times: dict[str, list[float]], size: int, json_size: int
) -> None:
    median = {name: statistics.median(values) for name, values in times.items()}
    spread = {
        name: float(np.subtract(*np.percentile(values, [75, 25]))) for name, values in times.items()
    }
    result: dict[str, Any] = {
        "preset": args.preset,
        "parameters": llm.n_parameters,
        "bytes": size,
        "bytes_per_parameter": size / llm.n_parameters,
        "json_bytes": json_size,
        "seconds": median,
        "spread": spread,
        "save_ratio": median["plain write + fsync"] / median["save"],
        "load_ratio": median["plain read"] / median["load for training"],
    }
    if "safetensors mapped load" in median:
        result["chat_ratio"] = median["load for chat"] / median["safetensors mapped load"]
    for name in ("JSON save", "JSON load"):
        if name in median:
            result[f"{name} MB/s"] = json_size / median[name] / 1e6
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"{args.preset}: {llm.n_parameters} parameters, {size / 1e6:.1f} MB with Adam state "
        f"({result['bytes_per_parameter']:.3f} bytes a parameter)"
    )
    for name, seconds in median.items():
        rate = (
            (json_size if name.startswith("JSON") else size / 3 if name in _WEIGHTS else size)
            / seconds
            / 1e6
        )
        print(
            f"  {name:26} {seconds * 1e3:9.1f} ms  +- {spread[name] * 1e3:6.1f}  "
            f"{rate:8.0f} MB/s of its file"
        )
    print(
        f"save at {result['save_ratio']:.2f} of the speed of a plain write + fsync (median), "
        f"load with copy at {result['load_ratio']:.2f} of a plain read"
    )
    if "chat_ratio" in result:
        print(f"load for chat in {result['chat_ratio']:.2f} of the time of safetensors' load")


if __name__ == "__main__":
    main()
