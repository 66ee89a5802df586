"""`cgpt plot`: the curves of runs, in the terminal or as a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cgpt.cli import flags
from cgpt.cli.app import Command
from cgpt.cli.output_paths import Target
from cgpt.cli.ui.layout import aligned, cut, output_width, text_width
from cgpt.cli.ui.pictures import lettering, save_picture
from cgpt.cli.ui.progress import number, phase_name
from cgpt.cli.ui.streams import echo, print_json, printable
from cgpt.locale import N_, t
from cgpt.plots.charts import Points, chart
from cgpt.training.step_log import Curve, Run, last_loss, name_apart, read_run

if TYPE_CHECKING:
    from rich.text import Text


CHART_HEIGHT = 14
PALETTE = ("blue", "red", "green", "magenta", "yellow", "cyan")
# Labels of the picture; they stay English where no font has Chinese letters.
FIGURE = {
    "pretrain": N_("pre-training"),
    "finetune": N_("fine-tuning"),
    "other": N_("training"),
    "step": N_("step"),
    "loss": N_("loss (nats/token)"),
    "train": N_("training"),
    "held_out": N_("held-out"),
}


@click.command(
    "plot",
    cls=Command,
    help="In the terminal, or with -o as .png, .svg or .pdf (needs cgpt[plot]).",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@flags.output
@flags.font
@flags.overwrite
@flags.as_json
def plot(
    runs: tuple[str, ...], output: str | None, font: str | None, overwrite: bool, as_json: bool
) -> int:
    if output is not None:
        Target(output, overwrite=overwrite)
    found = [read_run(path) for path in runs]
    name_apart(found, runs)
    if output is not None:
        draw_picture(found, output, font)
    if as_json:
        print_json(
            {
                "runs": [
                    {"name": run.name, "curves": [vars(one) for one in run.curves]} for run in found
                ]
            }
        )
    elif output is None:
        draw_on_terminal(found)
    return 0


def draw_on_terminal(runs: Sequence[Run]) -> None:
    """A chart a phase with all runs in colours; without colours a chart a run."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
    coloured = console.color_system is not None and not console.no_color
    width = output_width(79)
    for phase in dict.fromkeys(curve.phase for run in runs for curve in run.curves):
        found = [
            (printable(run.name), run.curve(phase))
            for run in runs
            if any(curve.phase == phase for curve in run.curves)
        ]
        groups = [found] if coloured or len(found) == 1 else [[one] for one in found]
        for group in groups:
            for row in picture_lines(phase, group, width, coloured=coloured):
                console.print(row)
        for line in summary(found, width, coloured=coloured and len(found) > 1):
            console.print(line)
        echo()


def picture_lines(
    phase: str, group: Sequence[tuple[str, Curve]], width: int, *, coloured: bool
) -> list[Text]:
    """Title and chart of the runs of one chart; a run alone shows its held-out losses too."""
    from rich.text import Text

    series: list[Points] = [list(zip(curve.steps, curve.losses, strict=True)) for _, curve in group]
    title = f"{phase_name(phase)} · {t('loss (nats/token)')}"
    marks: list[tuple[str, str]] = []
    if len(group) == 1:
        name, curve = group[0]
        title += f" · {name}"
        if coloured and curve.held_out:
            series.append(list(curve.held_out))
            marks = [(f"{t('loss')} ", PALETTE[0]), (t("held-out"), PALETTE[1])]
    room = width - sum(text_width(mark) + 1 for mark, _ in marks)
    lines = [Text.assemble(cut(title, room)[0], " " if marks else "", *marks, no_wrap=True)]
    for row in chart(series, width, CHART_HEIGHT):
        text = Text(no_wrap=True, overflow="ignore", end="")
        for piece, owner in row:
            text.append(piece, PALETTE[owner % len(PALETTE)] if owner >= 0 else "")
        text.rstrip()
        lines.append(text)
    return lines


def summary(found: Sequence[tuple[str, Curve]], width: int, *, coloured: bool) -> list[object]:
    """A straight table of the runs: steps, first and last loss, lowest held-out one."""
    from rich.text import Text

    rows = [[t("run"), t("step"), t(N_("first", "column")), t("last"), t("held-out")]]
    for name, curve in found:
        held_out = min((loss for _, loss in curve.held_out), default=None)
        rows.append(
            [
                name,
                f"{curve.steps[-1]}",
                number(curve.losses[0]),
                number(last_loss(curve)),
                number(held_out),
            ]
        )
    lines = [Text(line, no_wrap=True) for line in aligned(rows, width)]
    if coloured:  # one run a line, or where it is narrow one run a block of lines
        heads = len(lines) % len(found) if len(lines) != len(rows) else 1
        step = (len(lines) - heads) // len(found)
        for i, line in enumerate(lines[heads::step]):
            line.stylize(PALETTE[i % len(PALETTE)])
    return list(lines)


def draw_picture(runs: Sequence[Run], output: str, font_file: str | None) -> None:
    """Write the picture and say so, and what could not be written in it."""
    from cgpt.plots.figures import curves_figure

    labels, names, font = lettering(FIGURE, [run.name for run in runs], font_file)
    save_picture(curves_figure(runs, names, labels, font), output, font)
