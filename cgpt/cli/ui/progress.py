"""Live progress of training: a few lines of a terminal by rich, else a plain line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

from cgpt.cli.ui.keyboard import in_foreground, terminal_mode
from cgpt.cli.ui.layout import cut, rows_of, text_width
from cgpt.cli.ui.panel import Losses, View, learning_rate, number, one_row, panel, phase_name
from cgpt.cli.ui.streams import echo
from cgpt.locale import N_, t
from cgpt.runtime.memory import human_size, resident

if TYPE_CHECKING:
    from cgpt.cli.ui.signals import StopRequest
    from cgpt.training.callbacks import FitResult, Progress

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
