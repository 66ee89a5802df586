"""Training by two processes of one thread each against one, and what more machines would give.

Measures a step of one process, the same step by two over MPI, and an all-reduce of the gradients;
then models N machines on a network of the latency and bandwidth given (docs/scaling.md). Needs the
extra mpi.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def measure(preset: str, steps: int, processes: int) -> dict[str, Any]:
    """In a process of its own: seconds of a step with so many tokens a process, and of a sum."""
    import numpy as np

    from cgpt import GPTConfig, TrainConfig
    from cgpt.corpus.packing import Batch
    from cgpt.models.gpt2 import GPT
    from cgpt.optim.adamw import AdamW
    from cgpt.runtime.process_group import SINGLE_PROCESS
    from cgpt.training.data_parallel import GradientSum
    from cgpt.training.mpi import connect

    ranks = connect() if processes > 1 else SINGLE_PROCESS
    config = GPTConfig.preset(preset)
    gpt, tokens = GPT(config), TrainConfig().batch_tokens
    optimizer, gradient = AdamW(gpt), GradientSum(gpt, ranks)
    rows = tokens // config.block_size
    ids = np.random.default_rng(ranks.rank).integers(
        0, config.vocab_size, (rows, config.block_size), dtype=np.int32
    )
    batch = Batch(ids, ids, np.zeros(0, np.int32), np.zeros(0, np.int32), ids.size)
    found = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        gpt.forward(batch.ids, batch.targets, scale=1 / (batch.counted * ranks.size))
        gradient.add(last=True)
        gradient.finish()
        optimizer.step(lr=1e-4, clip=1.0)
        found.append(time.perf_counter() - began)
    sums = []
    for _ in range(steps):
        ranks.gather([0.0])
        began = time.perf_counter()
        ranks.begin_sum(gpt.arena.require_grad())
        ranks.finish_sums()
        sums.append(time.perf_counter() - began)
    return {
        "rank": ranks.rank,
        "tokens": ids.size,
        "step": statistics.median(found[1:]),
        "all_reduce": statistics.median(sums),
        "bytes": gpt.arena.size * 4,
    }


def in_a_process(args: argparse.Namespace, processes: int) -> dict[str, Any]:
    """What the first of so many processes measured."""
    command = [
        sys.executable,
        __file__,
        "--preset",
        args.preset,
        "--steps",
        str(args.steps),
        "--processes",
        str(processes),
    ]
    if processes > 1:
        command = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(processes), *command]
    environment = {**os.environ, "CGPT_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, start_new_session=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def model(
    one: dict[str, Any], latency: float, bandwidth: float, speed: float
) -> list[dict[str, float]]:
    """Step and efficiency of N machines with a ring all-reduce that nothing overlaps.

    2 (N - 1) messages of a share of the gradients each. Source: Patarasuk and Yuan 2009, "Bandwidth
    optimal all-reduce algorithms for clusters of workstations".
    """
    rows, compute = [], one["step"] / speed
    for n in NODES:
        network = 2 * (n - 1) * (latency + one["bytes"] / n / bandwidth)
        rows.append(
            {"nodes": n, "step": compute + network, "efficiency": compute / (compute + network)}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--latency", type=float, default=50e-6, help="seconds a message")
    parser.add_argument("--bandwidth", type=float, default=1.17e9, help="bytes a second (10 GbE)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of a machine, where one thread of this one is 1"
    )
    parser.add_argument("--processes", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.processes:
        found = measure(args.preset, args.steps, args.processes)
        if found["rank"] == 0:
            print(json.dumps(found))
        return
    one, two = in_a_process(args, 1), in_a_process(args, 2)
    report = {
        "preset": args.preset,
        "one": one,
        "two": two,
        "efficiency": one["step"] / two["step"],
        "latency": args.latency,
        "bandwidth": args.bandwidth,
        "speed": args.speed,
        "model": model(one, args.latency, args.bandwidth, args.speed),
    }
    if args.json:
        print(json.dumps(report))
        return
    print(
        f"{args.preset}: one process {one['tokens'] / one['step']:,.0f} tokens/s, two "
        f"{2 * two['tokens'] / two['step']:,.0f}; efficiency {report['efficiency']:.1%}; "
        f"all-reduce of {two['bytes'] / 1e6:.0f} MB: {1e3 * two['all_reduce']:.1f} ms"
    )
    for row in report["model"]:
        print(
            f"{row['nodes']:4} machines: step {row['step']:.3f} s, "
            f"efficiency {row['efficiency']:.1%}"
        )


if __name__ == "__main__":
    main()
