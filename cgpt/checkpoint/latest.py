"""Which checkpoint of a folder to go on from: found by what the files hold, not by their time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgpt.checkpoint import info
from cgpt.checkpoint.reader import BinaryFile
from cgpt.errors import CheckpointError
from cgpt.llm import PHASES, TrainingState

LAST = "checkpoint_last.bin"
PREVIOUS = "checkpoint_previous.bin"
PATTERN = "checkpoint_*.bin"            # files of a CheckpointManager

Warn = Callable[[CheckpointError], object]


@dataclass(frozen=True)
class Found:
    """A checkpoint whose header and training state could be read; its payloads may be damaged."""

    path: Path
    config: dict[str, Any]
    state: TrainingState

    @property
    def progress(self) -> tuple[int, int, int]:
        """Grows while a training goes on."""
        state = self.state
        phase = PHASES.index(state.phase) if state.phase in PHASES else -1
        return len(state.done), phase, state.step

    def continues(self, other: Found) -> bool:
        """Whether this is `other`, or what the same training came to after it."""
        earlier = other.state.history
        return (self.config == other.config and self.progress >= other.progress
                and self.state.history[:len(earlier)] == earlier)

    def is_of(self, config: dict[str, Any], state: TrainingState) -> bool:
        """Whether it is of this phase of this model on these documents."""
        return (self.config == config and self.state.phase == state.phase
                and self.state.documents == state.documents)


def read(path: Path) -> Found:
    """Configuration and training state of a checkpoint. Raises CheckpointError."""
    with BinaryFile(path) as file:
        config, state = info.read_progress(file)
        return Found(path, config.to_dict(), state)


def latest(folder: Path, warn: Warn) -> Path | None:
    """See `CheckpointManager.latest`."""
    found: dict[str, Found] = {}
    for path in sorted(folder.glob(PATTERN)):
        try:
            found[path.name] = read(path)
        except CheckpointError as error:
            warn(error)
    for path in info.models_in(folder):
        if path.name not in found and info.is_binary(path):
            found[path.name] = read(path)
    ranked = sorted(found.values(), key=lambda one: (one.progress, one.path.name == LAST,
                                                     one.path.name), reverse=True)
    order: list[Found] = []
    for name in (LAST, PREVIOUS):
        if name in found:
            order += [one for one in ranked if one.continues(found[name])]
    for path in dict.fromkeys(one.path for one in [*order, *ranked]):
        if _whole(path, warn):
            return path
    return None


def _whole(path: Path, warn: Warn) -> bool:
    try:
        info.describe_binary(path, verify=True)
        return True
    except CheckpointError as error:
        if os.path.lexists(path):       # another process may have replaced or removed it
            warn(error)
        return False
