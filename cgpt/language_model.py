"""A language model with all that is trained and saved with it, and how far its training is."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from cgpt.config import GPTConfig
from cgpt.errors import ConfigError, DataError, shown
from cgpt.locale import N_
from cgpt.models.base import Model
from cgpt.models.inference import InferenceModel
from cgpt.models.quantized import require_trainable
from cgpt.optim.adamw import AdamW
from cgpt.runtime.interrupts import Operation
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.validation import expect, is_int, is_number

PHASES = (N_("pretrain"), N_("finetune"))


@dataclass
class TrainingState:
    """How far training is; with weights, m and v enough to resume bit for bit.

    phase         the phase begun last: "", "pretrain" or "finetune"
    done          phases that are finished
    epoch, batch  passes finished, micro-batches of the next one that are used up
    step          optimizer steps of the phase; total_steps: those of all its epochs
    tokens        tokens seen in the phase (those without loss included)
    seconds       spent on the phase's steps and evaluations
    loss_sum, loss_tokens  of the epoch under way (nats, counted tokens)
    best_loss     lowest held-out loss of the phase (nats per token), reached at best_step;
                  bad_evals: evaluations since then
    history       [phase, step, loss, held-out loss or None]; at most about 5000 per phase
    documents     digest of the phase's training tokens; resuming with others is refused
    moving_cuts   whether texts longer than the context are cut elsewhere in each epoch; a phase
                  that was begun without it continues without it
    warmup        steps of warm-up that the phase was begun with; None: by a version that kept none
    run           the RunConfig that started it ({} where there was none)
    data_fingerprint  of the files of that run
    run_id        random name of the training, made by its first step and kept by all that continues
                  from it; "" before that and in files of earlier versions. It says nothing about
                  the model, so states that differ in it alone are equal.
    """

    phase: str = ""
    done: list[str] = field(default_factory=list)
    epoch: int = 0
    batch: int = 0
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    best_loss: float | None = None
    best_step: int = 0
    bad_evals: int = 0
    history: list[list[Any]] = field(default_factory=list, repr=False)
    documents: str = ""
    moving_cuts: bool = False
    warmup: int | None = None
    run: dict[str, Any] = field(default_factory=dict, repr=False)
    data_fingerprint: str = ""
    run_id: str = field(default="", compare=False)

    def identify(self) -> str:
        """The run's identity, made now where it has none yet."""
        if not self.run_id:
            self.run_id = os.urandom(8).hex()
        return self.run_id

    @property
    def unfinished(self) -> bool:
        """True in the middle of a phase: training resumes there bit for bit."""
        return bool(self.phase) and self.phase not in self.done

    def phases_left(self) -> list[str]:
        """The phases of `run` that have data and epochs and are not done yet."""
        left = []
        for phase, paths in (("pretrain", "pretrain"), ("finetune", "chat")):
            train = self.run.get(f"{phase}_train")
            epochs = train.get("epochs") if isinstance(train, dict) else None
            if phase not in self.done and self.run.get(paths) and epochs != 0:
                left.append(phase)
        return left

    def begin(self, phase: str) -> None:
        """Start `phase` from its first step; an unfinished earlier phase counts as done."""
        vars(self).update(self.begun(phase))

    def begun(self, phase: str) -> dict[str, Any]:
        """The fields as `begin` leaves them."""
        done = [*self.done, *[self.phase] * (self.unfinished and self.phase != phase)]
        return vars(
            TrainingState(
                phase=phase,
                done=[name for name in done if name != phase],
                history=self.history,
                run=self.run,
                data_fingerprint=self.data_fingerprint,
                run_id=self.run_id,
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready, without run_id: two runs of the same training agree.

        moving_cuts and warmup are left out where they are not set, as by earlier versions.
        """
        values = asdict(self)
        del values["run_id"]
        if not self.moving_cuts:
            del values["moving_cuts"]
        if self.warmup is None:
            del values["warmup"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingState:
        """The state that `to_dict` described; missing fields take their defaults.

        Raises DataError naming an unknown field or one of a wrong type.
        """
        if not isinstance(values, dict):
            raise DataError(
                "training state: expected an object, found {type}", type=type(values).__name__
            )
        known = {one.name: one.type for one in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise DataError(
                    "training state: unknown field '{name}'; known: {known}",
                    name=name,
                    known=sorted(known),
                )
            if not _fits(value, str(known[name])):
                raise DataError(
                    "training state: {name} must be {type}, found {value}",
                    name=name,
                    type=known[name],
                    value=shown(value, 100),
                )
        state = cls(**values)
        if not all(_fits_history(entry) for entry in state.history):
            raise DataError(
                "training state: history must be a list of [phase, step, loss, "
                "held-out loss or null]"
            )
        return state


def _fits(value: Any, kind: str) -> bool:
    if kind == "int | None":
        return value is None or _fits(value, "int")
    if kind == "int":
        return is_int(value) and value >= 0
    if kind == "bool":
        return isinstance(value, bool)
    if kind.startswith("float"):
        return (is_number(value) and math.isfinite(value)) or (value is None and "None" in kind)
    if kind == "list[str]":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, {"str": str, "dict[str, Any]": dict}.get(kind, list))


def _fits_history(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 4
        and isinstance(entry[0], str)
        and _fits(entry[1], "int")
        and _fits(entry[2], "float")
        and _fits(entry[3], "float | None")
    )


class LanguageModel:
    """A tokenizer and a GPT that belong together, and how far they are trained.

    tokenizer       Tokenizer
    gpt             InferenceModel: a Model where it can be trained, which `trainable` gives; its
                    vocab_size is at least len(tokenizer)
    optimizer       AdamW or None; its m and v lie in gpt.arena
    training_state  TrainingState
    metadata        free JSON-ready dict that is saved along
    best_weights    (arena.size,) float32 or None: the best so far inside an unfinished phase with
                    a held-out split
    average         (arena.size,) float32 or None: the moving average of the weights inside an
                    unfinished phase that keeps one; files hold it as the weights
    base            the file that holds these weights, "" where none does: an adapter that is
                    trained on them names it
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        gpt: InferenceModel,
        optimizer: AdamW | None = None,
        training_state: TrainingState | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Raises ConfigError where the vocabulary is larger than the embedding, or an argument is
        of another type."""
        expect("LLM", tokenizer, Tokenizer, "a Tokenizer")
        expect("LLM", gpt, InferenceModel, "a GPT")
        expect("LLM", optimizer, (AdamW, type(None)), "an optimizer")
        expect("LLM", training_state, (TrainingState, type(None)), "a TrainingState")
        expect("LLM", metadata, (dict, type(None)), "a dictionary")
        if len(tokenizer) > gpt.config.vocab_size:
            raise ConfigError(
                "the tokenizer has {n} tokens and the model only {rows} embeddings; they "
                "do not belong together",
                n=len(tokenizer),
                rows=gpt.config.vocab_size,
            )
        self.tokenizer = tokenizer
        self.gpt = gpt
        self.optimizer = optimizer
        self.training_state = TrainingState() if training_state is None else training_state
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.best_weights: np.ndarray | None = None
        self.average: np.ndarray | None = None
        self.base = ""

    def __repr__(self) -> str:
        state = self.training_state
        trained = f", {state.phase} step {state.step}" if state.phase else ", untrained"
        return f"LLM({self.tokenizer!r}, {self.gpt!r}{trained})"

    @property
    def optimizer(self) -> AdamW | None:
        """What trains `gpt` and is saved with it. To set one that does not raises ConfigError."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: AdamW | None) -> None:
        if optimizer is not None:
            expect("LLM.optimizer", optimizer, AdamW, "an optimizer (cgpt.AdamW, cgpt.Muon)")
            optimizer.keep(self)
        self._optimizer = optimizer

    def changing_optimizer(self, optimizer: AdamW) -> list[Operation]:
        """The operations by which one that was made for this model takes the other's place."""
        return [*optimizer.taking_over(self), partial(setattr, self, "_optimizer", optimizer)]

    @property
    def trainable(self) -> Model:
        """`gpt`, to be trained. Raises ConfigError where its weights are float16 or int8."""
        return require_trainable(self.gpt)

    @property
    def config(self) -> GPTConfig:
        """Shape of the model."""
        return self.gpt.config

    @property
    def n_parameters(self) -> int:
        """Trainable numbers of the model."""
        return self.gpt.n_parameters

    @property
    def banned_ids(self) -> list[int]:
        """Ids that are never generated: special tokens except eos, and ids without a token."""
        specials = [i for i in self.tokenizer.special_ids if i != self.tokenizer.eos_id]
        return [*specials, *range(len(self.tokenizer), self.config.vocab_size)]
