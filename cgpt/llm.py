"""LLM = tokenizer + GPT + training state: what is trained, saved, loaded and talked to."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cgpt.chat.session import chat_stream
from cgpt.checkpoint import loading
from cgpt.checkpoint.contents import LayerProgress
from cgpt.checkpoint.loading import Loadable
from cgpt.checkpoint.pickling import reduced, restored, to_bytes
from cgpt.config import MAX_BLOCK_SIZE, GPTConfig, SamplingConfig
from cgpt.corpus.encoding import Sample, encode_prompt
from cgpt.corpus.files import packaged_data
from cgpt.corpus.inputs import Document, as_documents, as_messages
from cgpt.corpus.packing import split_samples
from cgpt.corpus.reader import read_corpus
from cgpt.corpus.records import Message
from cgpt.errors import ConfigError, DataError, shown
from cgpt.evaluation.scoring import (
    POOLINGS,
    embeddings,
    logprobs,
    sample_of,
    stride_of,
    summed_loss,
    windows,
)
from cgpt.generation.beam import Hypothesis
from cgpt.generation.generate import beam_search, decode, generate_batch
from cgpt.generation.keywords import (
    TOKENS,
    FurtherOptions,
    LimitOptions,
    SamplingOptions,
    TokenOptions,
    check_option_names,
    limit_of,
    read_options,
)
from cgpt.generation.prefix_cache import PrefixCache
from cgpt.generation.results import Generation, Recorder
from cgpt.generation.sampling import GREEDY
from cgpt.generation.streaming import (
    Assembler,
    Piece,
    PieceStream,
    TextStream,
    pieces,
    stop_of,
    text_of,
)
from cgpt.language_model import LanguageModel
from cgpt.models.registry import family_of
from cgpt.nn.arrays import Floats
from cgpt.runtime.cancellation import Limit
from cgpt.runtime.forking import cached_property
from cgpt.runtime.process_group import SINGLE_PROCESS, SingleProcess
from cgpt.tokenizers.chat_template import template_of
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.validation import check_bool, check_choice, check_int, expect, text_list

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

DEFAULT_PRESET = "small"
Prompt = str | Sequence[Message | Mapping[str, str]]  # text, or a dialogue's messages


@dataclass(frozen=True, eq=False)
class Score:
    """Log-probabilities (nats) of a text under a model.

    text           what was scored, without the prompt
    ids            its tokens
    logprobs       (len(ids),) float32, each after the prompt and the tokens before it
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


class LLM(LanguageModel):
    """A tokenizer and a GPT that belong together, and how far they are trained.

    Its attributes are those of LanguageModel: tokenizer, gpt, optimizer, training_state, metadata,
    best_weights, average and base.
    """

    @cached_property
    def _prefixes(self) -> PrefixCache:
        return PrefixCache()

    @classmethod
    def of(cls, model: LanguageModel) -> LLM:
        """`model` as an LLM, which takes its place: they share all that it has."""
        llm = cls(model.tokenizer, model.gpt, model.optimizer, model.training_state, model.metadata)
        llm.best_weights, llm.average, llm.base = model.best_weights, model.average, model.base
        return llm

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

    def to_bytes(
        self, *, optimizer: bool = True, weights: str | None = None, group: int = 64
    ) -> bytes:
        """The bytes of the file that cgpt.save_model_binary makes, with the same arguments.

        For a model with an adapter it holds both. Raises as save_model_binary.
        """
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
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise ConfigError("LLM.from_bytes: expected bytes, found {value}", value=shown(data))
        return cls.of(loading.load(data, training=training, weights=weights))

    def clone(self) -> LLM:
        """A copy that shares nothing with this one and trains on to the same bits.

        It has the tokenizer, weights, optimizer, training state and metadata, and gradients that no
        step has used yet. copy.deepcopy, copy.copy and pickle make the same copy; what they write
        is a model file and holds no code.
        """
        return deepcopy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, reduced(self)

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
        not computed again. Turns that the context has no room for are left out, the oldest first;
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
        return chat_stream(self, messages, options, self._prefixes)

    def beam_search(
        self, text: str, sampling: SamplingConfig, **options: Unpack[TokenOptions]
    ) -> list[Continuation]:
        """The `sampling.beam` best continuations of `text`, best first, without `text` itself.

        options  cancel and timeout, which end it with what it has found by then, and
                 logits_processors (see TokenOptions)
        A stop string cuts a text and leaves its score, which is that of all its tokens.
        """
        check_option_names("LLM.beam_search", options, TOKENS)
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
        """How likely the model finds `text` after `prompt`: log-probabilities in nats.

        text    a text; or a list of texts, or of pairs (prompt, text), which gives their scores in
                order. Scores in a list agree with those by themselves to about 1e-5
        prompt  the text before it, which is encoded separately and not scored, or the messages of
                a dialogue whose answer `text` is; one for all texts or a list with one for each.
                None: nothing, as a text that is trained on begins
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
                "LLM.score: text {n} has no token to predict; give at least one character, "
                "or a prompt before it",
                n=number,
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

        pooling    "mean" of the final norm's output after the text's tokens, or that after the
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
                    "LLM.embed: text {n} has no token; give at least one character", n=number
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
        longest = check_int("LLM.samples", "longest", longest, 0, MAX_BLOCK_SIZE)
        longest = min(longest or self.config.block_size, self.config.block_size)
        return split_samples(
            (sample_of(self.tokenizer, one) for one in as_documents("LLM.samples", documents)),
            longest,
        )

    def summed_loss(
        self, samples: Sequence[Sample], processes: SingleProcess = SINGLE_PROCESS
    ) -> tuple[float, int]:
        """(sum of the loss in nats, counted tokens) of the samples, which processes share."""
        return summed_loss(self.gpt, samples, processes)

    def loss(self, texts: Iterable[Document], *, stride: int | None = None) -> float:
        """Mean loss (nats per token, eos included) over all tokens of the texts that carry loss.

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


def load(
    source: Loadable,
    *,
    training: bool = True,
    progress: LayerProgress | None = None,
    weights: str | None = None,
) -> LLM:
    """Load whatever can be loaded, told by its content and not by its name.

    source    a path, bytes, or a binary file object, which is read from where it stands: a cgpt
              model in either format, a LoRA adapter, or a JSON export of RustGPT-Chinese
    training  True: weights may be written, optimizer and best weights are loaded where they were
              saved. False, for chat: weights are read-only, and the rest of the training's arrays
              is left alone
    weights   the form that the model's matrices are to have: "float32", "float16" or "int8". By
              default that of the file; a model that is loaded for training has float32 only
    progress  called once per layer as progress(i, n, LayerRecord), i from 1 to n
    Everything that is read is checked before it is used.
    Raises CheckpointError with code missing, damaged, version or foreign.
    """
    return LLM.of(loading.load(source, training=training, progress=progress, weights=weights))


def load_model_auto(
    path: Loadable,
    *,
    training: bool = True,
    progress: LayerProgress | None = None,
    weights: str | None = None,
) -> LLM:
    """The same as `load`."""
    return load(path, training=training, progress=progress, weights=weights)


def load_model_binary(
    path: Loadable,
    *,
    training: bool = True,
    progress: LayerProgress | None = None,
    weights: str | None = None,
) -> LLM:
    """Load a model in the binary format; arguments, promises and errors as `load`."""
    return LLM.of(
        loading.load(path, training=training, progress=progress, weights=weights, kind="binary")
    )


def load_model_json(
    path: Loadable,
    *,
    training: bool = True,
    progress: LayerProgress | None = None,
    weights: str | None = None,
) -> LLM:
    """Load a model in JSON; arguments, promises and errors as `load`."""
    return LLM.of(
        loading.load(path, training=training, progress=progress, weights=weights, kind="json")
    )


def load_weights(path: Loadable) -> LLM:
    """A whole model to begin a training with: its vocabulary, and weights that may be written.

    Of the training that it had, and of its metadata, nothing is left.
    Raises CheckpointError as `load` does, and where the file holds an adapter.
    """
    return LLM.of(loading.load_weights(path))


def load_with_adapter(model: Loadable, adapter: Loadable, *, training: bool = True) -> LLM:
    """The model of one file with the LoRA adapter of another, which may name another place.

    training  False merges the adapter into the weights
    Raises CheckpointError where one of the files cannot be read, or the adapter was trained on
    another model.
    """
    return LLM.of(loading.load_with_adapter(model, adapter, training=training))


def _restored(data: bytes, state: dict[str, Any]) -> LLM:
    """For pickle and copy."""
    return LLM.of(restored(data, state))


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
            "LLM.score: {prompts} prompts for {texts} texts; give one for all, or one for each",
            prompts=len(prompts),
            texts=len(texts),
        )
    return texts, prompts, isinstance(text, str)
