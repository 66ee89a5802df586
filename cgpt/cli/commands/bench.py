"""`cgpt bench`: the measurements of bench/, printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cgpt.bench.table import BENCHES, Bench, Settings
from cgpt.cli import flags
from cgpt.cli.app import Command, Number, OneOf, option
from cgpt.cli.errors import localized
from cgpt.cli.ui import terminal
from cgpt.cli.ui.layout import output_width, text_width, wrap
from cgpt.cli.ui.progress import duration
from cgpt.cli.ui.streams import echo, print_json
from cgpt.config import WEIGHT_DTYPES, TrainConfig
from cgpt.errors import ConfigError
from cgpt.locale import t

if TYPE_CHECKING:
    from cgpt.bench.measure import Measurement, Skip


NAMES = tuple(BENCHES)


@click.command(
    "bench",
    cls=Command,
    help="train, decode · kernels: each on its own · save: saving and loading · "
    "small: small steps · sweep: over T and B · startup: from start to first "
    "step, first token · threads: all against one · bits: the same with any "
    "number of threads · share: Python's share of a step · roofline: each kernel "
    "beside what the machine can do.\n"
    "Every side runs in a process of its own, in turn; ratios are made within "
    "one run only.",
)
@click.argument("what", required=False, type=OneOf(NAMES), metavar=f"[{'|'.join(NAMES)}]")
@option(
    "--config",
    "shape",
    type=OneOf(("S", "M", "L", "L64"), fold=True),
    note="S; threads: M",
    help="shape of the model: S, M, L or L64 (L with 64 tokens a sequence)",
)
@flags.form_of_weights(note=WEIGHT_DTYPES[0])
@option(
    "--batch",
    type=Number(1, 4096, whole=True),
    note="1",
    help="sequences that are decoded together",
)
@flags.flag(TrainConfig, "recompute")
@option("--repeats", type=Number(1, 1000, whole=True), help="how often to measure")
@flags.threads
@flags.as_json
def bench(
    what: str | None, shape: str | None, repeats: int | None, as_json: bool, **given: Any
) -> int:
    chosen = [what] if what else [name for name, one in BENCHES.items() if one.whole]
    wanted = {name: value for name, value in {"config": shape, **given}.items() if value}
    refuse_unused(chosen, wanted)
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
                "bench: --{option} is for {takers}, not for {benches}; name one of them or "
                "leave --{left} out",
                option=name,
                takers=takers,
                benches=list(chosen),
                left=name,
            )


def measure(
    chosen: list[str],
    repeats: int | None = None,
    *,
    quiet: bool = True,
    config: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Run the measurements and describe machine and results; prints them unless `quiet`."""
    from cgpt import kernels
    from cgpt.bench.machine import machine_report
    from cgpt.bench.shapes import REPEATS

    results = []
    for what in chosen:
        bench = BENCHES[what]
        shape = config or bench.config
        times = repeats or bench.repeats or REPEATS[shape]
        terminal.notify(announced(what, bench, shape, times))
        settings = Settings(shape, times, kernels.get_num_threads(), tell_skipped, **more)
        for found in bench.run(settings):
            results.append({"bench": what, **found.to_dict()})
            if not quiet:
                show(found)
    return machine_report(results)


def announced(what: str, bench: Bench, shape: str, repeats: int) -> str:
    """What is about to be measured; of a grid of shapes also how long that takes at least."""
    from cgpt.bench.measure import LEAST_SECONDS

    if not bench.shapes:
        return t(
            "measuring {what}...", what=f"{what} {shape}" if "config" in bench.options else what
        )
    time = duration(bench.shapes * repeats * LEAST_SECONDS)
    return t(
        "measuring {what}: {n} shapes, {repeats} times each, which takes at least {time}...",
        what=what,
        n=bench.shapes,
        repeats=repeats,
        time=time,
    )


def tell_skipped(side: str, reason: Skip) -> None:
    """A side that cannot take part, on stderr."""
    terminal.notify(t("leaving {side} out: {reason}", side=side, reason=localized(reason)))


def show(found: Measurement) -> None:
    """One measurement as a line; on a narrow screen its figures stand below its name."""
    low, high = figure(min(found.values)), figure(max(found.values))
    if found.to:
        text = t(
            "{median} times {to}, least {low}, most {high}",
            to=found.to,
            median=figure(found.median),
            low=low,
            high=high,
        )
    elif found.unit == "yes":
        text = t("yes") if found.median else t("no")
    elif len(found.values) == 1:
        text = f"{low} {found.unit}"
    else:
        spread = {"median": figure(found.median), "low": low, "high": high}
        text = t(
            "median {median} {unit}, least {low}, most {high}, {n} times",
            **spread,
            unit=found.unit,
            n=len(found.values),
        )
    head, rest = (
        f"{found.side:14} {found.name:32} ",
        f"{text} ({found.note})" if found.note else text,
    )
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
