"""The checkpoints of a training in one folder: which are saved when, and which are kept.

    checkpoint_last.bin                            the last state
    checkpoint_previous.bin                        the one before it
    checkpoint_best_epoch_42_loss_2.1234.bin       one of the best of its phase
    checkpoint_epoch_50.bin                        the end of an epoch

Next to each is a .json that describes it for people (not needed to resume).

Several trainings may save in one folder, one after another or at the same time. The first keeps
the plain names. Where a name belongs to another training that is not finished, eight digits of
the run's identity go after it: checkpoint_last_1f3a5c70.bin, checkpoint_previous_1f3a5c70.bin.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint import binary_writer, latest
from cgpt.checkpoint.binary_writer import Packed, Storage
from cgpt.checkpoint.latest import CheckpointSummary
from cgpt.config import STRATEGIES
from cgpt.errors import CheckpointError
from cgpt.fileio.atomic import PREFIX, SUFFIX, folder_lock, write_file
from cgpt.fileio.format_v1 import Kind
from cgpt.language_model import LanguageModel, TrainingState
from cgpt.nn.arena import aligned
from cgpt.nn.arrays import Floats
from cgpt.runtime.forking import renew_after_fork
from cgpt.validation import check_choice, check_float, check_int, expect, expect_function, path_text

_BEST, _EPOCH = "checkpoint_best_epoch_", "checkpoint_epoch_"
_LAST, _PREVIOUS = "checkpoint_last", "checkpoint_previous"
_TAG = 8  # digits of a run_id in a name


class CheckpointManager:
    """Saves a training's state in `folder` while it continues, and finds it again.

    What other trainings save there is neither replaced nor removed while it may be needed.

    strategy  "last": checkpoint_last.bin every `every` steps (0: at the end of every epoch); the
              one before it is kept as checkpoint_previous.bin.
              "best": after an evaluation on held-out documents, or where there are none at the end
              of an epoch, when its loss (else the epoch's mean) is among the `keep` lowest of the
              phase.
              "periodic": at the end of an epoch, once `every` more steps are done; the newest
              `keep` of the phase are kept.
              "best+last" and "best+periodic" do both.
              None saves by `minutes` alone.
    keep      how many of the best, and of the periodic ones, are kept; at least 1
    minutes   the last state is also saved whenever this much time has passed since that was done
              (or since the first step), 0 for never
    Raises ConfigError for settings that cannot be.
    """

    def __repr__(self) -> str:
        return (
            f"CheckpointManager({str(self.folder)!r}, strategy={self.strategy!r}, "
            f"keep={self.keep}, every={self.every}, minutes={self.minutes:g})"
        )

    def __init__(
        self,
        folder: str | os.PathLike[str] = "checkpoints",
        strategy: str | None = "last",
        keep: int = 3,
        every: int = 0,
        minutes: float = 0.0,
    ) -> None:
        owner, most = "CheckpointManager", (1 << 63) - 1
        if strategy is not None:
            strategy = check_choice(owner, "strategy", strategy, STRATEGIES)
        self.folder = Path(path_text(owner, folder))
        self.strategy = strategy
        self.keep = check_int(owner, "keep", keep, 1, most)
        self.every = check_int(owner, "every", every, 0, most)
        self.minutes = check_float(owner, "minutes", minutes, 0.0)
        self._last_at: float | None = None  # when the last state was saved
        self._kinds = strategy.split("+") if strategy else []
        self._epoch_step = 0  # of the last end of an epoch that was seen
        self._writer = BackgroundWriter()
        self._run: CheckpointSummary | None = None  # as it was saved last
        self._run_id: str | None = None  # of the training that it is called for
        self._tag = ""  # after the names of its last state

    def save_last(self, llm: LanguageModel, learning_rate: float | None = None) -> Path:
        """Save everything as checkpoint_last.bin, now; gives the path, which may have the tag.

        Raises CheckpointError (code "write"), ConfigError for an argument of another type.
        """
        _check(llm, learning_rate)
        run = self._of(llm)
        path = self.folder / Names(self.folder, run, self._tag).of(_LAST)
        packed = binary_writer.pack(llm, path, binary_writer.arrays_of(llm), Storage())
        return self._write(packed, [_LAST], summary(llm, learning_rate), run)[0]

    def holds_last(self, llm: LanguageModel) -> bool:
        """Whether the folder has a last state of the training that this is a later state of."""
        _check(llm)
        run = self._of(llm)
        return any(
            found.path.name.startswith(_LAST) and run.descends_from(found)
            for found in latest.checkpoints_in(self.folder, lambda error: None)
        )

    def step_done(self, llm: LanguageModel, learning_rate: float | None = None) -> list[Path]:
        """Call after each step: saves what is due, in a thread, from a copy of `llm`.

        Returns the paths that are being written. Waits where the checkpoint before is still being
        written. Raises CheckpointError for the checkpoint before where that failed.
        """
        _check(llm, learning_rate)
        stems = self._due(llm)
        self._run_id = llm.training_state.run_id or None
        if not stems:
            return []
        run = self._of(llm)
        names = Names(self.folder, run, self._tag)
        paths = [
            self.folder
            / (f"{_LAST}{self._tag}.bin" if stem == _LAST and self._run else names.of(stem))
            for stem in stems
        ]
        about = summary(llm, learning_rate)
        self._writer.submit(llm, paths[0], lambda packed: self._write(packed, stems, about, run))
        return paths

    def wait(self) -> None:
        """Return when all is written. Raises CheckpointError for what could not be."""
        self._writer.wait()

    def close(self) -> None:
        """Wait, and free the copies. Raises as `wait` does."""
        self._writer.close()

    def latest(
        self, warn: Callable[[CheckpointError], object] | None = None, run_id: str | None = None
    ) -> Path | None:
        """The checkpoint to resume from, every byte of it checked, or None where there is none.

        That of the training that this manager saves, or of the one with this `run_id`
        (TrainingState.run_id). A manager of none yet takes the only training of the folder that is
        not finished, or where all are, the only one.

        Of that training it is the furthest checkpoint, by what the files hold and not by their
        times, or the next that is whole. `warn` is called with the error of each that would have
        come first and cannot be used. Raises CheckpointError (code "several") where several
        trainings could be meant.
        """
        expect_function("CheckpointManager.latest", "warn", warn, optional=True)
        expect("CheckpointManager.latest", run_id, (str, type(None)), "a run_id")
        warn = warn or (lambda error: None)
        run_id = run_id or (self._run_id if self._run is None else None)
        if run_id is None and self._run is None:
            found = latest.unfinished(self.folder, warn)
            if len(found) > 1:
                raise latest.several(self.folder, found)
            return found[0].path if found else None
        found, run = latest.checkpoints_in(self.folder, warn), self._run
        if run_id is not None or run is None:
            mine = [one for one in found if one.state.run_id == run_id]
        else:  # what it has saved itself comes before what went on from that
            mine = [one for one in found if run.descends_from(one)]
            mine += [one for one in found if one not in mine and one.descends_from(run)]
        whole = latest.first_whole(mine, warn)
        return None if whole is None else whole.path

    def _of(self, llm: LanguageModel) -> CheckpointSummary:
        """What a checkpoint of `llm` will say of its training: a copy, which is compared later."""
        state = llm.training_state
        if not state.run_id and self._run is not None:  # not trained by Trainer.fit
            state.run_id = self._run.state.run_id
        state.identify()
        return latest.checkpoint_of(llm, self.folder / f"{_LAST}.bin")

    def _due(self, llm: LanguageModel) -> list[str]:
        """Names of what is to be saved after this step, without what tells trainings apart."""
        state = llm.training_state
        ended = state.step > 0 and state.batch == 0
        stems = []
        # Where documents are held out an evaluation may come within an epoch, or not at its end.
        loss = (
            held_out_loss(state)
            if state.best_loss is not None or not ended
            else (epoch_loss(state))
        )
        if "best" in self._kinds and loss is not None:
            best = self._of_phase(_BEST, self._of(llm))
            if len(best) < self.keep or loss < _loss(best[-1]):
                stems.append(f"{_BEST}{state.epoch}_loss_{loss:.4f}")
        if (
            "periodic" in self._kinds
            and ended
            and (not self.every or state.step // self.every > self._epoch_step // self.every)
        ):
            stems.append(f"{_EPOCH}{state.epoch}")
        if self._late() or (
            "last" in self._kinds and (state.step % self.every == 0 if self.every else ended)
        ):
            stems.append(_LAST)
            self._last_at = time.monotonic()
        if ended:
            self._epoch_step = state.step
        return stems

    def _late(self) -> bool:
        """Whether the last state was saved `minutes` ago or before."""
        now = time.monotonic()
        if self._last_at is None:
            self._last_at = now
        return bool(self.minutes) and now - self._last_at >= 60 * self.minutes

    def _write(
        self, packed: Packed, stems: list[str], about: dict[str, Any], run: CheckpointSummary
    ) -> list[Path]:
        """Write one file under several names and its descriptions, then remove what is too many."""
        with suppress(OSError):  # the write itself says what is wrong
            self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder):  # another training may have come first meanwhile
            names = Names(self.folder, run, self._tag)
            paths = [self.folder / names.of(stem) for stem in stems]
            if _LAST in stems:
                self._tag = names.tag
                names.keep_last(paths[stems.index(_LAST)])
            packed.write(paths[0])
            self._run = run
            for path in paths[1:]:
                if not _link(paths[0], path):
                    packed.write(path)
            for path in paths:
                _describe(path, about)
            for prefix in (_BEST, _EPOCH):
                if any(stem.startswith(prefix) for stem in stems):
                    self._prune(prefix, run)
        return paths

    def _of_phase(self, prefix: str, run: CheckpointSummary) -> list[CheckpointSummary]:
        """The run's best (lowest loss first) or periodic (newest first) checkpoints of a phase."""
        found = []
        for path in self.folder.glob(f"{prefix}*.bin"):
            with suppress(CheckpointError):
                one = latest.read(path)
                if one.is_of(run) and run.descends_from(one):
                    found.append(one)
        if prefix == _BEST:
            return sorted(found, key=lambda one: (_loss(one), one.reached))
        return sorted(found, key=lambda one: one.reached, reverse=True)

    def _prune(self, prefix: str, run: CheckpointSummary) -> None:
        """Remove the checkpoints of the phase beyond `keep`, once the new one is safe."""
        for one in self._of_phase(prefix, run)[self.keep :]:
            _remove(one.path)


class BackgroundWriter:
    """One thread that writes snapshots, one at a time.

    The copies are kept and used again: they take as much memory as the arrays themselves.
    """

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Nothing is being written: the thread of a parent process is not in its child."""
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[object] | None = None
        self._copies: dict[Kind, Floats] = {}

    def submit(
        self, llm: LanguageModel, path: str | os.PathLike[str], write: Callable[[Packed], object]
    ) -> None:
        """Copy `llm` as it is now and let the thread call `write` with the file made of it.

        Waits for the snapshot before it, whose error is raised here; `path` is what errors name.
        """
        self.wait()
        packed = binary_writer.pack(
            llm,
            path,
            [(kind, self._copy(kind, array)) for kind, array in binary_writer.arrays_of(llm)],
            Storage(),
            snapshot=True,
        )
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "cgpt-checkpoint")
        self._running = self._pool.submit(write, packed)

    def wait(self) -> None:
        """Return when nothing is being written. Raises what the last write failed with."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Wait and end the thread. Raises as `wait` does."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None
            self._copies.clear()

    def _copy(self, kind: Kind, array: Floats) -> Floats:
        if kind not in self._copies or self._copies[kind].size != array.size:
            self._copies[kind] = aligned(array.size)
        np.copyto(self._copies[kind], array)
        return self._copies[kind]


class Names:
    """What the files of a folder may be called, as it is now; each is read at most once.

    run  the training that saves;  tag  of its last state, "" while that is not known
    """

    def __init__(self, folder: Path, run: CheckpointSummary, tag: str = "") -> None:
        self.folder = folder
        self.run = run
        self.tag = tag
        self._found: dict[str, CheckpointSummary | None] = {}

    def of(self, stem: str) -> str:
        """The first of the names of this stem that the training may write to."""
        state = self.run.state
        short = state.run_id[:_TAG]
        tags = ["", f"_{short}"]
        own = self.tag or f"_{short}"
        if stem != _LAST:
            plain = self._read(f"{stem}.bin")
            other_phase = plain is not None and self.run.descends_from(plain)
            tags[1:1] = [f"_{state.phase}"] * other_phase
            tags.append(f"_{state.phase}_{short}")
        elif self.tag or (self.folder / f"{stem}{own}.bin").exists():
            tags.insert(0, own)
        numbered = (f"_{short}_{number}" for number in range(2, 1 << 30))
        may_take = self._may_take_last if stem == _LAST else self._may_take
        tag = next(tag for tag in chain(tags, numbered) if may_take(f"{stem}{tag}.bin"))
        if stem == _LAST:
            self.tag = tag
        return f"{stem}{tag}.bin"

    def keep_last(self, last: Path) -> None:
        """Give the present last checkpoint its second name; a failure costs only that.

        Where both names are of a finished training, that of the second goes.
        """
        second = self.folder / _second(last.name)
        found, before = self._read(last.name), self._read(second.name)
        if found is not None and self.run.descends_from(found):
            side = last.with_suffix(".json")
            if _link(last, second) and side.exists():
                _link(side, second.with_suffix(".json"))
        elif before is not None and not self.run.descends_from(before):
            _remove(second)

    def _may_take(self, name: str) -> bool:
        """Whether no other training, and no other phase of this one, has this name."""
        found = self._read(name)
        return found is None or (found.is_of(self.run) and self.run.descends_from(found))

    def _may_take_last(self, name: str) -> bool:
        """Whether the last state and the one before it may have this name and its second.

        Not where either is of another training, unless that is finished and its model saved.
        """
        run, last, before = self.run, self._read(name), self._read(_second(name))
        if (
            last is not None
            and not run.descends_from(last)
            and not last.is_kept_elsewhere()
            and (last.state.run_id != run.state.run_id or latest.is_whole(last.path))
        ):
            return False
        return (
            before is None
            or run.descends_from(before)
            or before.is_kept_elsewhere()
            or (last is not None and last.is_kept_elsewhere() and last.descends_from(before))
        )

    def _read(self, name: str) -> CheckpointSummary | None:
        """What has this name; None for nothing, and for what is of no use to anybody.

        What cannot be read by this version stands for a training of its own.
        """
        if name not in self._found:
            path = self.folder / name
            try:
                self._found[name] = latest.read(path)
            except CheckpointError as error:
                useless = error.code in ("missing", "damaged")
                self._found[name] = (
                    None
                    if useless
                    else CheckpointSummary(path, {}, TrainingState(run_id="unknown"))
                )
        return self._found[name]


def held_out_loss(state: TrainingState) -> float | None:
    """Held-out loss of the evaluation after this step, None where there was none."""
    if (
        state.history
        and state.history[-1][:2] == [state.phase, state.step]
        and state.history[-1][3] is not None
    ):
        return float(state.history[-1][3])
    return None


def _check(llm: object, learning_rate: float | None = None) -> None:
    """Raises ConfigError for what is no LanguageModel, or a learning rate that cannot be."""
    expect("CheckpointManager", llm, LanguageModel, "an LLM")
    if learning_rate is not None:
        check_float("CheckpointManager", "learning_rate", learning_rate, 0.0)


def epoch_loss(state: TrainingState) -> float | None:
    """Held-out loss of the evaluation after this step, else the mean loss of the epoch."""
    found = held_out_loss(state)
    if found is None and state.loss_tokens:
        return state.loss_sum / state.loss_tokens
    return found


def _loss(found: CheckpointSummary) -> float:
    loss = epoch_loss(found.state)
    return float("inf") if loss is None else loss


def summary(llm: LanguageModel, learning_rate: float | None) -> dict[str, Any]:
    """The content of the .json next to a checkpoint."""
    state = llm.training_state
    mean = state.loss_sum / state.loss_tokens if state.loss_tokens else None
    held_out = next(
        (
            entry[3]
            for entry in reversed(state.history)
            if entry[0] == state.phase and entry[3] is not None
        ),
        None,
    )
    return {
        "phase": state.phase,
        "epoch": state.epoch,
        "step": state.step,
        "total_steps": state.total_steps,
        "tokens": state.tokens,
        "loss": mean,
        "held_out_loss": held_out,
        "best_held_out_loss": state.best_loss,
        "learning_rate": learning_rate,
        "seconds": round(state.seconds, 3),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run_id": state.run_id,
        "preset": state.run.get("preset"),
        "config": llm.config.to_dict(),
        "parameters": llm.n_parameters,
        "data_fingerprint": state.data_fingerprint,
    }


def _second(name: str) -> str:
    """The name that the last state has once there is a newer one."""
    return _PREVIOUS + name.removeprefix(_LAST)


def _remove(path: Path) -> None:
    """Remove a checkpoint and its description; failures do not matter."""
    with suppress(OSError):
        path.unlink()
        path.with_suffix(".json").unlink()


def _describe(path: Path, about: dict[str, Any]) -> None:
    """Write the .json next to a checkpoint; a failure costs only that."""
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
    with suppress(OSError):  # where both names were one file, rename does nothing
        temporary.unlink()
    return True
