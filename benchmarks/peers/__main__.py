"""`python -m benchmarks.peers WHAT`: the table of what is compared, its options and printing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from benchmarks.peers.compare import compared, with_least
from benchmarks.peers.decode import bench_decode
from benchmarks.peers.packing import bench_packing
from benchmarks.peers.products import bench_products
from benchmarks.peers.sides import sides
from benchmarks.peers.startup import bench_startup
from cgpt import kernels
from cgpt.bench import train
from cgpt.bench.machine import machine_report
from cgpt.bench.measure import Measurement
from cgpt.bench.shapes import REPEATS, SHAPES
from cgpt.bench.table import Settings
from cgpt.cli.commands.bench import show, tell_skipped
from cgpt.config import WEIGHT_DTYPES
from cgpt.errors import CgptError

TORCH = ("torch", "torch-malloc", "torch-compile")
DECODERS = ("torch", "transformers", "llama-cpp", "ctranslate2")


class Comparison(NamedTuple):
    """What measures, beside which peers, with which options; repeats: 0 for the shape's own."""

    run: Callable[..., Iterator[Measurement]]
    peers: Sequence[str]
    options: tuple[str, ...] = ()
    repeats: int = 0


COMPARISONS = {
    "train": Comparison(
        lambda run: compared(train.bench_train(run)), TORCH, ("config", "recompute")
    ),
    "decode": Comparison(bench_decode, DECODERS, ("config", "weights", "batch")),
    "products": Comparison(bench_products, TORCH[:1], ("config", "rows"), 5),
    "small": Comparison(lambda run: with_least(compared(train.bench_small(run))), TORCH, (), 5),
    "sweep": Comparison(lambda run: with_least(compared(train.bench_sweep(run))), TORCH, (), 3),
    "packing": Comparison(bench_packing, TORCH[:2], ("data",), 3),
    "startup": Comparison(bench_startup, (*TORCH, "llama-cpp"), (), 5),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "config": {"choices": SHAPES, "default": "S", "help": "the shape"},
    "recompute": {"action": "store_true", "help": "of cgpt's side: activations again in backward"},
    "weights": {
        "choices": WEIGHT_DTYPES,
        "default": WEIGHT_DTYPES[0],
        "help": "how matrices are stored",
    },
    "batch": {"type": int, "default": 1, "help": "rows that are decoded together"},
    "rows": {"type": int, "default": 0, "help": "of a product; 0: those of a training batch"},
    "data": {"action": "append", "default": [], "help": "dialogues; the packaged ones"},
}


def peers_of(known: Sequence[str], text: str) -> list[str]:
    """The names in "a,b", each of which is known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{wrong[0]} is not one of {', '.join(known)}")
    return names


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.peers", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, one in COMPARISONS.items():
        command = commands.add_parser(name, help=(one.run.__doc__ or "").split(".")[0] or None)
        kind = partial(peers_of, one.peers)
        command.add_argument(
            "--peer", type=kind, action="extend", default=[], help=",".join(one.peers)
        )
        for option in one.options:
            command.add_argument(f"--{option}", **OPTIONS[option])
        command.add_argument("--repeats", type=int, default=one.repeats)
        command.add_argument("--threads", type=int)
        command.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def measure(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure what the words ask for; the report, printed unless it is to be JSON."""
    given = vars(arguments(words))
    what, quiet = given.pop("what"), given.pop("json")
    one, repeats, threads = COMPARISONS[what], given.pop("repeats"), given.pop("threads")
    if threads:
        kernels.set_num_threads(threads)
    shape = given.pop("config", "S")
    more = {name: given.pop(name) for name in ("rows", "data") if name in given}
    run = Settings(
        shape,
        repeats or REPEATS[shape],
        kernels.get_num_threads(),
        tell_skipped,
        peers=sides(dict.fromkeys(given.pop("peer"))),
        **given,
    )
    results = []
    for found in one.run(run, **more):
        results.append({"bench": what, **found.to_dict()})
        if not quiet:
            show(found)
    report = machine_report(results)
    if quiet:
        print(json.dumps(report))
    return report


if __name__ == "__main__":
    try:
        measure()
    except CgptError as error:
        sys.exit(str(error))
