"""LLM = tokenizer + GPT + training state: what is trained, saved, loaded and talked to."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cgpt.config import MOST, GPTConfig
from cgpt.corpus.batches import (
    Message,
    Sample,
    encode_prompt,
    packaged_data,
    packed,
    read_corpus,
    split_samples,
)
from cgpt.corpus.inputs import Document, as_documents, as_messages
from cgpt.errors import ConfigError, DataError, shown
from cgpt.evaluation.scoring import (
    BATCH_TOKENS,
    POOLINGS,
    embeddings,
    logprobs,
    sample_of,
    stride_of,
    windows,
)
from cgpt.generation.beam import Hypothesis
from cgpt.generation.generate import beam_search, decode, generate_batch
from cgpt.generation.options import (
    TOKENS,
    FurtherOptions,
    LimitOptions,
    SamplingOptions,
    TokenOptions,
    check_names,
    limit_of,
    read_options,
)
from cgpt.generation.prefix_cache import Prefixes
from cgpt.generation.results import Generation, Recorder
from cgpt.generation.sampling import GREEDY, SamplingConfig
from cgpt.generation.streaming import (
    Assembler,
    Piece,
    PieceStream,
    TextStream,
    pieces,
    stop_of,
    text_of,
)
from cgpt.models.base import Model
from cgpt.models.registry import family_of
from cgpt.nn.arena import Floats
from cgpt.nn.arrays import text_list
from cgpt.optim.adamw import AdamW
from cgpt.runtime.cancellation import Limit
from cgpt.runtime.interrupts import Operation
from cgpt.tokenizers.chat_template import template_of
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.data_parallel import ALONE, Alone, summed_loss
from cgpt.validation import check_bool, check_choice, check_int, expect

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

PHASES = ("pretrain", "finetune")
DEFAULT_PRESET = "small"
Prompt = str | Sequence[Message | Mapping[str, str]]  # text, or a dialogue's messages


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
    moving_cuts   whether texts longer than the context are cut elsewhere in each epoch; a phase
                  that was begun without goes on without
    warmup        steps of warm-up that the phase was begun with; None: by a version that kept none
    run           the RunConfig that started it ({} where there was none)
    data_fingerprint  of the files of that run
    run_id        random name of the training, made by its first step and kept by all that goes on
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
        """True in the middle of a phase: training goes on there to the bit."""
        return bool(self.phase) and self.phase not in self.done

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
            raise DataError(f"training state: expected an object, found {type(values).__name__}")
        known = {one.name: one.type for one in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise DataError(
                    f"training state: unknown field '{name}'; known: {', '.join(sorted(known))}"
                )
            if not _fits(value, str(known[name])):
                raise DataError(
                    f"training state: {name} must be {known[name]}, found {value!r:.100}"
                )
        state = cls(**values)
        if not all(_fits_history(entry) for entry in state.history):
            raise DataError(
                "training state: history must be a list of [phase, step, loss, "
                "held-out loss or null]"
            )
        return state


def _fits(value: Any, kind: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "int | None":
        return value is None or _fits(value, "int")
    if kind == "int":
        return number and isinstance(value, int) and value >= 0
    if kind == "bool":
        return isinstance(value, bool)
    if kind.startswith("float"):
        return (number and math.isfinite(value)) or (value is None and "None" in kind)
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


@dataclass(frozen=True, eq=False)
class Score:
    """Log-probabilities (nats) of a text under a model.

    text           what was scored, without the prompt
    ids            its tokens
    logprobs       (len(ids),) float32, each behind the prompt and the tokens before it
    total          their sum
    per_token      the sum over the number of tokens
    per_character  the sum over the number of characters
    """

    text: str
    ids: list[int]
    logprobs: Floats
    total: float
    per_token: float
    per_character: float

    @property
    def perplexity(self) -> float:
        """exp(-per_token), infinite where that is too large."""
        return math.exp(-self.per_token) if self.per_token > -700 else math.inf

    def __repr__(self) -> str:
        return (
            f"Score({shown(self.text, 40)}, {len(self.ids)} tokens, total={self.total:.4f}, "
            f"per_token={self.per_token:.4f})"
        )


class Continuation(Generation):
    """A text that a beam search found, with its score; its log-probabilities are the search's."""

    score: float

    def __new__(cls, text: str = "", score: float = 0.0, **more: Any) -> Self:
        self = super().__new__(cls, text, **more)
        self.score = score
        return self

    def to_dict(self) -> dict[str, Any]:
        """As Generation's, and the score."""
        return {**super().to_dict(), "score": self.score}


class LLM:
    """A tokenizer and a GPT that belong together, and how far they are trained.

    tokenizer       Tokenizer
    gpt             Model; its vocab_size is at least len(tokenizer)
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
        gpt: Model,
        optimizer: AdamW | None = None,
        training_state: TrainingState | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Raises ConfigError where the vocabulary is larger than the embedding, or an argument is
        of another type."""
        expect("LLM", tokenizer, Tokenizer, "a Tokenizer")
        expect("LLM", gpt, Model, "a GPT")
        expect("LLM", optimizer, (AdamW, type(None)), "an optimizer")
        expect("LLM", training_state, (TrainingState, type(None)), "a TrainingState")
        expect("LLM", metadata, (dict, type(None)), "a dictionary")
        if len(tokenizer) > gpt.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and the model only "
                f"{gpt.config.vocab_size} embeddings; they do not belong together"
            )
        self.tokenizer = tokenizer
        self.gpt = gpt
        self.optimizer = optimizer
        self.training_state = TrainingState() if training_state is None else training_state
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.best_weights: np.ndarray | None = None
        self.average: np.ndarray | None = None
        self.base = ""
        self._prefixes = Prefixes()

    def __repr__(self) -> str:
        state = self.training_state
        trained = f", {state.phase} step {state.step}" if state.phase else ", untrained"
        return f"LLM({self.tokenizer!r}, {self.gpt!r}{trained})"

    @classmethod
    def default(cls, seed: int = 0) -> LLM:
        """An untrained model of the default preset; its vocabulary is that of the packaged data."""
        corpus = read_corpus(packaged_data())
        return cls.from_texts(corpus.texts(), GPTConfig.preset(DEFAULT_PRESET), seed)

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], config: GPTConfig, seed: int = 0, kind: str = "words"
    ) -> LLM:
        """A vocabulary of at most config.vocab_size tokens learnt from `texts`, fresh weights.

        kind  of the vocabulary: "words", "chars" or "bpe"
        The model's vocab_size is the number of tokens learnt. Raises DataError where there is no
        text, ConfigError where vocab_size is too small for any.
        """
        expect("LLM.from_texts", config, GPTConfig, "a GPTConfig")
        return cls.fresh(Tokenizer.train(texts, config.vocab_size, kind), config, seed)

    @classmethod
    def fresh(cls, tokenizer: Tokenizer, config: GPTConfig, seed: int = 0) -> LLM:
        """Fresh weights for a vocabulary; the model's vocab_size becomes that of the tokenizer."""
        expect("LLM.fresh", tokenizer, Tokenizer, "a Tokenizer")
        expect("LLM.fresh", config, GPTConfig, "a GPTConfig")
        return cls(
            tokenizer,
            family_of(config).model(replace(config, vocab_size=len(tokenizer)), seed=seed),
        )

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

    def to_bytes(
        self, *, optimizer: bool = True, weights: str | None = None, group: int = 64
    ) -> bytes:
        """The bytes of the file that cgpt.save_model_binary makes, with the same arguments.

        Of an adapter's training it holds the model too. Raises as save_model_binary.
        """
        from cgpt.checkpoint.copies import to_bytes

        optimizer = check_bool("LLM.to_bytes", "optimizer", optimizer)
        return to_bytes(self, optimizer=optimizer, weights=weights, group=group)

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        training: bool = True,
        weights: str | None = None,
    ) -> LLM:
        """The model in the bytes of a model file of any kind; arguments and errors as cgpt.load."""
        from cgpt.checkpoint import load

        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ConfigError(f"LLM.from_bytes: expected bytes, found {shown(data)}")
        return load(data, training=training, weights=weights)

    def clone(self) -> LLM:
        """A copy that shares nothing with this one and trains on to the same bits.

        It has the tokenizer, weights, optimizer, training state and metadata, and gradients that no
        step has used yet. copy.deepcopy, copy.copy and pickle make the same copy; what they write
        is a model file and holds no code.
        """
        return deepcopy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        from cgpt.checkpoint.copies import reduced, restored

        return restored, reduced(self)

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

    def stream(
        self,
        text: str,
        max_new_tokens: int = GREEDY.max_new_tokens,
        temperature: float = GREEDY.temperature,
        **options: Unpack[FurtherOptions],
    ) -> TextStream:
        """The text that continues `text`, as it is generated; arguments and errors as `generate`.

        Nothing is done before the first piece is asked for. See TextStream for `result`, `read`
        and `close`.
        """
        return TextStream(
            *self._continued(
                "LLM.stream",
                text,
                GREEDY,
                {"max_new_tokens": max_new_tokens, "temperature": temperature, **options},
            )
        )

    def continuation(
        self, text: str, sampling: SamplingConfig = GREEDY, **options: Unpack[SamplingOptions]
    ) -> PieceStream:
        """The same as pieces with token ids and, where asked for, log-probabilities.

        sampling  what the options do not say
        """
        return PieceStream(*self._continued("LLM.continuation", text, sampling, options))

    def _continued(
        self, owner: str, text: str, base: SamplingConfig, options: Mapping[str, Any]
    ) -> tuple[Generator[Piece, None, None], Recorder, Limit]:
        """What a stream is made of."""
        request = read_options(owner, options, base)
        recorder = request.recorder()
        tokens = decode(
            self.gpt,
            self._prompt(text),
            request.of_tokens,
            recorder,
            stop=[self.tokenizer.eos_id],
            banned=self.banned_ids,
            processors=request.processors,
        )
        found = pieces(tokens, self.tokenizer, request.sampling.stop, recorder)
        return found, recorder, request.limit

    @overload  # a str is a sequence of str too, and is one text
    def generate(  # type: ignore[overload-overlap]
        self,
        text: str,
        max_new_tokens: int = GREEDY.max_new_tokens,
        temperature: float = GREEDY.temperature,
        **options: Unpack[FurtherOptions],
    ) -> Generation: ...

    @overload
    def generate(
        self,
        text: Sequence[str],
        max_new_tokens: int = GREEDY.max_new_tokens,
        temperature: float = GREEDY.temperature,
        **options: Unpack[FurtherOptions],
    ) -> list[Generation]: ...

    def generate(
        self,
        text: str | Sequence[str],
        max_new_tokens: int = GREEDY.max_new_tokens,
        temperature: float = GREEDY.temperature,
        **options: Unpack[FurtherOptions],
    ) -> Generation | list[Generation]:
        """The text that continues `text` (which is not repeated), up to eos; greedy by default.

        text     a list of texts gives the list of their continuations; text i has seed + i
        options  see SamplingOptions: the other fields of SamplingConfig; logprobs and top_logprobs;
                 cancel and timeout, which end it with what there is (finish_reason "cancelled");
                 logits_processors
        A Generation is a str that also has ids, finish_reason, usage and more. Of a text that is
        longer than the context its end is seen, which `dropped` tells.
        Raises ConfigError where an option is unknown, naming the nearest, or out of range.
        """
        values: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            **options,
        }
        if isinstance(text, str):
            return TextStream(*self._continued("LLM.generate", text, GREEDY, values)).read()
        request = read_options("LLM.generate", values, GREEDY)
        stop = request.sampling.stop
        prompts = [self._prompt(one) for one in text_list("LLM.generate", text)]
        recorders = [request.recorder() for _ in prompts]
        texts = [Assembler(self.tokenizer, stop) for _ in prompts]

        def given(row: int, token: int) -> bool:
            texts[row].push(token)
            if texts[row].stop is not None:
                recorders[row].end("stop", texts[row].stop)
            return texts[row].stop is not None

        rows = generate_batch(
            self.gpt,
            prompts,
            request.of_tokens,
            stop=[self.tokenizer.eos_id],
            banned=self.banned_ids,
            recorders=recorders,
            processors=request.processors,
            given=given if stop else None,
        )
        return [
            recorder.result(text_of(row, self.tokenizer, stop))
            for row, recorder in zip(rows, recorders, strict=True)
        ]

    def chat(
        self, messages: Sequence[Message | Mapping[str, Any]], **options: Unpack[SamplingOptions]
    ) -> Generation:
        """The answer to the last of `messages`, which is the user's.

        messages  [system] user assistant ... user, each {"role", "content"} or a Message; the role
                  "developer" counts as "system", a content may be a list of text parts
        options   see SamplingOptions; those of SamplingConfig have its defaults
        Nothing is remembered: each call brings the whole dialogue, and gets what a ChatSession
        would answer in which it was said. What has a beginning in common with an earlier call is
        not computed anew. Turns that the context has no room for are left out, the oldest first;
        `dropped` of the answer tells.
        Raises DataError naming the message that is wrong, ConfigError for an option that is unknown
        or out of range, or a system message that leaves too little room. Any number of threads
        may call it at once.
        """
        return self.chat_stream(messages, **options).read()

    def chat_stream(
        self, messages: Sequence[Message | Mapping[str, Any]], **options: Unpack[SamplingOptions]
    ) -> TextStream:
        """The same answer as it is generated; see TextStream for `result`, `read` and `close`."""
        from cgpt.chat.session import chat_stream

        return chat_stream(self, messages, options, self._prefixes)

    def beam_search(
        self, text: str, sampling: SamplingConfig, **options: Unpack[TokenOptions]
    ) -> list[Continuation]:
        """The `sampling.beam` best continuations of `text`, best first, without `text` itself.

        options  cancel and timeout, which end it with what it has found by then, and
                 logits_processors (see TokenOptions)
        A stop string cuts a text and leaves its score, which is that of all its tokens.
        """
        check_names("LLM.beam_search", options, TOKENS)
        request = read_options("LLM.beam_search", {"logprobs": True, **options}, sampling)
        recorder = request.recorder()
        recorder.begin()
        found = beam_search(
            self.gpt,
            self._prompt(text),
            request.of_tokens,
            [self.tokenizer.eos_id],
            self.banned_ids,
            recorder,
            processors=request.processors,
        )
        return [self._continuation(one, recorder, sampling.stop) for one in found]

    def _continuation(
        self, found: Hypothesis, recorder: Recorder, stop: Sequence[str]
    ) -> Continuation:
        """What a beam search found as a text; the recorder is that of the search."""
        text = text_of(found.ids, self.tokenizer, stop)
        ended_by = stop_of(found.ids, self.tokenizer, stop)
        same = vars(recorder.result(""))
        usage = replace(same["usage"], completion_tokens=len(found.ids))
        return Continuation(
            text,
            found.score,
            **{
                **same,
                "ids": found.ids,
                "logprobs": found.logprobs,
                "usage": usage,
                "stop": ended_by,
                "finish_reason": found.finish_reason if ended_by is None else "stop",
            },
        )

    def _prompt(self, text: str) -> list[int]:
        return [*template_of(self.tokenizer).start, *self.tokenizer.encode(text)]

    @overload
    def score(  # type: ignore[overload-overlap]    # a str is a sequence of str too
        self,
        text: str,
        prompt: Prompt | None = None,
        *,
        end: bool = False,
        stride: int | None = None,
        **options: Unpack[LimitOptions],
    ) -> Score: ...

    @overload
    def score(
        self,
        text: Sequence[str],
        prompt: Prompt | Sequence[Prompt] | None = None,
        *,
        end: bool = False,
        stride: int | None = None,
        **options: Unpack[LimitOptions],
    ) -> list[Score]: ...

    @overload
    def score(
        self,
        text: Sequence[tuple[Prompt, str]],
        prompt: None = None,
        *,
        end: bool = False,
        stride: int | None = None,
        **options: Unpack[LimitOptions],
    ) -> list[Score]: ...

    def score(
        self,
        text: Any,
        prompt: Any = None,
        *,
        end: bool = False,
        stride: int | None = None,
        **options: Unpack[LimitOptions],
    ) -> Score | list[Score]:
        """How likely the model finds `text` behind `prompt`: log-probabilities in nats.

        text    a text; or a list of texts, or of pairs (prompt, text), which gives their scores in
                order. Scores in a list agree with those by themselves to about 1e-5
        prompt  the text before it, which is encoded for itself and not scored, or the messages of
                a dialogue whose answer `text` is; one for all texts or a list with one for each.
                None: nothing, as a text that is learnt begins
        end     whether it should also end there, by eos
        stride  of the windows in which what is longer than the context is scored: a window of
                block_size tokens begins every `stride` tokens (half the context by default), so
                that every token follows at least block_size - stride others where there are as many
        options cancel and timeout, which end it between two batches
        Raises DataError for empty text, ConfigError for a stride out of range, CgptError (code
        "cancelled") where it is ended before all is scored.
        """
        limit = limit_of("LLM.score", options)
        texts, prompts, one = _texts_and_prompts(text, prompt)
        stride = stride_of("LLM.score", self.config, stride)
        end = check_bool("LLM.score", "end", end)
        tokens = [
            self._scored(*pair, number, end)
            for number, pair in enumerate(zip(texts, prompts, strict=True))
        ]
        found = [
            _score(text, list(ids[first:]), values)
            for text, (ids, first), values in zip(
                texts, tokens, logprobs(self.gpt, tokens, stride, limit), strict=True
            )
        ]
        return found[0] if one else found

    def _scored(self, text: str, prompt: Any, number: int, end: bool) -> tuple[list[int], int]:
        """(tokens of prompt and text, how many are the prompt's)."""
        template = template_of(self.tokenizer)
        if prompt is None:
            before = list(template.opening)
        elif isinstance(prompt, str):
            before = self._prompt(prompt)
        else:
            before = encode_prompt(self.tokenizer, as_messages("LLM.score", prompt))
        ids = [*before, *self.tokenizer.encode(text), *[self.tokenizer.eos_id] * end]
        first = len(before) or 1  # nothing predicts the very first token
        if len(ids) <= first:
            raise DataError(
                f"LLM.score: text {number} has no token to predict; give at least one "
                "character, or a prompt before it"
            )
        return ids, first

    def embed(
        self,
        texts: str | Iterable[str],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        stride: int | None = None,
        **options: Unpack[LimitOptions],
    ) -> Floats:
        """(n, C) float32: a vector for each of n texts; (C,) for one text by itself.

        pooling    "mean" of the final norm's output behind the text's tokens, or that behind the
                   "last" of them, which has seen all others
        normalize  whether each vector is scaled to length 1
        stride     of the windows in which a text longer than the context is read, as of `score`
        A text's vector agrees with that in another list to about 1e-5.
        options    cancel and timeout, which end it between two batches
        Raises DataError for an empty text, ConfigError for another pooling or a stride out of
        range, CgptError (code "cancelled") where it is ended before its end.
        """
        limit = limit_of("LLM.embed", options)
        stride = stride_of("LLM.embed", self.config, stride)
        pooling = check_choice("LLM.embed", "pooling", pooling, POOLINGS)
        normalize = check_bool("LLM.embed", "normalize", normalize)
        start, tokens = list(template_of(self.tokenizer).opening), []
        for number, text in enumerate(text_list("LLM.embed", texts)):
            ids = self.tokenizer.encode(text)
            if not ids:
                raise DataError(
                    f"LLM.embed: text {number} has no token; give at least one character"
                )
            tokens.append(([*start, *ids], len(start)))
        found = embeddings(self.gpt, tokens, pooling, stride, limit)
        if normalize:
            sizes = np.sqrt(np.square(found, dtype=np.float64).sum(axis=1, keepdims=True))
            found = (found / np.where(sizes > 0, sizes, 1)).astype(np.float32)
        vectors: Floats = found[0] if isinstance(texts, str) else found
        return vectors

    def samples(self, documents: Iterable[Document], longest: int = 0) -> list[Sample]:
        """Documents and dialogues as samples that carry loss, at most block_size tokens each.

        longest  a smaller bound on their tokens; 0 for none
        """
        longest = check_int("LLM.samples", "longest", longest, 0, MOST["block_size"])
        longest = min(longest or self.config.block_size, self.config.block_size)
        return split_samples(
            (sample_of(self.tokenizer, one) for one in as_documents("LLM.samples", documents)),
            longest,
        )

    def summed_loss(self, samples: Sequence[Sample], parallel: Alone = ALONE) -> tuple[float, int]:
        """(sum of the loss in nats, counted tokens) of the samples, which processes share."""
        batches = packed(samples, max(BATCH_TOKENS, self.config.block_size))
        return summed_loss(
            lambda batch: self.gpt.forward(
                batch.ids,
                batch.targets,
                offsets=batch.offsets,
                positions=batch.positions,
                backward=False,
            ),
            batches,
            parallel,
        )

    def loss(self, texts: Iterable[Document], *, stride: int | None = None) -> float:
        """Mean loss (nats a token, eos included) over all tokens of the texts that carry loss.

        texts   texts, dialogues or rows as files of data have them: {"messages": [...]}
        stride  of the windows in which what is longer than the context is measured, as of `score`
        Raises DataError where there are none or one is neither text nor dialogue, ConfigError for
        a stride out of range.
        """
        stride = stride_of("LLM.loss", self.config, stride)
        total, counted = self.summed_loss(
            [
                part
                for one in as_documents("LLM.loss", texts)
                for part in windows(sample_of(self.tokenizer, one), self.config.block_size, stride)
            ]
        )
        if not counted:
            raise DataError("LLM.loss: no text with a token to predict; give at least one")
        return total / counted


def _score(text: str, ids: list[int], values: Floats) -> Score:
    total = float(values.sum(dtype=np.float64))
    return Score(text, ids, values, total, total / len(ids), total / max(len(text), 1))


def _texts_and_prompts(text: Any, prompt: Any) -> tuple[list[str], list[Any], bool]:
    """(texts, a prompt for each, whether it is one text and no list). Raises DataError."""
    pairs = (
        isinstance(text, (list, tuple))
        and text
        and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in text)
    )
    prompts: list[Any] = []
    if pairs:
        if prompt is not None:
            raise DataError(
                "LLM.score: pairs (prompt, text) have their own prompts; leave prompt out"
            )
        prompts, text = [pair[0] for pair in text], [pair[1] for pair in text]
    texts = text_list("LLM.score", text)
    if not pairs:
        several = (
            not isinstance(text, str)
            and isinstance(prompt, (list, tuple))
            and not (prompt and all(isinstance(one, (Mapping, Message)) for one in prompt))
        )
        prompts = list(prompt or ()) if several else [prompt] * len(texts)
    if len(prompts) != len(texts):
        raise DataError(
            f"LLM.score: {len(prompts)} prompts for {len(texts)} texts; give one for "
            "all, or one for each"
        )
    return texts, prompts, isinstance(text, str)
