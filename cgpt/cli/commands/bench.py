"""`cgpt bench`: the measurements of bench/, printed. The scripts in benchmarks/ call `main`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cgpt.bench.table import BENCHES, Settings
from cgpt.cli import options
from cgpt.cli.app import Command, Number, OneOf, option, output_width
from cgpt.cli.error_text import localized
from cgpt.cli.messages import t
from cgpt.cli.ui import terminal
from cgpt.cli.ui.layout import text_width, wrap
from cgpt.cli.ui.progress import duration
from cgpt.cli.ui.streams import echo, print_json
from cgpt.config import FORMS
from cgpt.errors import ConfigError
from cgpt.version import __version__

if TYPE_CHECKING:
    from cgpt.bench.measure import Measurement, Skip

NAMES = tuple(BENCHES)
PEERS = tuple(dict.fromkeys(peer for one in BENCHES.values() for peer in one.peers))


def separate(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Callback: the words of `--peer a,b --peer c`, each once."""
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    known = OneOf(PEERS, fold=True)
    return tuple(dict.fromkeys(known.convert(word, param, ctx) for word in words))


@click.command("bench", cls=Command)
@click.argument("what", required=False, type=OneOf(NAMES), metavar=f"[{'|'.join(NAMES)}]")
@option(
    "--config",
    "shape",
    type=OneOf(("S", "M", "L", "L64"), fold=True),
    metavar="S|M|L|L64",
    note="S; threads: M",
)
@option("--peer", multiple=True, callback=separate, metavar="NAME[,NAME]")
@option("--weights", type=OneOf(FORMS), metavar="|".join(FORMS), note=FORMS[0])
@option("--batch", type=Number(1, 4096, whole=True), metavar="N", note="1")
@option("--rows", type=Number(1, 1 << 20, whole=True), metavar="N")
@option("--data", multiple=True, metavar="PATH")
@option("--recompute", is_flag=True)
@option("--repeats", type=Number(1, 1000, whole=True), metavar="N")
@options.threads
@options.as_json
def bench(
    what: str | None, shape: str | None, repeats: int | None, as_json: bool, **given: Any
) -> int:
    """Measure this machine."""

    chosen = [what] if what else [name for name, one in BENCHES.items() if one.whole]
    wanted = {name: value for name, value in {"config": shape, **given}.items() if value}
    refuse_unused(chosen, wanted)
    refuse_strangers(chosen, given["peer"])
    found = measure(chosen, repeats, quiet=as_json, **wanted)
    if as_json:
        print_json(found)
    return 0


def refuse_unused(chosen: list[str], given: Iterable[str]) -> None:
    """An option that no chosen measurement takes would do nothing: say so."""
    taken = {name for what in chosen for name in BENCHES[what].options}
    for name in given:
        if name not in taken:
            takers = ", ".join(what for what, one in BENCHES.items() if name in one.options)
            raise ConfigError(
                f"bench: --{name} is for {takers}, not for {', '.join(chosen)}; "
                f"name one of them or leave --{name} out"
            )


def refuse_strangers(chosen: list[str], peers: tuple[str, ...]) -> None:
    """A peer that no chosen measurement can be made beside."""
    known = [peer for peer in PEERS if any(peer in BENCHES[what].peers for what in chosen)]
    for peer in peers:
        if peer not in known:
            raise ConfigError(
                f"bench: {' and '.join(chosen)} cannot be measured beside {peer}; "
                f"possible: {', '.join(known)}"
            )


def measure(
    chosen: list[str],
    repeats: int | None = None,
    *,
    quiet: bool = True,
    config: str = "",
    peer: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """Run the measurements and describe machine and results; prints them unless `quiet`."""
    from cgpt import kernels
    from cgpt.bench.shapes import REPEATS, SHAPES

    results = []
    threads = kernels.get_num_threads()
    for what in chosen:
        one = BENCHES[what]
        shape = config or one.config
        settings = Settings(
            shape,
            tuple(name for name in peer if name in one.peers),
            repeats or one.repeats or REPEATS[shape],
            threads,
            tell,
            **more,
        )
        terminal.tell(announced(what, settings))
        for found in one.run(settings):
            results.append({"bench": what, **found.to_dict()})
            if not quiet:
                show(found)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor(),
        "instruction_set": kernels.instruction_set(),
        "threads": threads,
        "shapes": {
            name: vars(SHAPES[name])
            for name in dict.fromkeys(one["config"] for one in results)
            if name in SHAPES
        },
        "results": results,
    }


def announced(what: str, settings: Settings) -> str:
    """What is about to be measured; of a grid of shapes also how long that takes at least."""
    from cgpt.bench.measure import LEAST_SECONDS

    one = BENCHES[what]
    if not one.shapes:
        return t(
            "bench_running", what=f"{what} {settings.config}" if "config" in one.options else what
        )
    rounds = settings.repeats * (1 + len(settings.peers))
    return t(
        "bench_running_grid",
        what=what,
        n=one.shapes,
        repeats=settings.repeats,
        time=duration(one.shapes * rounds * LEAST_SECONDS),
    )


def tell(side: str, reason: Skip) -> None:
    """A side that cannot take part, on stderr."""
    terminal.tell(t("bench_skipped", side=side, reason=localized(reason)))


def show(found: Measurement) -> None:
    """One measurement as a line; on a narrow screen its figures stand below its name."""
    note = f" ({found.note})" if found.note else ""
    if found.to:
        values = {
            "to": found.to,
            "median": figure(found.median),
            "low": figure(min(found.values)),
            "high": figure(max(found.values)),
        }
        text = t("bench_ratio", **values)
    elif found.unit == "yes":
        text = t("yes" if found.median else "no")
    elif len(found.values) == 1:
        text = f"{figure(found.median)} {found.unit}"
    else:
        text = t(
            "bench_median",
            median=figure(found.median),
            low=figure(min(found.values)),
            high=figure(max(found.values)),
            unit=found.unit,
            n=len(found.values),
        )
    head, rest = f"{found.side:14} {found.name:32} ", f"{text}{note}"
    width = output_width()
    if text_width(head + rest) > width:
        echo(head.rstrip())
        head, rest = "", "\n".join(f"    {line}" for line in wrap(rest, width - 4))
    echo(head + rest)


def figure(value: float) -> str:
    """Three or four figures, never an exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return platform.processor()
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")


def main(what: str) -> int:
    """`cgpt bench WHAT` with the options of this process: for the scripts in benchmarks/."""
    from cgpt.cli import main as run

    return run(["bench", what, *sys.argv[1:]])
