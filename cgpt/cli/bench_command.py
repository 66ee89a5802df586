"""`cgpt bench`: the measurements of bench.py, printed. The scripts in benchmarks/ call `main`."""

from __future__ import annotations

import platform
import sys
from contextlib import ExitStack
from typing import Any

import click

from cgpt.cli import options
from cgpt.cli.app import Command, Number, OneOf, option
from cgpt.cli.messages import t
from cgpt.errors import ConfigError

WHAT = ("kernels", "train", "decode", "save")
PEERED = ("train", "decode")


@click.command("bench", cls=Command)
@click.argument("what", required=False, type=OneOf(WHAT), metavar="[kernels|train|decode|save]")
@option("--config", "shape", type=OneOf(("S", "M", "L"), fold=True), default="S",
        metavar="S|M|L", note="S")
@option("--peer", type=OneOf(("torch",)), metavar="torch")
@option("--repeats", type=Number(1, 1000, whole=True), metavar="N")
@options.threads
@options.as_json
def bench(what: str | None, shape: str, peer: str | None, repeats: int | None,
          as_json: bool) -> int:
    """Measure this machine."""
    from cgpt.cli.models import print_json

    chosen = [what] if what else list(WHAT)
    if peer and not set(chosen) & set(PEERED):
        raise ConfigError(f"bench: --peer measures {' and '.join(PEERED)}, not {what}; "
                          "name one of them or leave --peer out")
    found = measure(chosen, shape, peer, repeats, quiet=as_json)
    if as_json:
        print_json(found)
    return 0


def measure(chosen: list[str], shape: str, peer: str | None = None, repeats: int | None = None,
            *, quiet: bool = True) -> dict[str, Any]:
    """Run the measurements and describe machine and results; prints them unless `quiet`."""
    import cgpt
    from cgpt import kernels
    from cgpt.cli.bench import BENCHES, REPEATS, SHAPES
    from cgpt.cli.bench_peer import TorchPeer

    threads = kernels.get_num_threads()
    results = []
    with ExitStack() as stack:
        other = stack.enter_context(TorchPeer(shape, threads)) if peer else None
        for what in chosen:
            print(t("bench_running", what=f"{what} {shape}"), file=sys.stderr, flush=True)
            beside = other if what in PEERED else None
            for found in BENCHES[what](shape, repeats or REPEATS[shape], beside):
                results.append({"bench": what, **found.to_dict()})
                if not quiet:
                    show(found)
    return {"version": cgpt.__version__, "python": platform.python_version(),
            "machine": platform.machine(), "instruction_set": kernels.instruction_set(),
            "threads": threads, "config": shape, "shape": vars(SHAPES[shape]),
            "peak_memory_mb": peak_memory(), "results": results}


def show(found: Any) -> None:
    """One measurement as a line."""
    values = {"median": figure(found.median), "low": figure(min(found.values)),
              "high": figure(max(found.values)), "unit": found.unit, "n": len(found.values)}
    line = f"{found.name:32} {t('bench_median', **values)}"
    if found.ratio is not None:
        line += "  " + t("bench_ratio", peer=found.peer, ratio=f"{found.ratio:.2f}")
    click.echo(line)


def figure(value: float) -> str:
    """Four figures, never an exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def peak_memory() -> float | None:
    """Most resident megabytes of this process so far, where the system tells."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def main(what: str) -> int:
    """`cgpt bench WHAT` with the options of this process: for the scripts in benchmarks/."""
    from cgpt.cli import main as run

    return run(["bench", what, *sys.argv[1:]])
