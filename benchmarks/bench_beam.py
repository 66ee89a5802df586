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
from typing import Any

import cgpt
from cgpt.bench.shapes import NEW, SHAPES, random_prompts
from cgpt.generation import beam
from cgpt.generation.branches import Branches, ByThemselves, branches
from cgpt.generation.context import Context
from cgpt.generation.generate import beam_search
from cgpt.models.gpt2 import GPT


def by_themselves(context: Context, most: int, left: int) -> Branches:
    """As cgpt.generation.branches.branches, but beam by beam."""
    return ByThemselves(context)


def measure(config: str, width: int, new: int, repeats: int) -> dict[str, Any]:
    """Medians, leasts and mosts of both ways."""
    shape = SHAPES[config]
    gpt, prompt = GPT(shape.config(), seed=0), random_prompts(shape, 1)[0]
    sampling = cgpt.SamplingConfig(beam=width, max_new_tokens=new)
    ways = {"one pass": branches, "beam by beam": by_themselves}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    found = []
    for _ in range(repeats + 1):  # the first is to warm up
        for name, way in ways.items():
            beam.branches = way
            start = time.perf_counter()
            found.append(beam_search(gpt, prompt, sampling))
            rates[name].append(new / (time.perf_counter() - start))
    beam.branches = branches
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
