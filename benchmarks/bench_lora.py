"""A step of LoRA beside one of all weights: time, memory, and what their files take.

    python benchmarks/bench_lora.py                         the preset small, rank 8
    python benchmarks/bench_lora.py --preset gpt2 --tokens 1024 --rank 16 --json

Each side trains in a process of its own on batches of random tokens; the steps of both are measured
in turn, `--repeats` times. Memory is the most that the process held after a step, less what it held
before the model was made. Files: the model with its optimizer and its weights alone, the adapter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIDES = ("full", "lora")


def work(side: str, preset: str, tokens: int, rank: int, folder: Path) -> None:
    """One side: a line on stdin asks for a step, its seconds are answered; then the sizes."""
    import numpy as np

    import cgpt
    from cgpt.models.gpt2 import GPT
    from cgpt.optim.lora import Lora
    from cgpt.runtime.memory import resident
    from cgpt.tokenizers.vocabulary import FIRST_WORD

    config = cgpt.GPTConfig.preset(preset)
    words = [chr(0x20000 + i) for i in range(config.vocab_size - FIRST_WORD)]
    tokenizer = cgpt.Tokenizer.from_state({"words": words, "scores": [0.0] * len(words)})
    before = resident()
    llm = cgpt.LLM(tokenizer, GPT(config))
    if side == "lora":
        cgpt.save_model_binary(llm, folder / "model.bin", optimizer=False)
        llm.optimizer = Lora(llm.gpt, rank, 16.0, base=llm.base)
    else:
        llm.optimizer = cgpt.AdamW(llm.gpt)
    rng = np.random.default_rng(0)
    T = min(config.block_size, tokens)
    peak = 0
    for _ in sys.stdin:
        ids, targets = rng.integers(
            FIRST_WORD, config.vocab_size, (2, tokens // T, T), dtype=np.int32
        )
        start = time.perf_counter()
        llm.gpt.forward(ids, targets)
        llm.gpt.backward()
        llm.optimizer.step(lr=1e-4, clip=1.0)
        seconds = time.perf_counter() - start
        peak = max(peak, resident() - before)
        print(json.dumps(seconds), flush=True)
    path = cgpt.save_model_binary(llm, folder / f"{side}.bin")
    files = {"bytes": path.stat().st_size, "memory": peak}
    if side == "lora":
        files["model_bytes"] = (folder / "model.bin").stat().st_size
    print(json.dumps(files), flush=True)


def measure(preset: str, tokens: int, rank: int, repeats: int) -> dict[str, Any]:
    """Both sides in turn; the first step of each, which takes the memory, is not counted."""
    with TemporaryDirectory(prefix="cgpt-") as folder:
        children = {
            side: subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--side",
                    side,
                    "--folder",
                    folder,
                    "--preset",
                    preset,
                    "--tokens",
                    str(tokens),
                    "--rank",
                    str(rank),
                ],
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for side in SIDES
        }
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(repeats + 1):
            for side, child in children.items():
                child.stdin.write("\n")
                child.stdin.flush()
                times[side].append(json.loads(child.stdout.readline()))
        sizes = {}
        for side, child in children.items():
            sizes[side] = json.loads(child.communicate()[0])
    found = {
        side: {
            "ms_per_step": 1e3 * statistics.median(times[side][1:]),
            "tokens_per_second": tokens / statistics.median(times[side][1:]),
            "memory_mb": sizes[side]["memory"] / 1e6,
            "file_mb": sizes[side]["bytes"] / 1e6,
        }
        for side in SIDES
    }
    return {
        "preset": preset,
        "tokens": tokens,
        "rank": rank,
        "repeats": repeats,
        **found,
        "weights_file_mb": sizes["lora"]["model_bytes"] / 1e6,
        "speed": statistics.median(
            a / b for a, b in zip(times["full"][1:], times["lora"][1:], strict=True)
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="small")
    parser.add_argument("--tokens", type=int, default=2048, help="of a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work(options.side, options.preset, options.tokens, options.rank, options.folder)
        return 0
    found = measure(options.preset, options.tokens, options.rank, options.repeats)
    if options.json:
        print(json.dumps(found))
        return 0
    for side, label in (("full", "all weights"), ("lora", f"LoRA, rank {options.rank}")):
        one = found[side]
        print(
            f"{label:16} {one['ms_per_step']:8.1f} ms a step {one['tokens_per_second']:8.0f} "
            f"tokens/s {one['memory_mb']:8.1f} MB of memory {one['file_mb']:8.2f} MB on disk"
        )
    print(
        f"a step of LoRA is {found['speed']:.2f} times as fast; the weights alone take "
        f"{found['weights_file_mb']:.2f} MB on disk"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
