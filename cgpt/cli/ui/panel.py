"""What the live display of a training shows, as lines of (text, style): straight in any width.

Columns and the bar are laid out here: a table and a bar of rich look as good, but take 3 ms instead
of 0.7 to draw, which at five pictures a second is 1.5 % of the training's time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cgpt.cli.ui.layout import cut, text_width
from cgpt.cli.ui.streams import drop_broken_bytes, printable
from cgpt.cli.ui.terminal import plain_number
from cgpt.locale import N_, t
from cgpt.plots.charts import means, sparkline
from cgpt.runtime.memory import human_size

if TYPE_CHECKING:
    from cgpt.training.callbacks import Progress

Line = list[tuple[str, str]]  # pieces of text and their styles
LABEL, VALUE, BAR, REST, NOTICE = "dim", "bold", "cyan", "dim", "yellow"
GAP = 2
SAMPLE_LINES = 2
MOST_LOSSES = 1024


class Losses:
    """The losses of a phase for a curve; beyond 1024 each stands for more and more steps."""

    def __init__(self, values: Sequence[float] = ()) -> None:
        self.values: list[float] = []
        self.stride = 1  # steps that one value stands for
        self._sum, self._count = 0.0, 0
        for value in values:
            self.add(value)

    def add(self, value: float) -> None:
        """Take the loss of one more step."""
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self.stride:
            return
        self.values.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self.values) >= MOST_LOSSES:
            pairs = zip(self.values[::2], self.values[1::2], strict=True)
            self.values = [(one + other) / 2 for one, other in pairs]
            self.stride *= 2


@dataclass
class View:
    """What is shown beside the numbers of a step.

    memory  bytes that the process holds; sample: (step, prompt, text) of the last one, or None
    notice  a last line: how to stop, or that it is stopping; urgent where it is the latter
    """

    losses: Losses = field(default_factory=Losses)
    memory: int = 0
    sample: tuple[int, str, str] | None = None
    notice: str = ""
    urgent: bool = False
    plain: bool = False  # a terminal that cannot show lines and blocks


def number(value: float | None) -> str:
    """A loss, or - where there is none."""
    return "-" if value is None else f"{value:.4f}"


def learning_rate(lr: float) -> str:
    """A learning rate in three digits, without exponent."""
    return plain_number(float(f"{lr:.3g}"))


PHASES = {
    "pretrain": N_("pre-training"),
    "finetune": N_("fine-tuning"),
    "validation": N_("validation"),
    "data": N_("data"),
}


def phase_name(phase: str) -> str:
    """The phase as users call it."""
    return t(PHASES.get(phase, N_("training")))


def panel(p: Progress, view: View, width: int, height: int, left: str) -> list[Line]:
    """The lines of the display, none wider than `width` cells; on a low screen fewer.

    left  the time that is left, as text
    """
    head = [bar(p, width, left, plain=view.plain)]
    rows = grid(fields(p, view.memory), width)
    tail = [[(cut(view.notice, width)[0], NOTICE if view.urgent else LABEL)]] if view.notice else []
    room = height - 1 - len(head) - len(rows) - len(tail)
    curve = [] if view.plain or room < 1 else curve_line(view, width)
    sample = sample_lines(view.sample, width)[: max(room - len(curve), 0)]
    return (head + rows + curve + sample + tail)[: max(height - 1, 1)]


def bar(p: Progress, width: int, left: str, *, plain: bool) -> Line:
    """Phase, bar, percent and time left."""
    share = p.step / p.steps if p.steps else 1.0
    if p.seconds > 0 and p.seconds_left >= 0:
        share = max(share, p.seconds / (p.seconds + p.seconds_left))
    share = min(share, 1.0)
    name, right = phase_name(p.phase), f"{share:>4.0%}  {left}"
    room = width - text_width(name) - text_width(right) - 2
    if room < 5:
        return [(cut(f"{name} {right}", width)[0], VALUE)]
    done = int(share * room)
    full, rest = ("#", "-") if plain else ("━", "─")
    return [
        (name, VALUE),
        (" ", ""),
        (full * done, BAR),
        (rest * (room - done), REST),
        (" " + right, ""),
    ]


def fields(p: Progress, memory: int) -> list[tuple[str, str, int]]:
    """(label, value, cells to keep for the value) in the order of reading."""
    return [
        (t("epoch"), f"{p.epoch}/{p.epochs}", 2 * len(str(p.epochs)) + 1),
        (t("step"), f"{p.step}/{p.steps}", 2 * len(str(p.steps)) + 1),
        (t("loss"), number(p.loss), 7),
        (t("held-out"), number(p.val_loss), 7),
        (t("lr"), learning_rate(p.lr), 8),
        (t("tok/s"), f"{p.tokens_per_second:,.0f}", 7),
        (t("gradient"), number(p.grad_norm), 7),
        (t("memory"), human_size(memory) if memory else "-", 8),
    ]


def grid(cells: Sequence[tuple[str, str, int]], width: int) -> list[Line]:
    """Labels and values in 4, 2 or 1 straight columns, whichever fits."""
    for count in (4, 2, 1):
        labels = [max(text_width(label) for label, _, _ in cells[i::count]) for i in range(count)]
        values = [
            max(max(text_width(value), keep) for _, value, keep in cells[i::count])
            for i in range(count)
        ]
        need = sum(labels) + sum(values) + count + GAP * (count - 1)
        if need <= width or count == 1:
            break
    spare = min(max(width - need, 0) // max(count - 1, 1), 6) if count > 1 else 0
    lines: list[Line] = []
    for start in range(0, len(cells), count):
        line: Line = []
        for i, (label, value, _) in enumerate(cells[start : start + count]):
            line.append((label + " " * (labels[i] - text_width(label) + 1), LABEL))
            last = i == count - 1
            room = width - sum(text_width(text) for text, _ in line) if last else values[i]
            shown = cut(value, max(room, 0))[0]
            pad = 0 if last else values[i] - text_width(shown) + GAP + spare
            line.append((shown + " " * pad, VALUE))
        lines.append(line)
    return lines


def curve_line(view: View, width: int) -> list[Line]:
    """The loss so far, from its first to its last value; bars are of its logarithm."""
    values = view.losses.values
    if len(values) < 2:
        return []
    label, first, last = t("curve"), f"{values[0]:.2f}", f"{values[-1]:.2f}"
    room = width - text_width(label) - len(first) - len(last) - 3
    if room < 4:
        return []
    heights = [math.log(max(value, 1e-9)) for value in means(values, room)]
    return [
        [(f"{label} ", LABEL), (f"{first} ", ""), (sparkline(heights, room), BAR), (f" {last}", "")]
    ]


def one_row(text: str) -> str:
    """A sample on one row: line ends as spaces."""
    return " ".join(drop_broken_bytes(text).split())


def sample_lines(sample: tuple[int, str, str] | None, width: int) -> list[Line]:
    """The last sample in at most two lines."""
    if sample is None:
        return []
    step, prompt, text = sample
    label = t("sample [step {step}]", step=step)
    shown = " ".join(printable(part) for part in (one_row(prompt), one_row(text)) if part)
    lines: list[str] = []
    rest = f"{label} {shown}"
    while rest and len(lines) < SAMPLE_LINES:
        line, rest = cut(rest, width)
        lines.append(line)
        rest = rest.lstrip()
    if rest:
        lines[-1] = cut(lines[-1], width - 1)[0] + "…"
    first = cut(lines[0], text_width(label))
    return [[(first[0], LABEL), (first[1], "")], *([(line, "")] for line in lines[1:])]
