"""Live progress of training: a few lines of a terminal by rich, else a plain line now and then.

`panel` lays out what each line and column shows, `ProgressDisplay` says when and where. A table
and a bar of rich look as good as these, but take 3 ms instead of 0.7 to draw, which at five
pictures a second is 1.5 % of the training's time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

from cgpt.cli.ui.keyboard import in_foreground, terminal_mode
from cgpt.cli.ui.layout import cut, rows_of, text_width
from cgpt.cli.ui.streams import drop_broken_bytes, echo, printable
from cgpt.cli.ui.terminal import plain_number
from cgpt.locale import N_, t
from cgpt.plots.charts import means, sparkline
from cgpt.runtime.memory import human_size, resident

if TYPE_CHECKING:
    from cgpt.cli.ui.signals import StopRequest
    from cgpt.training.callbacks import FitResult, Progress

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


PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.2  # drawing takes about a millisecond
NARROW = 60  # cells; below it fields stand closer together
ENDINGS = {
    "early": N_(
        "{phase} stopped early (held-out loss no longer falls): {steps} steps, loss {loss}, {time}"
    ),
    "budget": N_("{phase} reached its budget: {steps} steps, loss {loss}, {time}"),
    "interrupted": N_("{phase} interrupted: {steps} steps, loss {loss}, {time}"),
}


def duration(seconds: float | None) -> str:
    """75 s as 01:15, an hour and more as 1:02:03."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def progress_line(p: Progress, width: int | None = None, memory: int = 0) -> str:
    """All of a step's numbers; on a narrow screen the least needed go first.

    width   cells at the most, None for a line that may be as long as it is
    memory  bytes that the process holds, 0 for unknown
    """
    fields = [  # (how soon it goes where the line is too long, text)
        (0, phase_name(p.phase)),
        (4, t("epoch {now}/{all}", now=p.epoch, all=p.epochs)),
        (1, t("step {now}/{all}", now=p.step, all=p.steps)),
        (0, t("loss {loss}", loss=number(p.loss))),
        (5, t("held-out {loss}", loss=number(p.val_loss)) if p.val_loss is not None else ""),
        (6, t("lr {lr}", lr=learning_rate(p.lr))),
        (7, t("gradient {norm}", norm=number(p.grad_norm))),
        (3, t("{speed} tok/s", speed=f"{p.tokens_per_second:,.0f}")),
        (8, human_size(memory) if memory else ""),
        (2, t("{time} left", time=duration(p.seconds_left))),
    ]
    fields = [field for field in fields if field[1]]
    while True:
        gap = " " if width is not None and width < NARROW else "  "
        line = gap.join(text for _, text in fields)
        if width is None or text_width(line) <= width:
            return line
        worst = max(fields)
        if worst[0] == 0:
            return cut(line, width)[0]
        fields.remove(worst)


def result_line(phase: str, result: FitResult) -> str:
    """How a phase ended."""
    return t(
        ENDINGS.get(result.stopped, N_("{phase} done: {steps} steps, loss {loss}, {time}")),
        phase=phase_name(phase),
        steps=result.steps,
        loss=number(result.loss),
        time=duration(result.seconds),
    )


class ProgressDisplay:
    """Call it with each Progress. A context manager: the live lines are closed at the end.

    stop    what Ctrl-C asks; its notice then stands in the last line
    losses  of earlier steps of the phase, where it is resumed
    """

    def __init__(
        self, stream: TextIO, stop: StopRequest | None = None, losses: Sequence[float] = ()
    ) -> None:
        self.stream = stream
        self.stop = stop
        self.view = View(Losses(losses))
        self.last = -math.inf
        self.shown: Progress | None = None
        self.pending: Progress | None = None
        self.live: Any = None
        self.drawn: list[str] = []  # the lines on the screen, and how wide it was then
        self.drawn_width = 0
        self._keys = ExitStack()
        if stream.isatty() and in_foreground(stream):
            self.live = self._start_live()

    def _start_live(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=self.stream, highlight=False, markup=False, emoji=False)
        if self.console.is_dumb_terminal:
            return None
        self.view.plain = not self.console.encoding.startswith("utf")
        return Live(
            console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        self.pending = progress
        self.view.losses.add(progress.loss)
        wait = LIVE_SECONDS if self.live else PLAIN_SECONDS
        if progress.step > 1 and now - self.last < wait:
            return
        self.last = now
        self._show(progress)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """What the model writes after this step."""
        if self.live:
            self.view.sample = (step, prompt, text)
            self.last = -math.inf
        else:
            shown = " ".join(part for part in (one_row(prompt), one_row(text)) if part)
            echo(f"{t('sample [step {step}]', step=step)} {shown}", stream=self.stream)

    def _show(self, progress: Progress, *, ended: bool = False) -> None:
        self.shown = progress
        self.view.memory = resident()
        if self.live:
            self._notice(ended)
            self._clear_after_resize()
            self.live.update(self._render(progress), refresh=True)
            if self.stop is not None:  # from now on the cursor is on a line that may be replaced
                self.stop.inline = True
        else:
            width = get_terminal_size().columns - 1 if self.stream.isatty() else None
            echo(progress_line(progress, width, self.view.memory), stream=self.stream)

    def _notice(self, ended: bool) -> None:
        """The last line: how to stop, that it is stopping, or nothing once it has ended."""
        asked = self.stop is not None and self.stop()
        self.view.urgent = asked
        self.view.notice = (
            ""
            if ended or self.stop is None
            else t("Finishing this step; a second Ctrl-C ends at once.")
            if asked
            else t("Ctrl-C finishes this step and stops")
        )

    def _clear_after_resize(self) -> None:
        """A narrower screen has broken the drawn lines into more rows: erase all of them.

        The cursor then stands where rich expects it, at the end of as many rows as it drew.
        """
        width = self.console.width
        if self.drawn and width < self.drawn_width:
            rows = sum(rows_of(line, width) for line in self.drawn)
            up = min(rows, self.console.height) - 1
            self.stream.write(
                "\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J" + "\n" * (len(self.drawn) - 1)
            )
        self.drawn_width = width

    def _render(self, progress: Progress) -> Any:
        from rich.text import Text

        lines = panel(
            progress,
            self.view,
            self.console.width - 1,
            self.console.height,
            t("{time} left", time=duration(progress.seconds_left)),
        )
        self.drawn = ["".join(text for text, _ in line) for line in lines]
        whole = Text(no_wrap=True, overflow="crop")
        for i, line in enumerate(lines):
            whole.append("\n" if i else "")
            for text, style in line:
                whole.append(text, style)
        return whole

    def __enter__(self) -> ProgressDisplay:
        if self.live:
            self._keys.enter_context(terminal_mode(echo=False))
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.stop is not None:
            self.stop.inline = False
        with self._keys:
            if self.pending is not None and (self.live or self.pending is not self.shown):
                self._show(self.pending, ended=True)
            if self.live:
                self.live.stop()
