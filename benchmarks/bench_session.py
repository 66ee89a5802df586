"""One chat session over many turns: seconds a turn and memory of the process as they go on.

    python benchmarks/bench_session.py --turns 10000 --json

Memory must not grow but for the text of the history. The model is untrained, so that answers have
all lengths; `--preset` chooses its shape.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import cgpt

QUESTIONS = ("长江有多长？", "天空是什么颜色？", "一年有几个季节？", "谢谢！", "请讲一个故事。")


def resident_mb() -> float | None:
    """Megabytes of this process in memory; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * 4096 / 1e6


def measure(preset: str, turns: int, new: int) -> dict[str, Any]:
    """Memory and time at ten places on the way."""
    llm = cgpt.LLM.from_texts(QUESTIONS, cgpt.GPTConfig.preset(preset))
    session = cgpt.ChatSession(
        llm, cgpt.SamplingConfig(temperature=1.0, max_new_tokens=new, seed=0)
    )
    points, start, answered = [], time.perf_counter(), 0
    for turn in range(1, turns + 1):
        answered += bool("".join(session.reply(QUESTIONS[turn % len(QUESTIONS)])))
        if turn % max(turns // 10, 1) == 0:
            points.append(
                {
                    "turn": turn,
                    "memory_mb": resident_mb(),
                    "ms_per_turn": (time.perf_counter() - start) * 1e3 / turn,
                    "context_tokens": session.context_tokens,
                }
            )
    return {"preset": preset, "turns": turns, "answered": answered, "points": points}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--turns", type=int, default=10000)
    parser.add_argument("--max-new-tokens", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.preset, options.turns, options.max_new_tokens)
    if options.json:
        print(json.dumps(result))
        return 0
    for point in result["points"]:
        memory = "?" if point["memory_mb"] is None else f"{point['memory_mb']:.1f}"
        print(
            f"turn {point['turn']:6d}  memory {memory} MB  {point['ms_per_turn']:.2f} ms a turn  "
            f"context {point['context_tokens']} tokens"
        )
    print(f"answered {result['answered']} of {result['turns']} turns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
