"""What `cgpt train` and `cgpt resume` share: progress, checkpoints on the way, the final save."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.cli.errors import reason_of, what_failed
from cgpt.cli.output_paths import Own, Target, check_apart, state_of
from cgpt.cli.ranks import Team
from cgpt.cli.ui.progress import ProgressDisplay, result_line
from cgpt.cli.ui.save_dialog import FINAL, ModelSaver, free_name, save_model
from cgpt.cli.ui.signals import StopRequest
from cgpt.cli.ui.streams import echo, print_json
from cgpt.cli.ui.terminal import Terminal, shell_quoted
from cgpt.config import CHECKPOINTS, SAMPLE_EVERY, RunConfig
from cgpt.errors import CgptError, CheckpointError, ConfigError, as_reason
from cgpt.locale import t
from cgpt.runtime.memory import resident
from cgpt.training.samples import Samples, first_question
from cgpt.training.step_log import StepLog, is_log, log_head

if TYPE_CHECKING:
    from cgpt.checkpoint.manager import CheckpointManager
    from cgpt.config import RunConfig
    from cgpt.llm import LLM
    from cgpt.training.callbacks import FitResult, Progress
    from cgpt.training.run import TrainingRun


WRITTEN = {"--out": "out", "--save-pretrained": "save_pretrained", "--log": "log"}


def preparation(values: dict[str, Any]) -> dict[str, Any]:
    """Where a large corpus is tokenised, and what is said meanwhile."""
    from cgpt.cli.ui.data_report import Preparing

    return {"cache": Path(values["cache"]) if values["cache"] else None, "progress": Preparing()}


class TrainingStopped(CgptError):
    """What ended a training, and where it was saved before that was said."""


class Session:
    """One `train` or `resume`: progress on stderr, checkpoints on the way, the final save."""

    def __init__(self, values: dict[str, Any], *, resumed: bool = False) -> None:
        self.values = values
        self.team: Team = values["team"]
        self.resumed = resumed
        self.log: StepLog | None = None
        self.trained = False
        self.resumable = True  # whether what was saved can be gone on with exactly
        self.targets: dict[str, Target] = {}
        from cgpt.checkpoint.manager import CheckpointManager

        strategy = values["strategy"] or ("last" if values["save_every"] else None)
        minutes = values["save_minutes"]
        self.on_the_way = (
            None
            if strategy is None and not minutes
            else CheckpointManager(
                values["checkpoint_dir"], strategy, values["keep"], values["save_every"], minutes
            )
        )
        self.learning_rate: float | None = None

    def say(self, text: str) -> None:
        """Sentences on stderr, wrapped to the screen where there is one, where anybody listens."""
        with suppress(OSError, ValueError):
            Terminal(sys.stderr).note(text)

    def say_command(self, text: str) -> None:
        """The same as it is: a command that is broken in two cannot be copied."""
        with suppress(OSError, ValueError):
            echo(text, stream=sys.stderr)

    def claim(self, config: RunConfig, own: Own | None = None) -> None:
        """See that nothing is replaced which is not the run's own (`own`), and not asked for.

        What the run reads is not replaced at all.
        """
        check_apart(
            {flag: self.values[name] for flag, name in WRITTEN.items()},
            (*config.pretrain, *config.chat, *config.validation, *(path for path, _ in config.mix)),
        )
        overwrite = self.values["overwrite"]
        for name in ("out", "save_pretrained"):
            if target := self.values[name]:
                self.targets[target] = Target(target, overwrite=overwrite, own=own)
        if log := self.values["log"]:
            Target(
                log, overwrite=overwrite and not self.resumed, own=is_log if self.resumed else None
            )

    def go(self, run: TrainingRun) -> int:
        """Train what is left, save, report; the exit code.

        Whatever ends the training after its first step is told once the model is saved.
        """
        check_writable(self.values["out"])
        check_folder(self.values["checkpoint_dir"])
        check_base(run, self.values)
        for name in ("out", "save_pretrained", "log", "sample_every", "sample_prompt"):
            if self.values[name] not in (None, ""):
                run.llm.metadata[name] = self.values[name]
        for line in announced(self.values):
            self.say(line)
        self.team.share(run)
        results: dict[str, FitResult] = {}
        with ExitStack() as stack:
            if self.on_the_way is not None:
                stack.callback(self.finish_writing, close=True)
            stop = stack.enter_context(StopRequest(sys.stderr))
            self.team.rescue = lambda: self.trained and self.interrupted(run, stop)
            try:
                if not self.train(run, stop, results):
                    return self.interrupted(run, stop)
                self.save_result(run)
            except BaseException as error:
                told = self.kept(run, error)
                if told is None:
                    raise
                raise told from error
            say_how_to_merge(run, self.values["out"], self.say, self.say_command)
            self.say_how_to_go_on(run, results)
        if self.values["as_json"]:
            self.report(run, results)
        return 0

    def train(self, run: TrainingRun, stop: StopRequest, results: dict[str, FitResult]) -> bool:
        """The phases that are left, with their results; False where they were interrupted."""
        with ExitStack() as stack:
            if self.values["log"]:
                self.log = StepLog(self.values["log"], log_head(run), append=self.resumed)
                stack.callback(self.log.close)
            for phase in tuple(run.phases):
                result = self.fit(run, phase, stop)
                results[phase] = result
                self.say(result_line(phase, result))
                if self.team.stopped(stop, result):
                    return False
                target = self.values["save_pretrained"]
                if phase == "pretrain" and target:
                    self.save(run.llm, target)
        return True

    def save_result(self, run: TrainingRun) -> None:
        """Save the finished model, and where there is a last checkpoint of the run, there too."""
        self.values["out"] = self.save(run.llm, self.values["out"])
        folder, name = os.path.split(os.path.realpath(self.values["out"]))
        is_last = name.startswith("checkpoint_last") and folder == os.path.realpath(
            self.values["checkpoint_dir"]
        )
        if not is_last and self.manager().holds_last(run.llm):
            self.save_last(run.llm)  # a later resume does not go back behind the end

    def kept(self, run: TrainingRun, error: BaseException) -> TrainingStopped | None:
        """Save what was reached before an error is told; that error with the place.

        None where there is nothing to say beside the error: nothing was trained or could be saved,
        or it is no failure but a second signal, which ends at once. With several processes
        `ranks.end_all` saves.
        """
        from cgpt.runtime.process_group import PeerError

        alone = self.team.ranks is None or (
            isinstance(error, CgptError) and not isinstance(error, PeerError)
        )
        if (
            not (self.trained and alone)
            or not isinstance(error, Exception)
            or isinstance(error, TrainingStopped)
        ):
            return None
        path = self.keep(run.llm)
        if not path:
            return None
        if self.resumable:
            self.say_command(t("to go on: {command}", command=self.resume_command(path)))
        return TrainingStopped(
            t("{reason}; the training is saved in {path}", reason=what_failed(error), path=path),
            code=getattr(error, "code", None),
        )

    def say_how_to_go_on(self, run: TrainingRun, results: dict[str, FitResult]) -> None:
        """The command that goes on behind a budget, where that is exact."""
        phase = run.llm.training_state.phase
        if (
            phase in results
            and results[phase].stopped == "budget"
            and not (run.config.validation or run.config.phase(phase)[1].val_fraction)
        ):
            self.say_command(
                t(
                    "to go on to the last epoch: {command}",
                    command=self.resume_command(self.values["out"]),
                )
            )

    def resume_command(self, path: str) -> str:
        """`cgpt resume` of this file."""
        folder, cache = self.values["checkpoint_dir"], self.values["cache"]
        words = ["cgpt", "resume", shell_quoted(path)]
        for flag, value, default in (
            ("--out", self.values["out"], path),
            ("--cache", cache, ""),
            ("--checkpoint-dir", folder, CHECKPOINTS),
        ):
            words += [flag, shell_quoted(value)] if value and value != default else []
        return " ".join(words)

    def fit(self, run: TrainingRun, phase: str, stop: StopRequest) -> FitResult:
        """One phase with its display, samples, log and checkpoints."""
        state = run.llm.training_state
        prompt = self.values["sample_prompt"] or first_question(run, phase)
        every = self.values["sample_every"]
        samples = Samples(run.llm, phase, SAMPLE_EVERY if every is None else every, prompt)
        earlier = [
            entry[2]
            for entry in state.history
            if state.unfinished and state.phase == phase == entry[0]
        ]
        with ProgressDisplay(sys.stderr, stop, earlier) as display:

            def progress(value: Progress) -> None:
                self.trained = True
                self.learning_rate = value.lr
                more: dict[str, Any] = {}
                if samples.due(value):
                    prompt, text = samples.make(value.step)
                    display.sample(value.step, prompt, text)
                    more["sample"] = {"prompt": prompt, "text": text}
                if self.log is not None:
                    self.log(value, memory=resident(), **more)
                display(value)

            return run.fit_phase(
                phase, on_progress=progress, should_stop=stop, on_checkpoint=self.step_done
            )

    def step_done(self, llm: LLM) -> None:
        """After each step: start to write the checkpoints that are due."""
        if self.on_the_way is None:
            return
        try:
            self.on_the_way.step_done(llm, self.learning_rate)
        except CheckpointError as error:
            self.say(
                t(
                    "❌ A checkpoint could not be saved, training goes on: {reason}",
                    reason=reason_of(error),
                )
            )

    def finish_writing(self, *, close: bool = False) -> None:
        """Wait for the checkpoint that is being written; a training does not fail with it."""
        if self.on_the_way is not None:
            try:
                self.on_the_way.close() if close else self.on_the_way.wait()
            except CheckpointError as error:
                self.say(
                    t(
                        "❌ A checkpoint could not be saved, training goes on: {reason}",
                        reason=reason_of(error),
                    )
                )

    def manager(self) -> CheckpointManager:
        """Of the checkpoint folder, also where nothing is saved there on the way."""
        from cgpt.checkpoint.manager import CheckpointManager

        return self.on_the_way or CheckpointManager(self.values["checkpoint_dir"])

    def save_last(self, llm: LLM) -> Path:
        """Save to the checkpoint folder, from where `cgpt resume` goes on."""
        self.finish_writing()
        return self.manager().save_last(llm, self.learning_rate)

    def interrupted(self, run: TrainingRun, stop: StopRequest) -> int:
        """Keep the state and name the command that goes on."""
        path = self.keep(run.llm)
        if not path:
            raise CheckpointError(
                "{folder}: the training could not be saved there nor elsewhere; free some "
                "space and train again",
                code="write",
                folder=self.values["checkpoint_dir"],
            )
        if self.resumable:
            self.say_command(
                t(
                    "interrupted, the model is saved: {path}\nto go on: {command}",
                    path=path,
                    command=self.resume_command(path),
                )
            )
        return stop.exit_code

    def keep(self, llm: LLM) -> str:
        """Save the state to the checkpoint folder, else wherever there is room; "" for nowhere."""
        folder = self.values["checkpoint_dir"]
        try:
            return self.save_last(llm).as_posix()
        except (CgptError, OSError, MemoryError) as error:
            return self.rescue(llm, folder, error)

    def rescue(self, llm: LLM, path: str, error: BaseException) -> str:
        """Save to a free default name, else to the temporary folder, and say so; "" for nowhere."""
        self.say(t("could not save to {path}: {reason}", path=path, reason=reason_of(error)))
        saver = ModelSaver(Terminal(sys.stderr))
        saver.hold(llm, unsaved=True, default=FINAL)
        saved = saver.rescue()
        self.resumable = saver.resumable
        return saver.saved_paths[-1] if saved else ""

    def save(self, llm: LLM, path: str) -> str:
        """Save and say so; under a free name where another program has taken this one meanwhile.

        Where that fails the model is saved elsewhere. Raises TrainingStopped with that place, or
        the error where there is none.
        """
        from cgpt.fileio.atomic import folder_lock

        self.finish_writing()
        with folder_lock(Path(path).parent):
            if not self.targets[path].is_free(state_of(llm)):
                free = free_name(path)
                self.say(
                    t(
                        "another program has written {path} meanwhile, the model goes to {free}",
                        path=path,
                        free=free,
                    )
                )
                if path == self.values["out"]:
                    llm.metadata["out"] = free
                path = free
            try:
                save_model(llm, path)
            except (CgptError, OSError, MemoryError) as error:
                place = self.rescue(llm, path, error)
                if not place:
                    raise
                raise TrainingStopped(
                    t(
                        "{reason}; the training is saved in {path}",
                        reason=reason_of(error),
                        path=place,
                    ),
                    code=getattr(error, "code", None),
                ) from error
        self.say(t("model saved: {path}", path=path))
        return path

    def report(self, run: TrainingRun, results: dict[str, FitResult]) -> None:
        """One JSON object on stdout."""
        from cgpt.training.data_summary import phase_summary

        values = {
            "out": self.values["out"],
            "seed": run.config.seed,
            "parameters": run.llm.gpt.n_parameters,
            "vocabulary": len(run.llm.tokenizer),
            "data": {name: phase_summary(source) for name, source in run.sources.items()},
            "phases": {phase: result.to_dict() for phase, result in results.items()},
        }
        print_json(values)


def check_writable(path: str) -> None:
    """Say before the training that the model could not be saved after it."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = Path(free_name(f"{target.parent}/.cgpt_probe"))
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            "{path}: cannot be written ({reason}); name another place by --out",
            code="write",
            path=path,
            reason=as_reason(error),
        ) from error
    if target.is_dir():
        raise CheckpointError("{path}: is a folder; name a file by --out", code="write", path=path)


def check_folder(path: str) -> None:
    """Say before the training that there is no such folder to save to on the way."""
    if Path(path).exists() and not Path(path).is_dir():
        raise CheckpointError(
            "{path}: is a file; name a folder by --checkpoint-dir", code="write", path=path
        )


def announced(values: dict[str, Any]) -> Sequence[str]:
    """Sentences that say where the run will write."""
    lines = [
        t(
            "the model goes to {out}, checkpoints on the way to the folder {folder}",
            out=values["out"],
            folder=values["checkpoint_dir"],
        )
    ]
    if values["save_pretrained"]:
        lines.append(t("the pre-trained model goes to {path}", path=values["save_pretrained"]))
    if values["log"]:
        lines.append(t("the log goes to {path}", path=values["log"]))
    return lines


ADAPTER = ("lora_alpha", "lora_layers")


def check_options(config: RunConfig, values: dict[str, Any]) -> None:
    """Raises ConfigError for options that would do nothing beside the others."""
    for name in ADAPTER if not config.finetune_train.lora_rank else ():
        if values.get(name):
            raise ConfigError(
                "--{name} is of a LoRA adapter, which has no rank here; give one by --lora-rank",
                name=name.replace("_", "-"),
            )
    if (
        config.finetune_train.lora_rank
        and values.get("embedding_lr")
        and not (config.pretrain and config.pretrain_train.epochs)
    ):
        raise ConfigError("LoRA leaves the embeddings as they are; leave out --embedding-lr")
    if config.finetune_train.lora_rank and not (config.chat and config.finetune_train.epochs):
        raise ConfigError(
            "LoRA trains on dialogues while fine-tuning, of which there is none; "
            "name files by --chat"
        )


def base_of(run: TrainingRun, save_pretrained: str | None) -> str:
    """The file with the model that the run's adapter needs; "" where its own carries that along."""
    from cgpt.optim.lora import Lora

    if isinstance(run.llm.optimizer, Lora):
        return run.llm.optimizer.base
    if not run.config.finetune_train.lora_rank or "finetune" not in run.phases:
        return ""
    return (save_pretrained or "") if "pretrain" in run.phases else run.llm.base


def check_base(run: TrainingRun, values: dict[str, Any]) -> None:
    """Raises ConfigError where an adapter would be written over the model that it belongs to."""
    base = base_of(run, values["save_pretrained"])
    if not base:
        return
    folder, name = os.path.split(os.path.realpath(base))
    if os.path.realpath(values["out"]) == os.path.join(folder, name):
        raise ConfigError(
            "--out {path} is the model that the adapter needs; name another file",
            path=values["out"],
        )
    if os.path.realpath(values["checkpoint_dir"]) == folder and name.startswith("checkpoint_"):
        raise ConfigError(
            "--checkpoint-dir {path} holds {name}, the model that the adapter needs, and "
            "would replace it; name another folder",
            path=values["checkpoint_dir"],
            name=name,
        )


def say_how_to_merge(
    run: TrainingRun, out: str, say: Callable[[str], object], say_command: Callable[[str], object]
) -> None:
    """What a saved adapter needs, and the command that makes one model of both."""
    from cgpt.checkpoint.loading import is_intact
    from cgpt.optim.lora import Lora

    lora = run.llm.optimizer
    if not isinstance(lora, Lora) or not out.lower().endswith(".bin"):
        return
    if is_intact(lora):
        base = os.path.relpath(lora.base)
        say(t("{path} is a LoRA adapter and needs the model {base}", path=out, base=base))
        command = f"cgpt merge {shell_quoted(base)} {shell_quoted(out)} OUT.bin"
    else:
        say(t("{path} is a LoRA adapter and carries its model", path=out))
        command = f"cgpt export {shell_quoted(out)} OUT.bin --weights-only"
    say_command(t("one model of both: {command}", command=command))
