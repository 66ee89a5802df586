"""Trainer: one loop for pre-training, fine-tuning and resuming either to the bit.

All that decides a step is in the training state: the order of the documents follows from (seed,
phase, epoch), the dropout masks from (seed, phase, step, micro-batch), the learning rate from the
step. So a run that was stopped, saved and loaded goes on as if it had never stopped.

A phase starts with fresh Adam moments and a schedule of its own; phases are independent but for
the weights that one leaves to the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cgpt.arena import Floats
from cgpt.averaging import averaged, replace_weights, update_average
from cgpt.config import TrainConfig
from cgpt.cutting import TooLong, both
from cgpt.data import Batch, Dialogue
from cgpt.documents import Documents, encoded
from cgpt.epochs import Epochs, bits, cut, digest, held_out_documents
from cgpt.errors import CgptError, ConfigError, DataError
from cgpt.evaluation import EvalResult, evaluate
from cgpt.llm import LLM, PHASES
from cgpt.optimizers import begun_with, make_optimizer, settings_of
from cgpt.parallel import ALONE, Alone, GradientSum, share
from cgpt.schedules import schedule

__all__ = ["EvalResult", "FitResult", "Progress", "Trainer", "evaluate"]

_HISTORY = 5000         # about so many entries a phase; longer runs keep every k-th step


@dataclass
class Progress:
    """Where a phase stands after a step.

    epoch, epochs      the pass under way (from 1) of how many
    step, steps        optimizer steps done of how many (no more than the budget)
    loss               of this step, nats a token; val_loss: of the last evaluation or None
    lr, grad_norm      of this step; the norm is the global one before clipping
    tokens             of the phase so far; tokens_per_second of this call of fit
    seconds            of the phase so far; seconds_left is estimated from this call's steps
    """

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    val_loss: float | None
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class FitResult:
    """What a call of fit came to.

    steps, epochs, tokens, seconds  of the whole phase, earlier calls that it went on from included
    loss      mean over the tokens of the last epoch, nats; None where no step was taken
    val_loss  held-out loss of the weights that the model now has; None without a held-out split
    stopped   "done": all epochs · "early": no improvement for `patience` evaluations ·
              "budget": max_steps or max_minutes · "interrupted": should_stop() said so
    too_long  which documents are longer than the context, and what became of them
    """

    steps: int
    epochs: int
    tokens: int
    loss: float | None
    val_loss: float | None
    stopped: str
    seconds: float
    too_long: TooLong | None = None


class Trainer:
    """Trains an LLM in one phase; everything it knows is in the LLM and its training state.

    phase  "pretrain" or "finetune": names the random streams and the place in the state. What
           carries loss is every token of a text; of a dialogue every token in "pretrain", in
           "finetune" the assistant's and their eos (`TrainConfig.loss_on` says otherwise).
    parallel  the processes that share the training (cgpt.mpi.connect()), each of which calls this
           with the same model, settings and documents; by default there are no others
    Raises ConfigError for an unknown phase.
    """

    def __init__(self, llm: LLM, config: TrainConfig | None = None,
                 phase: str = "pretrain", parallel: Alone = ALONE) -> None:
        if phase not in PHASES:
            raise ConfigError(f"Trainer: unknown phase {phase!r}; known: {', '.join(PHASES)}")
        self.llm = llm
        self.config = TrainConfig() if config is None else config
        self.phase = phase
        self.parallel = parallel

    def fit(self, documents: Sequence[str | Dialogue] | Documents,
            on_progress: Callable[[Progress], object] | None = None,
            should_stop: Callable[[], bool] | None = None,
            on_checkpoint: Callable[[LLM], object] | None = None) -> FitResult:
        """Train until the epochs, the patience or a budget are used up, or should_stop() is true.

        An LLM in the middle of this phase goes on exactly there; otherwise the phase begins.
        on_progress    is called after every step
        on_checkpoint  is called after every step, when a save of the LLM would be complete
        should_stop    is asked after every step
        The phase is then done, with the best weights where a split is held out; an interrupted
        one is not and can be resumed. One that a budget ended goes on exactly when it is fitted
        to the same documents with a larger budget (and no split is held out).
        Raises DataError where there is nothing to train on or the documents are others than
        those the phase began with, ConfigError where the weights are read-only or a frozen name
        fits nothing, and CgptError (code "diverged") naming phase and step where a loss or
        gradient is not finite: nothing of that step is applied.
        """
        run = _Run(self.llm, self.config, self.phase, documents, self.parallel)
        stopped = run.reason()
        while not stopped:
            progress = run.step()
            if on_progress:
                on_progress(progress)
            if on_checkpoint:
                on_checkpoint(self.llm)
            stopped = run.agreed(bool(should_stop and should_stop()))
        if stopped != "interrupted":
            run.finish()
        return run.result(stopped)


def _imported(llm: LLM, config: TrainConfig) -> bool:
    """Whether the model brought moments along from elsewhere that this phase goes on with."""
    state = llm.training_state
    return (llm.optimizer is not None and not (state.step or state.done or state.history)
            and not config.lora_rank
            and all(getattr(config, name) in (value, None)
                    for name, value in settings_of(llm.optimizer).items()))


class _Run:
    """One call of fit: the encoded documents and the loop's steps."""

    epochs: Epochs

    def __init__(self, llm: LLM, config: TrainConfig, phase: str,
                 documents: Sequence[str | Dialogue] | Documents, parallel: Alone) -> None:
        llm.gpt.arena.require_writable()
        llm.gpt.recompute = config.recompute
        self.llm, self.config, self.phase, self.parallel = llm, config, phase, parallel
        longest = min(llm.config.block_size, config.batch_tokens)
        if isinstance(documents, str):
            raise DataError(f"{phase}: expected a list of documents, found one string")
        given = encoded(documents, llm.tokenizer)
        out = held_out_documents(len(given), config.val_fraction, config.seed, phase)
        samples, self.held_out = (cut(given.only(which), longest, config, phase)
                                  for which in (~out, out))
        self.too_long = both(samples.too_long, self.held_out.too_long)
        if not samples or (out.any() and not self.held_out):
            raise DataError(f"{phase}: no token of the {'held-out ' if samples else ''}documents "
                            "carries loss; give texts, or dialogues with answers")
        self.state = state = llm.training_state
        documents_digest = digest(samples, self.held_out, config)

        def plan(moving_cuts: bool) -> int:
            """Optimizer steps of all epochs."""
            self.epochs = Epochs(samples, llm.tokenizer, config, phase, longest,
                                 moving_cuts=moving_cuts)
            # Backwards, since the plan made last is kept and training begins with the first.
            return sum(self.epochs.steps(epoch) for epoch in reversed(range(config.epochs)))

        begun = state.phase == phase and state.documents == documents_digest
        moving = state.moving_cuts or not begun
        planned = plan(moving)
        if not self._begin(documents_digest, planned) and not moving:
            planned = plan(True)
        self.gradient = GradientSum(llm.gpt, parallel, self.optimizer.arena)
        parallel.require_same({"documents": documents_digest, "settings": self.config.to_dict(),
                               "step": self.state.step}, llm.gpt.arena.data)
        self.state.total_steps = planned
        self._last = min(planned, config.max_steps or planned)
        self._every = -(-self.state.total_steps // _HISTORY) or 1
        self._batches: Sequence[Batch] = []
        self._batches_of = -1
        # The last evaluation of this phase; only an unfinished one has any.
        self._val_loss = next((entry[3] for entry in reversed(self.state.history)
                               if self.state.best_loss is not None and entry[3] is not None), None)
        self._start = (self.state.step, self.state.tokens, self.state.seconds)

    def _begin(self, documents: str, planned: int) -> bool:
        """Take up the phase where the state stands (True), or start it with fresh moments."""
        llm, state = self.llm, self.state
        if self._reopens(documents, planned):
            state.done.remove(self.phase)
        # Weights alone do not make a phase exact again: without an optimizer it starts anew.
        resumed = (state.unfinished and state.phase == self.phase and bool(state.documents)
                   and (llm.optimizer is not None or not state.step))
        if resumed and documents != state.documents:
            raise DataError(
                f"{self.phase}: step {state.step} was reached with other documents (or another "
                "val_fraction, too_long, loss_on, seed, batch_tokens or join_dialogues); give the "
                "same ones, or start the phase anew with llm.training_state.begin(...)")
        imported = not resumed and _imported(llm, self.config)
        begun = begun_with(llm.optimizer) if resumed or imported else None
        config = self.config = self.config.settled(llm.config.n_embd, begun)
        optimizer = make_optimizer(llm.gpt, config, llm.optimizer,
                                   fresh=not (resumed or imported), base=llm.base)
        llm.base = ""               # the weights are about to change
        if not resumed:
            state.begin(self.phase)
            state.documents, state.moving_cuts = documents, True
            llm.best_weights = llm.average = None
        state.identify()
        optimizer.zero_grad()
        self.optimizer = llm.optimizer = optimizer
        if config.ema and llm.average is None:
            llm.average = optimizer.arena.data.copy()
        return resumed

    def _reopens(self, documents: str, planned: int) -> bool:
        """Whether a budget ended this very phase and there is more of it now.

        It then goes on exactly, since the schedule is that of all epochs whatever the budget. Not
        where a split is held out or an average is kept: the weights are then not the last ones.
        """
        state = self.state
        return (state.phase == self.phase in state.done and self.llm.optimizer is not None
                and state.documents == documents and state.step < state.total_steps == planned
                and not self.held_out and not self.config.ema and not self.reason())

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

    def agreed(self, stop: bool) -> str:
        """Why no step follows in any of the processes, or ""; the time is that of process 0."""
        asked = self.parallel.gather([float(stop), self.state.seconds])
        self.state.seconds = float(asked[0, 1])
        return self.reason() or ("interrupted" if asked[:, 0].any() else "")

    def step(self) -> Progress:
        """One optimizer step, and the evaluation where it ends an epoch."""
        began = time.perf_counter()
        state, config = self.state, self.config
        epoch = state.epoch
        if self._batches_of != epoch:
            self._batches, self._batches_of = self.epochs.batches(epoch), epoch
        group = self._batches[state.batch:state.batch + config.grad_accum]
        lr = schedule(state.step, lr=cast(float, config.lr), warmup=config.warmup,
                      total=config.schedule_steps or state.total_steps,
                      min_lr_ratio=config.min_lr_ratio, kind=config.schedule,
                      decay=config.decay_share)
        loss, counted, norm = self._update(group, lr)
        if state.batch == 0:
            state.loss_sum, state.loss_tokens = 0.0, 0
        state.loss_sum += loss * counted
        state.loss_tokens += counted
        state.step += 1
        state.tokens += sum(len(batch.ids) for batch in group)
        state.batch += len(group)
        if self.llm.average is not None:
            update_average(self.llm.average, self.optimizer, config.ema)
        if state.step % self._every == 0 or state.step == state.total_steps:
            state.history.append([self.phase, state.step, loss, None])
        if state.batch >= len(self._batches):
            state.epoch, state.batch = epoch + 1, 0
            if self.held_out:
                self._evaluate(loss)
        state.seconds += time.perf_counter() - began
        return self._progress(epoch + 1, loss, lr, norm)

    def _update(self, group: Sequence[Batch], lr: float) -> tuple[float, int, float]:
        """Forward, backward and AdamW over the micro-batches of one step.

        The gradient is the sum over all counted tokens of the group, divided by their number.
        Returns (mean loss over these tokens, their number, gradient norm before clipping).
        """
        gpt, config = self.llm.gpt, self.config
        counted = sum(batch.counted for batch in group)
        total = 0.0
        mine = share(group, config.grad_accum, self.parallel.rank, self.parallel.size)
        for left, (micro, first, batch) in zip(reversed(range(len(mine))), mine, strict=True):
            loss = gpt.forward(batch.ids, batch.targets, offsets=batch.offsets,
                               positions=batch.positions, dropout=config.dropout,
                               dropout_key=self._key(micro, first), scale=1.0 / counted,
                               label_smoothing=config.label_smoothing)
            self.gradient.add(last=not left)
            total += loss * batch.counted
        self.gradient.finish()
        total = float(self.parallel.summed(np.array([total]))[0])
        if not math.isfinite(total):
            raise self._diverged("loss", total, lr)
        norm = self.optimizer.step(lr=lr, clip=config.clip)
        if not math.isfinite(norm):
            raise self._diverged("gradient norm", norm, lr)
        return total / counted, counted, norm

    def _key(self, micro: int, first: int) -> int:
        """What names the dropout masks of a micro-batch, or of its part from token `first` on."""
        if not self.config.dropout:
            return 0
        source = bits(self.config.seed, self.phase, "dropout", self.state.step, micro,
                      *([first] if first else []))
        return int(source.random_raw()) >> 1

    def _diverged(self, what: str, value: float, lr: float) -> CgptError:
        """The error for a value that is not finite; the gradients of the step are dropped."""
        self.optimizer.zero_grad()
        return CgptError(
            f"{self.phase}: the {what} is {value} at step {self.state.step + 1} (learning rate "
            f"{lr:g}); this step was not applied and the model is as after step "
            f"{self.state.step}; lower the learning rate or clip the gradient", code="diverged")

    def _evaluate(self, loss: float) -> None:
        """Held-out loss after a step of training loss `loss`; keeps the best weights.

        Where an average of the weights is kept, it is what is evaluated.
        """
        with averaged(self.llm.average, self.optimizer) as data:
            total, counted = self.llm.summed_loss(self.held_out, self.parallel)
            self._record(loss, total / counted, data)

    def _record(self, loss: float, found: float, data: Floats) -> None:
        """Note a held-out loss of the weights `data`; keep them where they are the best."""
        state = self.state
        if not math.isfinite(found):
            raise CgptError(f"{self.phase}: the held-out loss is {found} after step {state.step}; "
                            "lower the learning rate or clip the gradient", code="diverged")
        self._val_loss = found
        entry = [self.phase, state.step, loss, found]
        if state.history and state.history[-1][:2] == entry[:2]:
            state.history[-1] = entry
        else:
            state.history.append(entry)
        if state.best_loss is None or found < state.best_loss:
            state.best_loss, state.best_step, state.bad_evals = found, state.step, 0
            if self.llm.best_weights is None:
                self.llm.best_weights = data.copy()
            else:
                np.copyto(self.llm.best_weights, data)
        else:
            state.bad_evals += 1

    def finish(self) -> None:
        """End the phase: evaluate where that is due, take the best weights or the averaged ones."""
        state, llm = self.state, self.llm
        if self.held_out and state.batch:
            self._evaluate(state.loss_sum / state.loss_tokens)
        final = llm.average if llm.best_weights is None else llm.best_weights
        if final is not None:
            replace_weights(self.optimizer, final)
        llm.best_weights = llm.average = None
        state.done.append(self.phase)

    def _progress(self, epoch: int, loss: float, lr: float, norm: float) -> Progress:
        state, config = self.state, self.config
        step, tokens, seconds = self._start
        spent = max(state.seconds - seconds, 1e-9)
        left = (self._last - state.step) * spent / (state.step - step)
        if config.max_minutes:
            left = max(0.0, min(left, 60 * config.max_minutes - state.seconds))
        return Progress(phase=self.phase, epoch=epoch, epochs=config.epochs, step=state.step,
                        steps=self._last, loss=loss, val_loss=self._val_loss, lr=lr,
                        grad_norm=norm, tokens=state.tokens,
                        tokens_per_second=(state.tokens - tokens) / spent,
                        seconds=state.seconds, seconds_left=left)

    def result(self, stopped: str) -> FitResult:
        """What fit returns."""
        state = self.state
        loss = state.loss_sum / state.loss_tokens if state.loss_tokens else None
        val_loss = self._val_loss if stopped == "interrupted" else state.best_loss
        return FitResult(steps=state.step, epochs=state.epoch, tokens=state.tokens, loss=loss,
                         val_loss=val_loss, stopped=stopped, seconds=state.seconds,
                         too_long=self.too_long)
