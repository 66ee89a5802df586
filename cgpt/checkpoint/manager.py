"""The checkpoints of a training run in one folder: the last one, and the one before it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cgpt.checkpoint import info, packing
from cgpt.checkpoint.atomic import PREFIX, SUFFIX
from cgpt.errors import CheckpointError
from cgpt.llm import LLM, PHASES

LAST = "checkpoint_last.bin"
PREVIOUS = "checkpoint_previous.bin"


class CheckpointManager:
    """Saves the last state of a training in `folder` and finds it again.

    The checkpoint before the last is kept as checkpoint_previous.bin (a second name of the same
    bytes where the file system has hard links), so that a damaged last one costs little.
    """

    def __init__(self, folder: str | os.PathLike[str] = "checkpoints") -> None:
        self.folder = Path(folder)

    def save_last(self, llm: LLM) -> Path:
        """Save everything as checkpoint_last.bin. Raises CheckpointError (code "write")."""
        last = self.folder / LAST
        self._keep(last)
        return packing.save(llm, last)

    def latest(self, warn: Callable[[CheckpointError], object] | None = None) -> Path | None:
        """The checkpoint to go on from, every byte of it checked, or None where there is none.

        The last one, then the one before it, then other models of the folder, the furthest
        trained first (by what they hold, not by their time). `warn` is called with the
        error of each of the first two that exists and cannot be used.
        """
        for name in (LAST, PREVIOUS):
            path = self.folder / name
            if not os.path.lexists(path):
                continue
            try:
                info.describe_binary(path, verify=True)
                return path
            except CheckpointError as error:
                if warn is not None:
                    warn(error)
        return self._furthest()

    def _furthest(self) -> Path | None:
        ranked = []
        for path in info.models_in(self.folder):
            with suppress(CheckpointError):
                state = info.describe_binary(path)["training_state"]
                phase = PHASES.index(state["phase"]) if state["phase"] in PHASES else -1
                ranked.append((len(state["done"]), phase, state["step"], path))
        for *_, path in sorted(ranked, reverse=True):
            with suppress(CheckpointError):
                info.describe_binary(path, verify=True)
                return path
        return None

    def _keep(self, last: Path) -> None:
        """Give the present last checkpoint its second name; a failure costs only that."""
        if not info.is_model(last):
            return
        temporary = self.folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        with suppress(OSError):
            os.link(last, temporary)
            os.replace(temporary, self.folder / PREVIOUS)
