"""Live progress of training: one line of a terminal by rich, else a plain line now and then."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from cgpt.cli.layout import cut, text_width
from cgpt.cli.messages import t
from cgpt.cli.terminal import plain_number

if TYPE_CHECKING:
    from cgpt.train import FitResult, Progress

PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.1
NARROW = 60         # cells; below it fields stand closer together


def duration(seconds: float | None) -> str:
    """75 s as 01:15, an hour and more as 1:02:03."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def number(value: float | None) -> str:
    """A loss, or - where there is none."""
    return "-" if value is None else f"{value:.4f}"


def phase_name(phase: str) -> str:
    """The phase as users call it."""
    return t(f"phase_{phase if phase in ('pretrain', 'finetune') else 'other'}")


def progress_line(p: Progress, width: int | None = None) -> str:
    """Phase, epoch, step, loss, speed, time left; on a narrow screen the least needed go first.

    width  cells at the most, None for a line that may be as long as it is
    """
    fields = [  # (how soon it goes where the line is too long, text)
        (0, phase_name(p.phase)),
        (4, t("p_epoch", now=p.epoch, all=p.epochs)),
        (1, t("p_step", now=p.step, all=p.steps)),
        (0, t("p_loss", loss=number(p.loss))),
        (5, t("p_val", loss=number(p.val_loss)) if p.val_loss is not None else ""),
        (6, t("p_lr", lr=plain_number(float(f"{p.lr:.3g}")))),
        (3, t("p_speed", speed=f"{p.tokens_per_second:,.0f}")),
        (2, t("p_left", time=duration(p.seconds_left)))]
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
    known = ("early", "budget", "interrupted")
    key = f"phase_{result.stopped if result.stopped in known else 'done'}"
    return t(key, phase=phase_name(phase), steps=result.steps, loss=number(result.loss),
             time=duration(result.seconds))


class ProgressDisplay:
    """Call it with each Progress. A context manager: the live line is closed at the end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.last = -math.inf
        self.shown: Progress | None = None
        self.pending: Progress | None = None
        self.live: Any = None
        if stream.isatty():
            self.live = self._start_live()

    def _start_live(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=self.stream, highlight=False, markup=False, emoji=False)
        if self.console.is_dumb_terminal:
            return None
        return Live(console=self.console, auto_refresh=False, redirect_stdout=False,
                    redirect_stderr=False)

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        self.pending = progress
        wait = LIVE_SECONDS if self.live else PLAIN_SECONDS
        if progress.step > 1 and now - self.last < wait:
            return
        self.last = now
        self._show(progress)

    def _show(self, progress: Progress) -> None:
        self.shown = progress
        if self.live:
            from rich.text import Text

            line = progress_line(progress, self.console.width - 1)
            style = "" if self.console.no_color else "cyan"
            self.live.update(Text(line, style=style, no_wrap=True, overflow="crop"), refresh=True)
        else:
            print(progress_line(progress), file=self.stream, flush=True)

    def __enter__(self) -> ProgressDisplay:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.pending is not None and self.pending is not self.shown:
            self._show(self.pending)
        if self.live:
            self.live.stop()


class StepLog:
    """`--log FILE.jsonl`: first what is run, then one JSON object a step."""

    def __init__(self, path: str, head: dict[str, Any], *, append: bool = False) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.file = target.open("a" if append else "w", encoding="utf-8")
        self._write(head)

    def _write(self, values: dict[str, Any]) -> None:
        self.file.write(json.dumps(without_nan(values), ensure_ascii=False) + "\n")
        self.file.flush()

    def __call__(self, progress: Progress) -> None:
        values = asdict(progress) if is_dataclass(progress) else dict(vars(progress))
        self._write(values)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def without_nan(value: Any) -> Any:
    """The same for JSON: NaN and infinities are null, paths and tuples as JSON has them."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
