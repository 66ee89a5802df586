"""LLM = tokenizer + GPT + training state: what is trained, saved, loaded and talked to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from cgpt.config import GPTConfig
from cgpt.data import (
    Dialogue,
    Sample,
    encode_dialogue,
    encode_document,
    pack,
    packaged_data,
    read_corpus,
    split_samples,
)
from cgpt.errors import ConfigError, DataError
from cgpt.model import GPT
from cgpt.optim import AdamW
from cgpt.tokenizer import SPECIAL_TOKENS, Tokenizer

PHASES = ("pretrain", "finetune")
DEFAULT_PRESET = "small"
_EVALUATION_TOKENS = 4096       # of one batch where only a loss is asked for


@dataclass
class TrainingState:
    """Where training stands; with weights, m and v enough to go on to the bit.

    phase         the phase begun last: "", "pretrain" or "finetune"
    done          phases that are finished
    epoch, batch  passes finished, micro-batches of the next one that are used up
    step          optimizer steps of the phase; total_steps: those of all its epochs
    tokens        tokens seen in the phase (those without loss included)
    seconds       spent on the phase's steps and evaluations
    loss_sum, loss_tokens  of the epoch under way (nats, counted tokens)
    best_loss     lowest held-out loss of the phase (nats a token), reached at best_step;
                  bad_evals: evaluations since then
    history       [phase, step, loss, held-out loss or None]; at most about 5000 a phase
    documents     digest of the phase's training tokens; resuming with others is refused
    run           the RunConfig that started it ({} where there was none)
    data_fingerprint  of the files of that run
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
    history: list[list[Any]] = field(default_factory=list)
    documents: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""

    @property
    def unfinished(self) -> bool:
        """True in the middle of a phase: training goes on there to the bit."""
        return bool(self.phase) and self.phase not in self.done

    def begin(self, phase: str) -> None:
        """Start `phase` from its first step; an unfinished earlier phase counts as done."""
        if self.unfinished and self.phase != phase:
            self.done.append(self.phase)
        fresh = TrainingState(phase=phase, done=[name for name in self.done if name != phase],
                              history=self.history, run=self.run,
                              data_fingerprint=self.data_fingerprint)
        self.__dict__.update(fresh.__dict__)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingState:
        """The state that `to_dict` described; missing fields take their defaults.

        Raises DataError naming an unknown field or one of a wrong type.
        """
        if not isinstance(values, dict):
            raise DataError(f"training state: expected an object, found {type(values).__name__}")
        known = {one.name: one.type for one in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise DataError(f"training state: unknown field '{name}'; "
                                f"known: {', '.join(sorted(known))}")
            if not _fits(value, str(known[name])):
                raise DataError(f"training state: {name} must be {known[name]}, "
                                f"found {value!r:.100}")
        state = cls(**values)
        if not all(_fits_history(entry) for entry in state.history):
            raise DataError("training state: history must be a list of [phase, step, loss, "
                            "held-out loss or null]")
        return state


def _fits(value: Any, kind: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "int":
        return number and isinstance(value, int) and value >= 0
    if kind.startswith("float"):
        return (number and math.isfinite(value)) or (value is None and "None" in kind)
    if kind == "list[str]":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, {"str": str, "dict[str, Any]": dict}.get(kind, list))


def _fits_history(entry: Any) -> bool:
    return (isinstance(entry, list) and len(entry) == 4 and isinstance(entry[0], str)
            and _fits(entry[1], "int") and _fits(entry[2], "float")
            and _fits(entry[3], "float | None"))


class LLM:
    """A tokenizer and a GPT that belong together, and how far they are trained.

    tokenizer       Tokenizer
    gpt             GPT; its vocab_size is at least len(tokenizer)
    optimizer       AdamW or None; its m and v lie in gpt.arena
    training_state  TrainingState
    metadata        free JSON-ready dict that is saved along
    best_weights    (arena.size,) float32 or None: the best so far inside an unfinished phase with
                    a held-out split
    """

    def __init__(self, tokenizer: Tokenizer, gpt: GPT, optimizer: AdamW | None = None,
                 training_state: TrainingState | None = None,
                 metadata: dict[str, Any] | None = None) -> None:
        """Raises ConfigError where the vocabulary is larger than the embedding."""
        if len(tokenizer) > gpt.config.vocab_size:
            raise ConfigError(f"the tokenizer has {len(tokenizer)} tokens and the model only "
                              f"{gpt.config.vocab_size} embeddings; they do not belong together")
        self.tokenizer = tokenizer
        self.gpt = gpt
        self.optimizer = optimizer
        self.training_state = TrainingState() if training_state is None else training_state
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.best_weights: np.ndarray | None = None

    @classmethod
    def default(cls, seed: int = 0) -> LLM:
        """An untrained model of the default preset; its vocabulary is that of the packaged data."""
        corpus = read_corpus(packaged_data())
        return cls.from_texts(corpus.texts(), GPTConfig.preset(DEFAULT_PRESET), seed)

    @classmethod
    def from_texts(cls, texts: Iterable[str], config: GPTConfig, seed: int = 0) -> LLM:
        """A vocabulary of at most config.vocab_size tokens learnt from `texts`, fresh weights.

        The model's vocab_size is the number of tokens learnt. Raises DataError where there is no
        text, ConfigError where vocab_size is too small for any.
        """
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        return cls(tokenizer, GPT(replace(config, vocab_size=len(tokenizer)), seed=seed))

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
        specials = [i for i in range(len(SPECIAL_TOKENS)) if i != self.tokenizer.eos_id]
        return [*specials, *range(len(self.tokenizer), self.config.vocab_size)]

    def stream(self, text: str, max_new_tokens: int = 40, temperature: float = 0.0, *,
               top_k: int = 0, top_p: float = 1.0, repetition_penalty: float = 1.0,
               seed: int | None = None, beam: int = 1) -> Iterator[str]:
        """Pieces of the text that continues `text`, whole characters only; ends at eos.

        Raises ConfigError where an option is out of range.
        """
        from cgpt.generate import SamplingConfig, generate_tokens
        sampling = SamplingConfig(temperature, top_k, top_p, repetition_penalty, max_new_tokens,
                                  seed, beam)
        ids = [self.tokenizer.bos_id, *self.tokenizer.encode(text)]
        tokens = generate_tokens(self.gpt, ids, sampling, stop=[self.tokenizer.eos_id],
                                 banned=self.banned_ids)
        return self._decode(tokens)

    def generate(self, text: str, max_new_tokens: int = 40, temperature: float = 0.0, *,
                 top_k: int = 0, top_p: float = 1.0, repetition_penalty: float = 1.0,
                 seed: int | None = None, beam: int = 1) -> str:
        """The text that continues `text` (which is not repeated), up to eos; greedy by default.

        Raises ConfigError where an option is out of range.
        """
        return "".join(self.stream(text, max_new_tokens, temperature, top_k=top_k, top_p=top_p,
                                   repetition_penalty=repetition_penalty, seed=seed, beam=beam))

    def _decode(self, tokens: Iterator[int]) -> Iterator[str]:
        decoder = self.tokenizer.decoder()
        for token in tokens:
            if piece := decoder.push(token):
                yield piece
        if piece := decoder.flush():
            yield piece

    def samples(self, documents: Iterable[str | Dialogue], longest: int = 0) -> list[Sample]:
        """Documents and dialogues as samples that carry loss, at most block_size tokens each.

        longest  a smaller bound on their tokens; 0 for none
        """
        found = [encode_document(self.tokenizer, one) if isinstance(one, str)
                 else encode_dialogue(self.tokenizer, one) for one in documents]
        longest = min(longest or self.config.block_size, self.config.block_size)
        return split_samples(found, longest)

    def summed_loss(self, samples: Sequence[Sample]) -> tuple[float, int]:
        """(sum of the loss in nats, counted tokens) of the samples."""
        total, counted = 0.0, 0
        for batch in pack(samples, max(_EVALUATION_TOKENS, self.config.block_size)):
            loss = self.gpt.forward(batch.ids, batch.targets, offsets=batch.offsets,
                                    positions=batch.positions, backward=False)
            total += loss * batch.counted
            counted += batch.counted
        return total, counted

    def loss(self, texts: Iterable[str | Dialogue]) -> float:
        """Mean loss (nats a token, eos included) over all tokens of the texts that carry loss.

        Raises DataError where there are none.
        """
        if isinstance(texts, str):
            raise DataError("LLM.loss: expected a list of texts, found one string")
        total, counted = self.summed_loss(self.samples(texts))
        if not counted:
            raise DataError("LLM.loss: no text with a token to predict; give at least one")
        return total / counted
