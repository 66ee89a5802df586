"""`--log FILE.jsonl`: what is run, then one JSON object a step; written here and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.errors import DataError, as_reason
from cgpt.fileio.text import JsonLines
from cgpt.training.callbacks import Progress

if TYPE_CHECKING:
    from cgpt.training.run import TrainingRun


LAST_SHARE = 20  # the loss at the end is the mean of the last twentieth of the steps


class StepLog:
    """A log that is being written. The first object has version, seed, run_id and config.

    append  continue the file: the head then follows the steps of the run before it
    Raises DataError (code "write") where the file cannot be written, here or later.
    """

    def __init__(self, path: str, head: dict[str, Any], *, append: bool = False) -> None:
        with suppress(OSError):  # the file itself says what is wrong
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.lines = JsonLines(
            path,
            lambda reason: DataError(
                "{path}: the log cannot be written ({reason}); free some space or name "
                "another file",
                code="write",
                path=path,
                reason=reason,
            ),
            append=append,
        )
        self.lines.write(head)

    def __call__(self, progress: Progress, **more: Any) -> None:
        """One step, with what else there is to say about it."""
        self.lines.write({**asdict(progress), **more})

    def close(self) -> None:
        """Close the file."""
        self.lines.close()


def is_log(path: str) -> bool:
    """Whether a file is empty or begins as a log does."""
    try:
        with open(path, "rb") as file:
            line = file.readline(1 << 20)
        head = json.loads(line) if line.strip() else {"version": ""}
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and "version" in head and "format" not in head


@dataclass
class Curve:
    """The losses of one phase of a run.

    steps, losses    of the steps that were logged; held_out: (step, loss) where it was measured
    """

    phase: str
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    def cut(self, step: int) -> None:
        """Forget this step and those after it: the run went on again from before it."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.losses.pop()
        while self.held_out and self.held_out[-1][0] >= step:
            self.held_out.pop()

    def add(self, step: int, loss: float, held_out: float | None) -> None:
        """Take a step; a held-out loss is a new one where it differs from the last."""
        if self.steps and step <= self.steps[-1]:
            self.cut(step)
        self.steps.append(step)
        self.losses.append(loss)
        if held_out is not None and (not self.held_out or self.held_out[-1][1] != held_out):
            self.held_out.append((step, held_out))


@dataclass
class Run:
    """A run as read from a log or a model file: its name and its phases in order."""

    name: str
    curves: list[Curve] = field(default_factory=list)

    def curve(self, phase: str) -> Curve:
        """The curve of a phase, made where there is none."""
        for one in self.curves:
            if one.phase == phase:
                return one
        self.curves.append(Curve(phase))
        return self.curves[-1]


def read_log(path: str) -> Run:
    """The curves of a log; a last line that was cut off (the run continues) is left out.

    Raises DataError naming the line that is no step of a log, or where there is no step.
    """
    run = Run(Path(path).stem)
    try:
        *whole, last = Path(path).read_bytes().split(b"\n")
        lines = [line.decode("utf-8") for line in whole] + [last.decode("utf-8", "replace")]
    except (OSError, UnicodeDecodeError) as error:
        reason = as_reason(error)
        raise DataError(
            "{path}: the log cannot be read ({reason}); check the path", path=path, reason=reason
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                _take(run, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines) > 1 and isinstance(error, json.JSONDecodeError):
                    break
                raise DataError(
                    "{path} line {number}: not a step of a log, expected an object with "
                    "phase, step and loss; give a file that --log wrote",
                    path=path,
                    number=number,
                ) from error
    if not run.curves:
        raise DataError(
            "{path}: no step in the log; wait for the first one or give another file", path=path
        )
    return run


def _take(run: Run, values: Any) -> None:
    """One object of a log: a head says nothing about steps. Raises where it is neither."""
    if not isinstance(values, dict):
        raise TypeError
    if "version" in values and "step" not in values:
        return
    loss, held_out = values["loss"], values.get("val_loss")
    if loss is None:  # was not finite
        return
    run.curve(str(values["phase"])).add(
        int(values["step"]), float(loss), None if held_out is None else float(held_out)
    )


def read_run(path: str) -> Run:
    """The curves of a log, or of the history that a model file carries.

    Raises DataError where there is none, CheckpointError for a damaged model.
    """
    from cgpt.checkpoint.info import describe, is_named_model

    if not is_named_model(path):
        return read_log(path)
    run = Run(Path(path).stem)
    for phase, step, loss, held_out in describe(path)["training_state"]["history"]:
        run.curve(phase).add(step, loss, held_out)
    if not run.curves:
        raise DataError(
            "{path}: the model has no history of losses; it was not trained yet", path=path
        )
    return run


def last_loss(curve: Curve) -> float:
    """The loss at the end: the mean over the last twentieth of the steps."""
    part = curve.losses[-max(len(curve.losses) // LAST_SHARE, 1) :]
    return sum(part) / len(part)


def log_head(run: TrainingRun) -> dict[str, Any]:
    """The first line of a log: what is run, and with what."""
    from cgpt.training.run import made_with

    made = made_with()
    return {
        "version": made.pop("cgpt"),
        "made_with": made,
        "run_id": run.llm.training_state.run_id,
        "seed": run.config.seed,
        "config": run.config.to_dict(),
        "model": run.llm.gpt.config.to_dict(),
        "data_fingerprint": run.llm.training_state.data_fingerprint,
    }


def name_apart(runs: Sequence[Run], paths: Sequence[str]) -> None:
    """Runs of the same name are called by their paths."""
    names = [run.name for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if names.count(run.name) > 1:
            run.name = path
