"""The checkpoints of a training in one folder: which are saved when, and which are kept.

    checkpoint_last.bin                            the last state
    checkpoint_previous.bin                        the one before it
    checkpoint_best_epoch_42_loss_2.1234.bin       one of the best of its phase
    checkpoint_epoch_50.bin                        the end of an epoch

Each has a .json beside it that says for people what it is (not needed to go on).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cgpt.checkpoint import info, latest, packing
from cgpt.checkpoint.atomic import PREFIX, SUFFIX, folder_lock, write_file
from cgpt.checkpoint.background import BackgroundWriter
from cgpt.checkpoint.latest import LAST, PREVIOUS, Found
from cgpt.checkpoint.packing import Packed
from cgpt.checkpoint.storage import Storage
from cgpt.errors import CheckpointError, ConfigError
from cgpt.llm import LLM, TrainingState

STRATEGIES = ("best", "last", "periodic", "best+last", "best+periodic")
_BEST, _EPOCH = "checkpoint_best_epoch_", "checkpoint_epoch_"


class CheckpointManager:
    """Saves a training's state in `folder` while it goes on, and finds it again.

    strategy  "last": checkpoint_last.bin every `every` steps (0: at the end of every epoch); the
              one before it is kept as checkpoint_previous.bin.
              "best": at the end of an epoch, when its loss (held out where there is a split, else
              the mean of the epoch) is among the `keep` lowest of the phase.
              "periodic": at the end of an epoch, once `every` more steps are done; the newest
              `keep` of the phase are kept.
              "best+last" and "best+periodic" do both.
              None saves by `minutes` alone.
    keep      how many of the best, and of the periodic ones, are kept; at least 1
    minutes   the last state is also saved whenever this much time has passed since that was done
              (or since the first step), 0 for never
    Raises ConfigError for settings that cannot be.
    """

    def __init__(self, folder: str | os.PathLike[str] = "checkpoints",
                 strategy: str | None = "last", keep: int = 3, every: int = 0,
                 minutes: float = 0.0) -> None:
        if strategy is not None and strategy not in STRATEGIES:
            raise ConfigError(f"CheckpointManager: unknown strategy {strategy!r}; "
                              f"known: {', '.join(STRATEGIES)}")
        for name, value, least in (("keep", keep, 1), ("every", every, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"CheckpointManager: {name} must be at least {least}, "
                                  f"found {value!r}")
        self.folder = Path(folder)
        self.strategy = strategy
        self.keep = keep
        self.every = every
        if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not minutes >= 0:
            raise ConfigError(f"CheckpointManager: minutes must be at least 0, found {minutes!r}")
        self.minutes = minutes
        self._last_at: float | None = None      # when the last state was saved
        self._kinds = strategy.split("+") if strategy else []
        self._epoch_step = 0            # of the last end of an epoch that was seen
        self._writer = BackgroundWriter()

    def save_last(self, llm: LLM, learning_rate: float | None = None) -> Path:
        """Save everything as checkpoint_last.bin, now. Raises CheckpointError (code "write")."""
        path = self.folder / LAST
        packed = packing.pack(llm, path, packing.arrays_of(llm), Storage())
        self._write(packed, [LAST], summary(llm, learning_rate), llm.config.to_dict(),
                    TrainingState.from_dict(llm.training_state.to_dict()))
        return path

    def step_done(self, llm: LLM, learning_rate: float | None = None) -> list[Path]:
        """Call after each step: saves what is due, in a thread, from a copy of `llm`.

        Returns the paths that are being written. Waits where the checkpoint before is still being
        written. Raises CheckpointError for the checkpoint before where that failed.
        """
        names = self._due(llm)
        if names:
            about, config = summary(llm, learning_rate), llm.config.to_dict()
            state = TrainingState.from_dict(json.loads(json.dumps(llm.training_state.to_dict())))
            self._writer.submit(llm, self.folder / names[0], lambda packed: self._write(
                packed, names, about, config, state))
        return [self.folder / name for name in names]

    def wait(self) -> None:
        """Return when all is written. Raises CheckpointError for what could not be."""
        self._writer.wait()

    def close(self) -> None:
        """Wait, and free the copies. Raises as `wait` does."""
        self._writer.close()

    def latest(self, warn: Callable[[CheckpointError], object] | None = None) -> Path | None:
        """The checkpoint to go on from, every byte of it checked, or None where there is none.

        The last one, or what the same training came to after it; then the one before it, likewise;
        then the furthest trained model of the folder. All this by what the files hold and not by
        their times. `warn` is called with the error of each that would have come first and cannot
        be used.
        """
        return latest.latest(self.folder, warn or (lambda error: None))

    def _due(self, llm: LLM) -> list[str]:
        """Names of what is to be saved after this step."""
        state = llm.training_state
        ended = state.step > 0 and state.batch == 0
        names = []
        if "best" in self._kinds and ended:
            loss = epoch_loss(state)
            best = self._of_phase(_BEST, llm.config.to_dict(), state)
            if loss is not None and (len(best) < self.keep or loss < _loss(best[-1])):
                names.append(self._free(f"{_BEST}{state.epoch}_loss_{loss:.4f}", llm))
        if "periodic" in self._kinds and ended and (
                not self.every or state.step // self.every > self._epoch_step // self.every):
            names.append(self._free(f"{_EPOCH}{state.epoch}", llm))
        if self._late() or ("last" in self._kinds
                            and (state.step % self.every == 0 if self.every else ended)):
            names.append(LAST)
            self._last_at = time.monotonic()
        if ended:
            self._epoch_step = state.step
        return names

    def _late(self) -> bool:
        """Whether the last state was saved `minutes` ago or before."""
        now = time.monotonic()
        if self._last_at is None:
            self._last_at = now
        return bool(self.minutes) and now - self._last_at >= 60 * self.minutes

    def _free(self, stem: str, llm: LLM) -> str:
        """The name; with the phase where a checkpoint of another phase or model has it."""
        path = self.folder / f"{stem}.bin"
        with suppress(CheckpointError):
            if not latest.read(path).is_of(llm.config.to_dict(), llm.training_state):
                return f"{stem}_{llm.training_state.phase}.bin"
        return path.name

    def _write(self, packed: Packed, names: list[str], about: dict[str, Any],
               config: dict[str, Any], state: TrainingState) -> None:
        """Write one file under several names, then its descriptions, then remove what is over."""
        with suppress(OSError):         # the write itself says what is wrong
            self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder):
            if LAST in names:
                self._keep_last()
            first = packed.write(self.folder / names[0])
            for name in names[1:]:
                if not _link(first, self.folder / name):
                    packed.write(self.folder / name)
            for name in names:
                _describe(self.folder / name, about)
            self._prune(_BEST, names, config, state)
            self._prune(_EPOCH, names, config, state)

    def _keep_last(self) -> None:
        """Give the present last checkpoint its second name; a failure costs only that."""
        last = self.folder / LAST
        if info.is_model(last) and _link(last, self.folder / PREVIOUS):
            side = last.with_suffix(".json")
            if side.exists():
                _link(side, (self.folder / PREVIOUS).with_suffix(".json"))

    def _of_phase(self, prefix: str, config: dict[str, Any], state: TrainingState) -> list[Found]:
        """The best (lowest loss first) or periodic (newest first) checkpoints of a phase."""
        found = []
        for path in self.folder.glob(f"{prefix}*.bin"):
            with suppress(CheckpointError):
                one = latest.read(path)
                if one.is_of(config, state):
                    found.append(one)
        if prefix == _BEST:
            return sorted(found, key=lambda one: (_loss(one), one.progress))
        return sorted(found, key=lambda one: one.progress, reverse=True)

    def _prune(self, prefix: str, names: list[str], config: dict[str, Any],
               state: TrainingState) -> None:
        """Remove the checkpoints of the phase beyond `keep`, once the new one is safe."""
        if any(name.startswith(prefix) for name in names):
            for one in self._of_phase(prefix, config, state)[self.keep:]:
                with suppress(OSError):
                    one.path.unlink()
                    one.path.with_suffix(".json").unlink()


def epoch_loss(state: TrainingState) -> float | None:
    """Held-out loss of the evaluation after this step, else the mean loss of the epoch."""
    if state.history and state.history[-1][:2] == [state.phase, state.step] \
            and state.history[-1][3] is not None:
        return float(state.history[-1][3])
    return state.loss_sum / state.loss_tokens if state.loss_tokens else None


def _loss(found: Found) -> float:
    loss = epoch_loss(found.state)
    return float("inf") if loss is None else loss


def summary(llm: LLM, learning_rate: float | None) -> dict[str, Any]:
    """What the .json beside a checkpoint says."""
    state = llm.training_state
    mean = state.loss_sum / state.loss_tokens if state.loss_tokens else None
    held_out = next((entry[3] for entry in reversed(state.history)
                     if entry[0] == state.phase and entry[3] is not None), None)
    return {"phase": state.phase, "epoch": state.epoch, "step": state.step,
            "total_steps": state.total_steps, "tokens": state.tokens, "loss": mean,
            "held_out_loss": held_out, "best_held_out_loss": state.best_loss,
            "learning_rate": learning_rate, "seconds": round(state.seconds, 3),
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "preset": state.run.get("preset"), "config": llm.config.to_dict(),
            "parameters": llm.n_parameters, "data_fingerprint": state.data_fingerprint}


def _describe(path: Path, about: dict[str, Any]) -> None:
    """Write the .json beside a checkpoint; a failure costs only that."""
    text = json.dumps({"file": path.name, **about}, indent=1).encode() + b"\n"
    with suppress(CheckpointError):
        write_file(path.with_suffix(".json"), len(text), lambda out: out.write(text))


def _link(path: Path, name: Path) -> bool:
    """Give a file a second name, replacing what had it; False where that cannot be done."""
    temporary = name.parent / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    try:
        os.link(path, temporary)
    except OSError:
        return False
    try:
        os.replace(temporary, name)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        return False
    with suppress(OSError):             # where both names were one file, rename does nothing
        temporary.unlink()
    return True
