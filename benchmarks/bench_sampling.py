"""Microseconds that the choice of a token takes, by option and size of the vocabulary.

    python benchmarks/bench_sampling.py --json

`flat` logits are those of an untrained model (nearly equal), `peaked` spread as a trained one's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cgpt.config import SamplingConfig
from cgpt.generation.sampling import Sampler
from cgpt.kernels import instruction_set

SIZES = (3000, 50257)
SPREADS = {"flat": 0.3, "peaked": 4.0}
CONTEXT = 1000
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"top_p": 1.0},
    "top_p 0.9": {},
    "top_k 40": {"top_k": 40, "top_p": 1.0},
    "min_p 0.05": {"min_p": 0.05, "top_p": 1.0},
    "top_k 40, top_p 0.9": {"top_k": 40},
    "penalties": {"repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1},
    "no_repeat_ngram 3": {"no_repeat_ngram": 3},
}


def microseconds(call: Callable[[], object], repeats: int) -> float:
    """The least of `repeats` rounds of 50 calls."""
    least = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(50):
            call()
        least = min(least, (time.perf_counter() - start) / 50)
    return least * 1e6


def measure(repeats: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    found = []
    for size in SIZES:
        seen = rng.integers(0, size, CONTEXT).astype(np.int32)
        for name, spread in SPREADS.items():
            logits = (spread * rng.standard_normal(size)).astype(np.float32)
            for option, values in OPTIONS.items():
                sampler = Sampler(SamplingConfig(seed=0, **values), size, banned=range(5))
                found.append(
                    {
                        "vocab_size": size,
                        "logits": name,
                        "option": option,
                        "us": microseconds(
                            lambda sampler=sampler, logits=logits, seen=seen: sampler.pick(
                                logits, seen
                            ),
                            repeats,
                        ),
                    }
                )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.repeats)
    if options.json:
        print(
            json.dumps({"instruction_set": instruction_set(), "context": CONTEXT, "times": found})
        )
        return 0
    for one in found:
        print(f"V {one['vocab_size']:6d}  {one['logits']:7}{one['option']:20}{one['us']:8.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
