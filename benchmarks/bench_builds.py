"""Two builds of cgpt side by side: is this one as fast as that of another environment?

    python benchmarks/bench_builds.py --other PYTHON [--repeats 15] [--config S,M] [--seconds 0.5]
                                      [--json]

PYTHON is the interpreter of an environment in which the other build is installed. Each build runs
in a process of its own that stays alive; they take turns, so that what the machine does meanwhile
meets both. Printed: this build's tokens/s over the other's, median of the pairs and their spread.
Without `--other` both are this build, and the spread is the noise of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module

SHAPES = {  # layers, heads, width, ffn, vocabulary, tokens of a sequence, sequences
    "S": (2, 8, 256, 1024, 3000, 128, 16),
    "M": (6, 6, 384, 1536, 8192, 256, 8),
}
KINDS = ("train", "decode", "decode int8", "batch of 8")
PROMPT, NEW = 16, 64


def task(kind: str, shape: str) -> Callable[[], int]:
    """What one unit of work is; it returns how many tokens it took."""
    import numpy as np

    import cgpt

    n_layer, n_head, n_embd, n_ff, vocab_size, T, B = SHAPES[shape]
    gpt = cgpt.GPT(
        cgpt.GPTConfig(
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            n_ff=n_ff,
            vocab_size=vocab_size,
            block_size=256,
        ),
        seed=0,
    )
    ids = (np.arange(B * T, dtype=np.int32) * 7919 % vocab_size).reshape(B, T)
    if kind == "train":
        optimizer = cgpt.AdamW(gpt)

        def step() -> int:
            gpt.forward(ids, ids)
            gpt.backward()
            optimizer.step(lr=1e-4, clip=1.0)
            return B * T

        return step
    if kind == "decode int8":
        try:
            from cgpt.models.quantized import with_weights
        except ModuleNotFoundError:  # a build from before the packages
            with_weights = import_module("cgpt.stored").with_weights

        gpt = with_weights(gpt, "int8")
    prompts = ids[:8, :PROMPT] if kind == "batch of 8" else ids[0, :PROMPT]

    def answer() -> int:
        gpt.generate(prompts, max_new_tokens=NEW)
        return NEW * (8 if kind == "batch of 8" else 1)

    return answer


def serve(seconds: float) -> None:
    """The worker: for each line "kind/shape" on stdin, tokens/s on stdout."""
    tasks: dict[str, Callable[[], int]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in tasks:
            tasks[name] = task(*name.split("/"))
            tasks[name]()
        tokens, began = 0, time.perf_counter()
        while not tokens or time.perf_counter() - began < seconds:
            tokens += tasks[name]()
        print(tokens / (time.perf_counter() - began), flush=True)


class Build:
    """A worker process of one interpreter."""

    def __init__(self, python: str, seconds: float) -> None:
        # Idle threads of one build must not spin beside the other.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            [python, os.path.abspath(__file__), "--serve", f"--seconds={seconds}"],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def rate(self, name: str) -> float:
        """tokens/s of one turn of "kind/shape"."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--config", default="S,M")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="least length of a timed turn")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.seconds)
        return
    builds = (Build(sys.executable, options.seconds), Build(options.other, options.seconds))
    found = {}
    for name in (f"{kind}/{shape}" for shape in options.config.split(",") for kind in KINDS):
        for build in builds:
            build.rate(name)  # makes the model
        pairs = []
        for turn in range(options.repeats):
            order = (0, 1) if turn % 2 else (1, 0)
            rates = {i: builds[i].rate(name) for i in order}
            pairs.append((rates[0], rates[1]))
        ratios = sorted(here / there for here, there in pairs)
        found[name] = {
            "median": statistics.median(ratios),
            "least": ratios[0],
            "most": ratios[-1],
            "quartiles": statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else ratios * 2,
            "tokens_per_second": statistics.median(here for here, _ in pairs),
        }
        if not options.json:
            one = found[name]
            print(
                f"{name:16} {one['median']:.3f} of the other build ({one['least']:.3f} to "
                f"{one['most']:.3f}; half within {one['quartiles'][0]:.3f} and "
                f"{one['quartiles'][1]:.3f}), {one['tokens_per_second']:,.0f} tokens/s",
                flush=True,
            )
    for build in builds:
        build.close()
    if options.json:
        print(json.dumps({"repeats": options.repeats, "ratios": found}))


if __name__ == "__main__":
    main()
