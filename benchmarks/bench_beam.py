"""Beam search: new tokens a second with all beams in one pass, and beam by beam, in alternation.

    python benchmarks/bench_beam.py --config S --beam 4 [--json]

16 prompt tokens, 100 new ones, random weights; a token counts once, however many beams there are.
Both ways find the same hypotheses, which is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import cgpt
from cgpt.bench.shapes import NEW, SHAPES, random_prompts
from cgpt.generation import beam
from cgpt.generation.beam import BatchedBeams
from cgpt.generation.context import Context
from cgpt.generation.generate import beam_search
from cgpt.models.gpt2 import GPT


class SeparateBeams:
    """What BatchedBeams does, by a context for each sequence."""

    def __init__(self, context: Context, *_: int) -> None:
        self._contexts = [context]

    def seen(self, i: int) -> np.ndarray:
        return self._contexts[i].seen(len(self._contexts[i]))

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        last = {parent: i for i, parent in enumerate(parents)}
        self._contexts = [
            self._contexts[parent] if last[parent] == i else self._contexts[parent].copy()
            for i, parent in enumerate(parents)
        ]
        return np.stack(
            [context.push(token) for context, token in zip(self._contexts, tokens, strict=True)]
        )


def measure(config: str, width: int, new: int, repeats: int) -> dict[str, Any]:
    """Medians, leasts and mosts of both ways."""
    shape = SHAPES[config]
    gpt, prompt = GPT(shape.config(), seed=0), random_prompts(shape, 1)[0]
    sampling = cgpt.SamplingConfig(beam=width, max_new_tokens=new)
    ways = {"one pass": BatchedBeams, "beam by beam": SeparateBeams}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    found = []
    for _ in range(repeats + 1):  # the first is to warm up
        for name, way in ways.items():
            beam.BatchedBeams = way
            start = time.perf_counter()
            found.append(beam_search(gpt, prompt, sampling))
            rates[name].append(new / (time.perf_counter() - start))
    beam.BatchedBeams = BatchedBeams
    return {
        "config": config,
        "beam": width,
        "new": new,
        "same": all(one == found[0] for one in found),
        "tokens_per_second": {
            name: {
                "median": statistics.median(values[1:]),
                "least": min(values[1:]),
                "most": max(values[1:]),
            }
            for name, values in rates.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=tuple(SHAPES), default="S")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--new", type=int, default=NEW)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.config, options.beam, options.new, options.repeats)
    if options.json:
        print(json.dumps(result))
        return 0 if result["same"] else 1
    for name, one in result["tokens_per_second"].items():
        print(f"{name:14} {one['median']:8.0f} tokens/s  ({one['least']:.0f} to {one['most']:.0f})")
    print(f"{'the same found':14} {result['same']}")
    return 0 if result["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
