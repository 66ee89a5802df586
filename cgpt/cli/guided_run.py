"""`cgpt` without a command: train or load, save, go on, chat, as the seed document shows it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.cli.errors import reason_of, what_failed
from cgpt.cli.ui.chat_loop import chat_loop
from cgpt.cli.ui.progress import ProgressDisplay, result_line
from cgpt.cli.ui.save_dialog import FINAL, PRETRAINED, ModelSaver
from cgpt.cli.ui.signals import StopRequest
from cgpt.cli.ui.terminal import Terminal, plain_number, shell_quoted
from cgpt.config import CHECKPOINTS, EXPORTS
from cgpt.errors import CgptError, CheckpointError, as_reason
from cgpt.locale import N_, t
from cgpt.runtime.signals import Terminated, termination_raises
from cgpt.training.samples import Samples, first_question

if TYPE_CHECKING:
    from cgpt.corpus.sources import Source
    from cgpt.llm import LLM
    from cgpt.training.callbacks import FitResult, Progress
    from cgpt.training.run import TrainingRun

DEFAULT_EPOCHS, DEFAULT_LR = 50, 0.0001
KINDS = {
    "damaged": N_("damaged file"),
    "version": N_("other format version"),
    "foreign": N_("not a cgpt file"),
}
MARKS = {FINAL: N_(" (final model)"), PRETRAINED: N_(" (pre-training checkpoint)")}


class GuidedRun:
    """One guided run in the current directory.

    options  flags of `cgpt` by name; what is not given the default recipe says
    """

    def __init__(self, terminal: Terminal, **options: Any) -> None:
        self.terminal = terminal
        self.options = options
        self.saver = ModelSaver(terminal)

    def run(self) -> int:
        """Run to the end and give the exit code; an unsaved model is saved on every way out."""
        try:
            with termination_raises():
                self._steps()
            return 0
        except EOFError:
            return 0 if self.saver.rescue() else 1
        except KeyboardInterrupt:
            self.saver.rescue()
            return 130
        except Terminated as stop:
            self.saver.rescue()
            return stop.code
        except BaseException:
            self.saver.rescue()
            raise

    def _steps(self) -> None:
        terminal = self.terminal
        for folder in (CHECKPOINTS, EXPORTS):
            make_folder(folder)
        terminal.box(t("CGPT - Chinese GPT model training"))
        terminal.say()
        if not self._load_existing():
            self._train_new()
        if self.saver.llm is not None:
            terminal.say()
            self._chat()

    # ---- loading -------------------------------------------------------------------------

    def _load_existing(self) -> bool:
        """Offer the saved models; False where a new one is to be trained.

        True without a model where none can be loaded and none is to be trained.
        """
        from cgpt.checkpoint.info import find_models

        terminal = self.terminal
        models = [Path(path).as_posix() for path in find_models(CHECKPOINTS, EXPORTS)]
        broken = unusable(models)
        if not models and not broken:
            terminal.note(t("📝 No saved model found, training a new one..."))
            return False
        terminal.say(t("🔍 Saved models found:"))
        for path in models:
            terminal.say(f"  ✓ {path}")
        for path, kind in broken:
            terminal.say(f"  ✗ {path} ({kind})")
        terminal.say()
        if not models:
            terminal.note(t("None of these files can be loaded; cgpt info PATH says why."))
            if not terminal.yes_no(t("Train a new model? (y/n): ")):
                return True
        while models and terminal.yes_no(t("Load a saved model? (y/n): ")):
            terminal.say()
            llm = self._choose(models)
            if llm is not None:
                self.saver.hold(llm, unsaved=False)
                self._offer_continue(llm)
                return True
        terminal.say()
        terminal.note(t("📝 Training a new model..."))
        return False

    def _choose(self, models: list[str]) -> LLM | None:
        """Choose and load; a file that cannot be loaded leads back here, n gives None."""
        terminal = self.terminal
        failed = False
        while True:
            terminal.say(t("Which model to load:"))
            for i, path in enumerate(models, 1):
                terminal.say(f"  {i}) {path}" + (t(MARKS[path]) if path in MARKS else ""))
            chosen = terminal.choose(len(models), back=failed)
            terminal.say()
            if chosen == 0:
                return None
            try:
                return self._load(models[chosen - 1])
            except (CgptError, OSError, MemoryError) as error:
                failed = True
                terminal.note(
                    t(
                        "❌ Could not load ({kind}): {reason}",
                        kind=kind_of(error),
                        reason=reason_of(error),
                    )
                )
                terminal.note(t("Choose another model, or n to go back."))
                terminal.say()

    def _load(self, path: str) -> LLM:
        from cgpt.llm import load_model_auto

        terminal = self.terminal
        count = 0

        def rebuilt(*_: Any) -> None:
            nonlocal count
            count += 1
            terminal.say(t("   [{i}] Rebuilding layer... ✓", i=count))

        terminal.note(t("📂 Loading model: {path}...", path=path))
        llm = load_model_auto(path, training=True, progress=rebuilt)
        terminal.say()
        terminal.say(t("✅ Model loaded!"))
        terminal.say(t("  • Vocabulary: {n}", n=len(llm.tokenizer)))
        terminal.say(t("  • Parameters: {n}", n=llm.gpt.n_parameters))
        layers = ", ".join(record.type for record in llm.gpt.layer_records())
        terminal.note(t("  • Layers: {layers}", layers=layers))
        terminal.say()
        return llm

    # ---- training ------------------------------------------------------------------------

    def _train_new(self) -> None:
        from cgpt.cli.run_config import run_config
        from cgpt.cli.ui.data_report import Preparing, describe_run, local_notes
        from cgpt.training.run import TrainingRun

        terminal = self.terminal
        terminal.say()
        terminal.note(t("Reading the data, learning the vocabulary..."))
        for line in () if self.options.get("data") else local_notes():
            terminal.note(line)
        run = TrainingRun.start(run_config(self.options), progress=Preparing())
        describe_run(run, terminal.note)
        terminal.say()
        self.saver.hold(run.llm, unsaved=False, default=PRETRAINED)
        finished = self._both_phases(run)
        self.saver.default = FINAL
        self._finish(finished, t("✅ Training finished!"))

    def _finish(self, finished: bool, message: str) -> None:
        """Say how the training ended, offer to save it."""
        terminal, saver = self.terminal, self.saver
        terminal.note(message if finished else t("⏹ Training stopped, the model is kept."))
        terminal.say()
        before = len(saver.saved_paths)
        saver.offer()
        if not finished and len(saver.saved_paths) > before:
            terminal.say(
                t("💡 To go on: cgpt resume {path}", path=shell_quoted(saver.saved_paths[before]))
            )

    def _both_phases(self, run: TrainingRun) -> bool:
        """Train what there is to train; False after Ctrl-C or a failure."""
        for phase in tuple(run.phases):
            last = phase == "finetune"
            if last:
                self.saver.default = FINAL
            samples = Samples(run.llm, phase, prompt=first_question(run, phase))
            result = self._train(phase, partial(run.fit_phase, phase), samples)
            if result is None or result.stopped == "interrupted":
                return False
            if not last:
                if self.terminal.yes_no(t("💾 Save the pre-training checkpoint? (y/n): ")):
                    self.saver.save_pretrained()
                self.terminal.say()
        return True

    def _train(
        self, phase: str, fit: Callable[..., FitResult], samples: Samples
    ) -> FitResult | None:
        """One phase with its live lines; None where training had to stop with an error."""
        terminal, saver = self.terminal, self.saver

        try:
            with (
                StopRequest(terminal.output) as stop,
                ProgressDisplay(terminal.output, stop) as display,
            ):

                def progress(value: Progress) -> None:
                    saver.unsaved = True
                    if samples.due(value):
                        display.sample(value.step, *samples.make(value.step))
                    display(value)

                result = fit(on_progress=progress, should_stop=stop)
        except Exception as error:
            if not saver.unsaved:
                raise
            saver.rescue()  # before anything is asked: nobody may be there to answer
            terminal.note(t("❌ Training stopped: {reason}", reason=what_failed(error)))
            terminal.say()
            return None
        terminal.note(result_line(phase, result))
        terminal.say()
        if stop.number not in (0, signal.SIGINT):
            raise Terminated(stop.number)
        return result

    def _offer_continue(self, llm: LLM) -> None:
        from cgpt.cli.ui.data_report import too_long_line
        from cgpt.training.recipe import continued_chat
        from cgpt.training.run import continue_training

        terminal = self.terminal
        if not terminal.yes_no(t("Continue training this model? (y/n): ")):
            terminal.say()
            terminal.note(t("✓ Skipping training, straight to the chat"))
            return
        terminal.say()
        terminal.say(t("🔄 Continue training"))
        terminal.say()
        epochs, lr = terminal.epochs(DEFAULT_EPOCHS), terminal.learning_rate(DEFAULT_LR)
        terminal.say()
        terminal.note(
            t(
                "Continuing the training ({epochs} epochs, lr={lr})...",
                epochs=epochs,
                lr=plain_number(lr),
            )
        )
        terminal.say()
        chat = continued_chat(self.options.get("data", ()), llm.training_state.run)
        fit = partial(
            continue_training,
            llm,
            epochs,
            lr,
            chat=chat,
            skip_invalid=self.options.get("skip_invalid") or None,
            on_data=self._left_out,
        )
        result = self._train("finetune", fit, Samples(llm, "finetune"))
        if result is not None and result.too_long:
            terminal.note(too_long_line("finetune", result.too_long))
            terminal.say()
        finished = result is not None and result.stopped != "interrupted"
        self._finish(finished, t("✅ Continued training finished!"))

    def _left_out(self, source: Source) -> None:
        """Say which rows of the data are changed or left out."""
        from cgpt.cli.ui.data_report import left_out

        for line in left_out(source.files, [source.invalid]):
            self.terminal.note(line)

    # ---- talking -------------------------------------------------------------------------

    def _chat(self) -> None:
        from cgpt.chat.session import ChatSession
        from cgpt.config import SamplingConfig

        session = ChatSession(self.saver.model(), SamplingConfig(temperature=0.0))
        chat_loop(self.terminal, session, partial(self.saver.dialog, in_chat=True))


def make_folder(folder: str) -> None:
    """Make it when missing. Raises CheckpointError where that cannot be done."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            "{folder}: the folder cannot be made ({reason}); run cgpt in a folder that you "
            "may write to",
            code="write",
            folder=folder,
            reason=as_reason(error),
        ) from error


def unusable(models: list[str]) -> list[tuple[str, str]]:
    """(path, why) of files that look like models but are not among the loadable ones."""
    from cgpt.checkpoint.info import describe

    found = []
    for folder in (CHECKPOINTS, EXPORTS):
        for path in sorted(Path(folder).glob("[!.]*")):
            if path.suffix.lower() not in (".bin", ".json") or path.as_posix() in models:
                continue
            try:
                describe(path)
            except (CgptError, OSError, MemoryError) as error:
                if path.suffix.lower() == ".bin" or getattr(error, "code", "") != "foreign":
                    found.append((path.as_posix(), kind_of(error)))
    return found


def kind_of(error: BaseException) -> str:
    """Missing, damaged, other version, not a cgpt file: in the language of this run."""
    code = getattr(error, "code", "")
    if isinstance(error, FileNotFoundError):
        code = "missing"
    if code == "missing":
        return t("no such file")
    known = KINDS.get(code) if isinstance(error, CheckpointError) else None
    return t(known or N_("error"))
