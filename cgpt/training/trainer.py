"""Trainer: one loop for pre-training, fine-tuning and resuming either to the bit.

All that decides a step is in the training state: the order of the documents follows from (seed,
phase, epoch), the dropout masks from (seed, phase, step, micro-batch), the learning rate from the
step. So a run that was stopped, saved and loaded continues as if it had never stopped.

A phase starts with fresh Adam moments and a schedule of its own; phases are independent but for
the weights that one leaves to the next.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np

from cgpt.config import EARLIER_WARMUP, TOO_LONG, WINDOWS, TrainConfig
from cgpt.corpus.documents import Documents, Samples, as_encoded
from cgpt.corpus.inputs import Document
from cgpt.corpus.packing import Batch
from cgpt.errors import CgptError, CgptWarning, DataError, Phrase
from cgpt.language_model import PHASES
from cgpt.llm import LLM
from cgpt.nn.arrays import Floats
from cgpt.optim.adamw import AdamW
from cgpt.optim.moving_average import averaging, with_average
from cgpt.optim.registry import begun_with, make_optimizer, settings_of
from cgpt.optim.schedules import schedule
from cgpt.runtime.interrupts import Interrupts, Operation, uninterrupted
from cgpt.runtime.process_group import SINGLE_PROCESS, SingleProcess
from cgpt.training.callbacks import AnyCallback, Callbacks, FitResult, Progress, StopTraining
from cgpt.training.data_parallel import GradientSum, share
from cgpt.training.epochs import Epochs, cut, digest, held_out_documents, philox_stream
from cgpt.validation import check_choice, expect

_HISTORY = 5000  # about so many entries a phase; longer runs keep every k-th step

Texts = Sequence[Document] | Documents


class Trainer:
    """Trains an LLM in one phase; everything it knows is in the LLM and its training state.

    phase  "pretrain" or "finetune": names the random streams and the place in the state. What
           carries loss is every token of a text; of a dialogue every token in "pretrain", in
           "finetune" the assistant's and their eos (`TrainConfig.loss_on` says otherwise).
    parallel  the processes that share the training (cgpt.training.mpi.connect()), each of which
           calls it with the same model, settings and documents; by default there are no others
    Raises ConfigError for an unknown phase.
    """

    def __init__(
        self,
        llm: LLM,
        config: TrainConfig | None = None,
        phase: str = "pretrain",
        parallel: SingleProcess = SINGLE_PROCESS,
    ) -> None:
        expect("Trainer", llm, LLM, "an LLM")
        self.llm = llm
        self.config = TrainConfig() if config is None else config
        expect("Trainer", self.config, TrainConfig, "a TrainConfig")
        self.phase = check_choice("Trainer", "phase", phase, PHASES)
        self.parallel = parallel

    def __repr__(self) -> str:
        return f"Trainer({self.llm!r}, {self.phase}, {self.config!r})"

    def fit(
        self,
        documents: Texts,
        on_progress: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_checkpoint: Callable[[LLM], object] | None = None,
        *,
        validation: Texts | None = None,
        eval_every: int | None = None,
        callbacks: Sequence[AnyCallback] = (),
    ) -> FitResult:
        """Train until the epochs, the patience or a budget are used up, or should_stop() is true.

        An LLM in the middle of this phase resumes exactly there; otherwise the phase begins.
        on_progress    is called after every step
        on_checkpoint  is called after every step, when a save of the LLM would be complete
        should_stop    is asked after every step
        validation     documents to evaluate on, in place of those that val_fraction holds out
        eval_every     steps between two evaluations, 0 for one after each epoch; None for that of
                       the TrainConfig
        callbacks      functions that are called after every step, or objects like `Callback`
        The phase is then done, with the best weights where there are held-out documents; an
        interrupted one is not and can be resumed. One that a budget ended resumes exactly when it
        is fitted to the same documents with a larger budget (and nothing is held out).
        Ctrl-C is taken between two steps, a second one at once. After any exception the model is as
        after its last whole step, and fitting again gives the bits of an undisturbed training.
        Warns (CgptWarning) where the warm-up is longer than the training.
        Raises DataError where there is nothing to train on or the documents are others than
        those the phase began with, ConfigError where the weights are read-only or a frozen name
        fits nothing, and CgptError (code "diverged") naming phase and step where a loss or
        gradient is not finite: nothing of that step is applied.
        """
        told = Callbacks(
            callbacks, on_progress=on_progress, should_stop=should_stop, on_checkpoint=on_checkpoint
        )
        config = self.config if eval_every is None else replace(self.config, eval_every=eval_every)
        run = _Run(self.llm, config, self.phase, self.parallel, Interrupts())

        def after_step(progress: Progress) -> None:
            if on_progress:
                on_progress(progress)
            run.notify(told, progress)
            if on_checkpoint:
                on_checkpoint(self.llm)

        try:
            try:
                run.interrupts.install()
                run.prepare(documents, validation)
                return run.train(told, after_step, should_stop)
            finally:
                run.interrupts.restore()
        except BaseException:
            run.interrupts.restore()  # where that is what was broken off
            run.give_up()
            raise


def _imported(llm: LLM, config: TrainConfig) -> bool:
    """Whether the model brought moments along from elsewhere that this phase resumes with."""
    state = llm.training_state
    return (
        llm.optimizer is not None
        and not (state.step or state.done or state.history)
        and not config.lora_rank
        and all(
            getattr(config, name) in (value, None)
            for name, value in settings_of(llm.optimizer).items()
        )
    )


class _Run:
    """One call of fit: the encoded documents and the loop's steps.

    What an exception may interrupt changes nothing but gradients and buffers, which are recomputed.
    What has to change together is changed by `uninterrupted`: the beginning of a phase, a step with
    all that is counted of it, an evaluation, the end of a phase.
    """

    epochs: Epochs
    held_out: Samples
    gradient: GradientSum

    def __init__(
        self,
        llm: LLM,
        config: TrainConfig,
        phase: str,
        parallel: SingleProcess,
        interrupts: Interrupts,
    ) -> None:
        self.llm, self.config, self.phase, self.parallel = llm, config, phase, parallel
        self.interrupts = interrupts
        self.state = llm.training_state
        self.optimizer: AdamW | None = None
        self.ended = False  # whether this call has ended the phase
        self.held_out_numbers: tuple[int, ...] = ()
        self._stop = False
        self._validation_documents = 0
        self._evaluated = 0  # after which step the last evaluation was made,
        self._val_loss: float | None = None  # and what it found
        self._batches: Sequence[Batch] = []
        self._batches_of = -1

    # Before the first step

    def prepare(self, documents: Texts, validation: Texts | None) -> None:
        """Encode and plan; then take up the phase where it stands, or begin it."""
        self.interrupts.at_once = True  # nothing has been changed yet
        llm = self.llm
        llm.trainable.arena.require_writable("Trainer.fit")
        llm.trainable.recompute = self.config.recompute
        longest = min(llm.config.block_size, self.config.batch_tokens)
        samples, found = self._samples(documents, validation, longest)
        config = self.config
        planned = self._resume_or_begin(samples, found, longest)
        self.gradient = GradientSum(llm.trainable, self.parallel, self._trained.arena)
        self.parallel.require_same(
            {"documents": found, "settings": self.config.to_dict(), "step": self.state.step},
            llm.trainable.arena.data,
        )
        self._last = min(planned, config.max_steps or planned)
        self._every = -(-planned // _HISTORY) or 1
        # The last evaluation of this phase; only an unfinished one has any.
        for _, step, _, loss in reversed(self.state.history):
            if self.state.best_loss is not None and loss is not None:
                self._evaluated, self._val_loss = step, loss
                break
        self._start = (self.state.step, self.state.tokens, self.state.seconds)
        self._check_warmup()
        self.interrupts.at_once = False

    def _samples(
        self, documents: Texts, validation: Texts | None, longest: int
    ) -> tuple[Samples, str]:
        """The samples to train on and the digest of all.

        For a phase that an earlier version began, cut and trained on as that version did.
        """
        config, state = self.config, self.state
        given = as_encoded(documents, self.llm.tokenizer)
        measured = None if validation is None else as_encoded(validation, self.llm.tokenizer)
        samples = self._split(given, measured, longest)
        found = digest(samples, self.held_out, config)
        if (
            state.phase == self.phase
            and state.documents not in ("", found)
            and config.too_long == TOO_LONG[0]
            and config.loss_on is None
        ):
            self.config = replace(config, too_long=WINDOWS, loss_on="answers")
            earlier = self._split(given, measured, longest)
            if digest(earlier, self.held_out, config) == state.documents:
                return earlier, state.documents
            self.config = config
            samples = self._split(given, measured, longest)
        return samples, found

    def _split(self, given: Documents, validation: Documents | None, longest: int) -> Samples:
        """The samples to train on; the others become held_out."""
        config, phase = self.config, self.phase
        config.require_validation(phase, validation is not None)
        out = held_out_documents(len(given), config.val_fraction, config.seed, phase)
        trained, kept = given.only(~out), given.only(out)
        self.held_out_numbers = tuple(np.flatnonzero(out).tolist())
        if validation is not None:
            kept = validation
        samples, self.held_out = (cut(one, longest, config, phase) for one in (trained, kept))
        self.too_long = samples.too_long + self.held_out.too_long
        wanted = validation is not None or bool(config.val_fraction)
        if not samples or (wanted and not self.held_out):
            raise DataError(
                "{phase}: no token of the held-out documents carries loss; give texts, or "
                "dialogues with answers"
                if samples
                else "{phase}: no token of the documents carries loss; give texts, or dialogues "
                "with answers",
                phase=Phrase(phase),
            )
        self._validation_documents = len(kept)
        return samples

    def _resume_or_begin(self, samples: Samples, documents: str, longest: int) -> int:
        """Go on where the state stands, or begin the phase; the steps of all its epochs."""
        state, config = self.state, self.config

        def plan(moving_cuts: bool) -> int:
            self.epochs = Epochs(
                samples, self.llm.tokenizer, config, self.phase, longest, moving_cuts=moving_cuts
            )
            # Backwards, since the plan made last is kept and training begins with the first.
            return sum(self.epochs.steps(epoch) for epoch in reversed(range(config.epochs)))

        begun = state.phase == self.phase and state.documents == documents
        moving = state.moving_cuts or not begun
        planned = plan(moving)
        if self._reopens(documents, planned):
            state.done.remove(self.phase)
        state.identify()
        # Weights alone do not make a phase exact again: without an optimizer it starts again.
        if (
            state.unfinished
            and state.phase == self.phase
            and bool(state.documents)
            and (self.llm.optimizer is not None or not state.step)
        ):
            self._resume(documents, planned)
        else:
            planned = planned if moving else plan(True)
            self._begin(documents, planned)
        self._trained.zero_grad()
        return planned

    def _reopens(self, documents: str, planned: int) -> bool:
        """Whether a budget ended this very phase and there is more of it now.

        It then resumes exactly, since the schedule is that of all epochs whatever the budget. Not
        where documents are held out or an average is kept: the weights are then not the last ones.
        """
        state = self.state
        return (
            state.phase == self.phase in state.done
            and self.llm.optimizer is not None
            and state.documents == documents
            and state.step < state.total_steps == planned
            and not self.held_out
            and not self.config.ema
            and not self.reason()
        )

    def _resume(self, documents: str, planned: int) -> None:
        llm, state = self.llm, self.state
        if documents != state.documents:
            raise DataError(
                "{phase}: step {step} was reached with other documents (or another "
                "val_fraction, too_long, loss_on, seed, batch_tokens or join_dialogues); "
                "give the same ones, or start the phase anew with "
                "llm.training_state.begin(...)",
                phase=Phrase(self.phase),
                step=state.step,
            )
        warmup = EARLIER_WARMUP if state.warmup is None else state.warmup
        self._resolve({"warmup": warmup, **begun_with(llm.optimizer)}, planned)
        optimizer = make_optimizer(
            llm.trainable, self.config, llm.optimizer, fresh=False, base=llm.base
        )
        kept = llm.average
        if self.config.ema and kept is None:
            kept = optimizer.arena.data.copy()
        uninterrupted(
            [
                *optimizer.restoring(),
                *self._taking_over(optimizer, kept),
                partial(setattr, state, "total_steps", planned),
            ]
        )

    def _begin(self, documents: str, planned: int) -> None:
        """The first step comes next, with fresh moments or those of an import."""
        llm, state = self.llm, self.state
        fresh = not _imported(llm, self.config)
        self._resolve({} if fresh else begun_with(llm.optimizer), planned)
        optimizer = make_optimizer(
            llm.trainable, self.config, llm.optimizer, fresh=fresh, base=llm.base
        )
        at_first = state.begun(self.phase)
        at_first.update(
            documents=documents, moving_cuts=True, warmup=self.config.warmup, total_steps=planned
        )
        average = optimizer.arena.data.copy() if self.config.ema else None
        uninterrupted(
            [
                *(optimizer.resetting() if fresh else ()),
                partial(setattr, llm, "best_weights", None),
                *self._taking_over(optimizer, average),
                partial(vars(state).update, at_first),
            ]
        )

    def _resolve(self, begun: dict[str, object], planned: int) -> None:
        self.config = self.config.resolved(
            self.llm.config.n_embd, begun, self.config.schedule_steps or planned
        )

    def _taking_over(self, optimizer: AdamW, average: Floats | None) -> list[Operation]:
        """The operations by which the model gets these; its weights are about to change."""
        self.optimizer = optimizer
        return [
            *self.llm.changing_optimizer(optimizer),
            partial(setattr, self.llm, "average", average),
            partial(setattr, self.llm, "base", ""),
        ]

    @property
    def _trained(self) -> AdamW:
        return cast(AdamW, self.optimizer)

    def _check_warmup(self) -> None:
        """Warn where the learning rate would not reach its peak."""
        warmup, steps = cast(int, self.config.warmup), self._last
        if warmup and warmup >= steps > self.state.step:
            warnings.warn(
                CgptWarning(
                    "{phase}: a warm-up of {warmup} steps in a training of {steps}: the "
                    "learning rate does not reach {lr:g}; give a smaller warmup, or "
                    "schedule_steps for as many as there will be",
                    phase=Phrase(self.phase),
                    warmup=warmup,
                    steps=steps,
                    lr=self.config.lr,
                ),
                stacklevel=4,
            )

    # Step by step

    def train(
        self,
        told: Callbacks,
        after_step: Callable[[Progress], None],
        should_stop: Callable[[], bool] | None,
    ) -> FitResult:
        """The steps that are left, and the end of the phase."""
        interrupts = self.interrupts
        if self.evaluation_is_due():  # that of the last step, which was broken off
            self._evaluate()
            self.notify(told, self._progress(self.state.history[-1][2]), stepped=False)
        stopped = self.reason()
        while not stopped:
            after_step(self.step())
            stopped = self.stop_reason_of_all(
                interrupts.pending or self._stop or bool(should_stop and should_stop())
            )
            if self.parallel.size == 1 or stopped == "interrupted":
                interrupts.check()
        if stopped != "interrupted":
            if self.held_out and self.state.loss_tokens and self._evaluated != self.state.step:
                mean = self.state.loss_sum / self.state.loss_tokens
                self._evaluate(mean)
                self.notify(told, self._progress(mean), stepped=False)
            self.finish()
        result = self.result(stopped)
        if self.ended:
            self._call(told, "on_end", result)
        return result

    def notify(self, told: Callbacks, progress: Progress, *, stepped: bool = True) -> None:
        """The callbacks that are due after a step, or after an evaluation by itself."""
        if self._evaluated == self.state.step:
            self._call(told, "on_evaluation", progress)
        if stepped:
            self._call(told, "on_step", progress)
            if self.state.batch == 0:
                self._call(told, "on_epoch_end", progress)

    def _call(self, told: Callbacks, event: str, about: Progress | FitResult) -> None:
        try:
            told(event, about)
        except StopTraining:
            self._stop = True

    def reason(self) -> str:
        """Why no step follows, or ""."""
        state, config = self.state, self.config
        if state.epoch >= config.epochs:
            return "done"
        if config.patience and state.bad_evals >= config.patience:
            return "early"
        if config.max_steps and state.step >= config.max_steps:
            return "budget"
        if config.max_minutes and state.seconds >= 60 * config.max_minutes:
            return "budget"
        return ""

    def stop_reason_of_all(self, stop: bool) -> str:
        """Why no step follows in any of the processes, or ""; the time is that of process 0."""
        asked = self.parallel.gather([float(stop), self.state.seconds])
        self.state.seconds = float(asked[0, 1])
        return self.reason() or ("interrupted" if asked[:, 0].any() else "")

    def step(self) -> Progress:
        """One optimizer step, and the evaluation where it is due."""
        began = time.perf_counter()
        state, config, llm = self.state, self.config, self.llm
        epoch, batch = state.epoch, state.batch
        if self._batches_of != epoch:
            self._batches, self._batches_of = self.epochs.batches(epoch), epoch
        group = self._batches[batch : batch + config.grad_accum]
        lr = self._rate(state.step)
        loss, counted, norm, operations = self._update(group, lr)
        if llm.average is not None:
            operations.append(averaging(llm.average, self._trained, config.ema))
        before = (state.loss_sum, state.loss_tokens) if batch else (0.0, 0)
        step, batch = state.step + 1, batch + len(group)
        if batch >= len(self._batches):
            epoch, batch = epoch + 1, 0
        due = bool(self.held_out) and self._ends_interval(step, batch)
        if due or step % self._every == 0 or step == state.total_steps:
            operations.append(partial(state.history.append, [self.phase, step, loss, None]))
        operations.append(
            partial(
                vars(state).update,
                {
                    "step": step,
                    "epoch": epoch,
                    "batch": batch,
                    "tokens": state.tokens + sum(len(one.ids) for one in group),
                    "loss_sum": before[0] + loss * counted,
                    "loss_tokens": before[1] + counted,
                },
            )
        )
        uninterrupted(operations)
        state.seconds += time.perf_counter() - began
        if due:
            self._evaluate()
        return self._progress(loss, lr, norm)

    def _rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        config = self.config
        return schedule(
            step,
            lr=cast(float, config.lr),
            warmup=cast(int, config.warmup),
            total=config.schedule_steps or self.state.total_steps,
            min_lr_ratio=config.min_lr_ratio,
            kind=config.schedule,
            decay=config.decay_share,
        )

    def _update(
        self, group: Sequence[Batch], lr: float
    ) -> tuple[float, int, float, list[Operation]]:
        """Forward and backward over the micro-batches of one step, and the optimizer's update.

        The gradient is the sum over all counted tokens of the group, divided by their number.
        Returns (mean loss over these tokens, their number, gradient norm before clipping, the
        operations of the update).
        """
        gpt, config = self.llm.trainable, self.config
        counted = sum(batch.counted for batch in group)
        total = 0.0
        mine = share(group, config.grad_accum, self.parallel.rank, self.parallel.size)
        for left, (micro, first, batch) in zip(reversed(range(len(mine))), mine, strict=True):
            loss = gpt.forward(
                batch.ids,
                batch.targets,
                offsets=batch.offsets,
                positions=batch.positions,
                dropout=config.dropout,
                dropout_key=self._key(micro, first),
                scale=1.0 / counted,
                label_smoothing=config.label_smoothing,
            )
            self.gradient.add(last=not left)
            total += loss * batch.counted
        self.gradient.finish()
        total = float(self.parallel.summed(np.array([total]))[0])
        if not math.isfinite(total):
            raise self._diverged(Phrase("loss"), total, lr)
        norm, operations = self._trained.prepared(lr, config.clip)
        if not math.isfinite(norm):
            raise self._diverged(Phrase("gradient norm"), norm, lr)
        return total / counted, counted, norm, operations

    def _key(self, micro: int, first: int) -> int:
        """What names the dropout masks of a micro-batch, or of its part from token `first` on."""
        if not self.config.dropout:
            return 0
        source = philox_stream(
            self.config.seed,
            self.phase,
            "dropout",
            self.state.step,
            micro,
            *([first] if first else []),
        )
        return int(source.random_raw()) >> 1

    def _diverged(self, what: Phrase, value: float, lr: float) -> CgptError:
        """The error for a value that is not finite; `give_up` drops the gradients of the step."""
        return CgptError(
            "{phase}: the {what} is {value} at step {next} (learning rate {lr:g}); this "
            "step was not applied and the model is as after step {step}; lower the "
            "learning rate or clip the gradient",
            code="diverged",
            phase=Phrase(self.phase),
            what=what,
            value=value,
            next=self.state.step + 1,
            lr=lr,
            step=self.state.step,
        )

    # Evaluations

    def _ends_interval(self, step: int, batch: int) -> bool:
        """Whether a step after which the state says so is followed by an evaluation."""
        every = self.config.eval_every
        return step % every == 0 if every else batch == 0

    def evaluation_is_due(self) -> bool:
        """Whether the last step's evaluation has not been made."""
        state = self.state
        return bool(
            self.held_out
            and state.step
            and self._evaluated != state.step
            and self._ends_interval(state.step, state.batch)
            and state.history
            and state.history[-1][:2] == [self.phase, state.step]
        )

    def _evaluate(self, loss: float | None = None) -> None:
        """Held-out loss after the last step; keeps the best weights.

        Where an average of the weights is kept, it is what is evaluated.
        loss  of training, for the history; None for that of the step
        """
        began = time.perf_counter()
        total, counted = with_average(self.llm.average, self._trained, self._held_out_loss)
        if not math.isfinite(total):
            raise CgptError(
                "{phase}: the held-out loss is {value} after step {step}; lower the "
                "learning rate or clip the gradient",
                code="diverged",
                phase=Phrase(self.phase),
                value=total / counted,
                step=self.state.step,
            )
        self._record(loss, total / counted, time.perf_counter() - began)

    def _held_out_loss(self) -> tuple[float, int]:
        """(sum in nats, counted tokens); broken off by Ctrl-C, since it can be made again."""
        interrupts = self.interrupts
        try:
            interrupts.at_once = self.parallel.size == 1
            interrupts.check()
            return self.llm.summed_loss(self.held_out, self.parallel)
        finally:
            interrupts.at_once = False

    def _record(self, loss: float | None, found: float, seconds: float) -> None:
        """Note a held-out loss; keep the weights where they are the best."""
        state, llm = self.state, self.llm
        data = self._trained.arena.data if llm.average is None else llm.average
        last = state.history[-1] if state.history else []
        entry = [self.phase, state.step, last[2] if loss is None else loss, found]
        values: dict[str, float | None] = {"seconds": state.seconds + seconds}
        operations = [
            partial(state.history.__setitem__, -1, entry)
            if last[:2] == entry[:2]
            else partial(state.history.append, entry)
        ]
        if state.best_loss is None or found < state.best_loss:
            values.update(best_loss=found, best_step=state.step, bad_evals=0)
            operations.append(
                partial(setattr, llm, "best_weights", data.copy())
                if llm.best_weights is None
                else partial(llm.best_weights.__setitem__, slice(None), data)
            )
        else:
            values.update(bad_evals=state.bad_evals + 1)
        uninterrupted([*operations, partial(vars(state).update, values)])
        self._evaluated, self._val_loss = state.step, found

    # After the last step

    def finish(self) -> None:
        """End the phase with the best weights, or the averaged ones."""
        llm = self.llm
        final = llm.average if llm.best_weights is None else llm.best_weights
        uninterrupted(
            [
                *([] if final is None else self._trained.replacing(final)),
                partial(setattr, llm, "best_weights", None),
                partial(setattr, llm, "average", None),
                partial(self.state.done.append, self.phase),
                partial(setattr, self, "ended", True),
            ]
        )

    def give_up(self) -> None:
        """After an exception: what a call of fit leaves behind for the next one."""
        if self.ended:  # the caller does not know: fit again only ends the phase, as here
            self.state.done.remove(self.phase)
        if self.optimizer is not None:
            self.optimizer.zero_grad()

    def _progress(self, loss: float, lr: float | None = None, norm: float = math.nan) -> Progress:
        """Where the phase stands; lr and norm of its last step, where it was taken here."""
        state, config = self.state, self.config
        step, tokens, seconds = self._start
        lr = self._rate(state.step - 1) if lr is None else lr
        spent = max(state.seconds - seconds, 1e-9)
        left = (self._last - state.step) * spent / max(1, state.step - step)
        if config.max_minutes:
            left = max(0.0, min(left, 60 * config.max_minutes - state.seconds))
        return Progress(
            phase=self.phase,
            epoch=state.epoch + (state.batch > 0),
            epochs=config.epochs,
            step=state.step,
            steps=self._last,
            loss=loss,
            val_loss=self._val_loss,
            lr=lr,
            grad_norm=norm,
            tokens=state.tokens,
            tokens_per_second=(state.tokens - tokens) / spent,
            seconds=state.seconds,
            seconds_left=left,
        )

    def result(self, stopped: str) -> FitResult:
        """What fit returns."""
        state = self.state
        loss = state.loss_sum / state.loss_tokens if state.loss_tokens else None
        val_loss = self._val_loss if stopped == "interrupted" else state.best_loss
        return FitResult(
            steps=state.step,
            epochs=state.epoch,
            tokens=state.tokens,
            loss=loss,
            val_loss=val_loss,
            stopped=stopped,
            seconds=state.seconds,
            held_out=self.held_out_numbers,
            validation_documents=self._validation_documents,
            too_long=self.too_long,
        )
