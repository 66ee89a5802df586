"""Which checkpoint of a folder to resume from: found by what the files hold, not by their time.

A folder may hold the checkpoints of several runs. Whose a file is, its training state says: the
random run_id, and the history of losses, which tells apart what two trainings made of copies of
one file. Files of earlier versions have no run_id and are told apart by their history alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgpt.checkpoint import info
from cgpt.errors import CheckpointError
from cgpt.fileio.binary_file import BinaryFile
from cgpt.language_model import PHASES, LanguageModel, TrainingState

LAST = "checkpoint_last.bin"
PREVIOUS = "checkpoint_previous.bin"
ORIGIN = "origin"  # its name in a file's metadata
PATTERN = "checkpoint_*.bin"  # files of a CheckpointManager

Warn = Callable[[CheckpointError], object]


@dataclass(frozen=True)
class CheckpointSummary:
    """A checkpoint whose header and training state could be read; its payloads may be damaged.

    out   where its run saves the finished model, "" where the file does not say so
    origin  run_id of the training that this one was begun from a copy of, "" for none
    """

    path: Path
    config: dict[str, Any]
    state: TrainingState
    out: str = ""
    origin: str = ""

    @property
    def reached(self) -> tuple[int, int, int, int]:
        """Grows while a training continues, also when it resumes a finished phase."""
        state = self.state
        phase = PHASES.index(state.phase) if state.phase in PHASES else -1
        return len(state.history), phase, state.step, len(state.done)

    def descends_from(self, earlier: CheckpointSummary) -> bool:
        """Whether this is `earlier`, or what the same training came to after it."""
        mine, theirs = self.state, earlier.state
        if (
            self.config != earlier.config
            or self.reached < earlier.reached
            or (mine.run_id and theirs.run_id and mine.run_id != theirs.run_id)
        ):
            return False
        last = len(theirs.history) - 1  # of the last step a held-out loss may be noted later
        return last < 0 or (
            mine.history[:last] == theirs.history[:-1]
            and mine.history[last][:2] == theirs.history[-1][:2]
        )

    def is_of(self, other: CheckpointSummary) -> bool:
        """Whether it is of the same phase of the same model on the same documents."""
        return (
            self.config == other.config
            and self.state.phase == other.state.phase
            and self.state.documents == other.state.documents
        )

    @property
    def finished(self) -> bool:
        """Whether nothing is left of its training, as far as the file says."""
        state = self.state
        if state.run:
            return not state.phases_left()
        return not state.unfinished or 0 < state.total_steps <= state.step

    def is_kept_elsewhere(self) -> bool:
        """Whether the run is finished and its model is in the file that it was to be saved to."""
        if not (self.state.run and self.finished and self.out and os.path.exists(self.path)):
            return False
        with suppress(CheckpointError, OSError):
            return not os.path.samefile(self.out, self.path) and read(Path(self.out)).descends_from(
                self
            )
        return False


def read(path: Path) -> CheckpointSummary:
    """Configuration and training state of a model of either format. Raises CheckpointError."""
    if not info.is_binary(path):
        config, state, metadata = info.read_json_progress(path)
    else:
        with BinaryFile(path) as file:
            config, state, metadata = info.read_progress(file)
    return CheckpointSummary(path, config.to_dict(), state, *_noted(metadata))


def _noted(metadata: dict[str, Any]) -> list[str]:
    """out and origin of a file's metadata."""
    values = [metadata.get(name) for name in ("out", ORIGIN)]
    return [one if isinstance(one, str) else "" for one in values]


def checkpoint_of(llm: LanguageModel, path: Path = Path(LAST)) -> CheckpointSummary:
    """What a checkpoint of `llm` at this path says of its training; a copy."""
    state = llm.training_state
    copy = TrainingState.from_dict(json.loads(json.dumps(state.to_dict())))
    copy.run_id = state.run_id
    return CheckpointSummary(path, llm.config.to_dict(), copy, *_noted(llm.metadata))


def holds_earlier(path: str | os.PathLike[str], found: CheckpointSummary) -> bool:
    """Whether a file holds the same training, at this state or an earlier one.

    The copy that a training was begun from and goes back to (`out`) is such a file too.
    """
    with suppress(CheckpointError, OSError):
        other = read(Path(path))
        if found.state.history and found.descends_from(other):
            return True
        if (
            found.origin
            and found.origin == other.state.run_id
            and os.path.samefile(path, found.out)
        ):
            before = replace(found, state=replace(found.state, run_id=found.origin))
            return before.descends_from(other)
    return False


def checkpoints_in(folder: Path, warn: Warn) -> list[CheckpointSummary]:
    """The binary models of a folder, the furthest trained first; damaged ones go to `warn`."""
    found: dict[str, CheckpointSummary] = {}
    for path in sorted(folder.glob(PATTERN)):
        try:
            found[path.name] = read(path)
        except CheckpointError as error:
            if os.path.lexists(path):  # another process may have removed it
                warn(error)
    for path in info.models_in(folder):
        with suppress(CheckpointError):
            if path.name not in found and info.is_binary(path):
                found[path.name] = read(path)
    return sorted(
        found.values(),
        key=lambda one: (one.reached, one.path.name == LAST, one.path.name),
        reverse=True,
    )


def branches(found: Iterable[CheckpointSummary]) -> list[list[CheckpointSummary]]:
    """Files of the same training together, in the order in which they are given.

    Of files without a run_id only one training is kept: that of the last checkpoint, since earlier
    versions had one per folder.
    """
    groups: list[list[CheckpointSummary]] = []
    for one in found:
        for group in groups:
            if group[0].descends_from(one):
                group.append(one)
                break
        else:
            groups.append([one])
    old = [group for group in groups if not group[0].state.run_id]
    rank = {LAST: 0, PREVIOUS: 1}
    old.sort(key=lambda group: min(rank.get(one.path.name, 2) for one in group))
    return [group for group in groups if group not in old[1:]]


def unfinished(folder: Path, warn: Warn) -> list[CheckpointSummary]:
    """What can be resumed, one checkpoint per training, every byte of it checked.

    Where no training is unfinished, the furthest of each that is there.
    """
    groups = branches(checkpoints_in(folder, warn))
    groups = [group for group in groups if not group[0].finished] or groups
    heads = (first_whole(group, warn) for group in groups)
    return [one for one in heads if one is not None]


def first_whole(found: Iterable[CheckpointSummary], warn: Warn) -> CheckpointSummary | None:
    """The first of which every byte is as written."""
    return next((one for one in found if is_whole(one.path, warn)), None)


def is_whole(path: Path, warn: Warn = lambda error: None) -> bool:
    """Whether every byte is as written; `warn` is called where that is not so."""
    try:
        info.describe_binary(path, verify=True)
        return True
    except CheckpointError as error:
        if os.path.lexists(path):  # another process may have replaced or removed it
            warn(error)
        return False


def several(folder: object, found: Iterable[CheckpointSummary]) -> CheckpointError:
    """That a folder holds more than one training that could be meant."""
    paths = ", ".join(str(one.path) for one in found)
    return CheckpointError(
        "{folder}: several trainings can go on from there ({list}); name the file of one of them",
        code="several",
        folder=folder,
        list=paths,
    )
