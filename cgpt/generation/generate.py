"""From a prompt to new tokens: one prompt streamed, several at once, or by beam search.

A full context keeps its last half: the tail is inferred again and generation goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from cgpt.config import SamplingConfig
from cgpt.errors import ConfigError, DataError, shown
from cgpt.generation.batch import steps
from cgpt.generation.beam import Hypothesis, search
from cgpt.generation.context import Context
from cgpt.generation.keywords import TOKENS, TokenOptions, limit_of, read_processors
from cgpt.generation.results import Dropped, Noted, Recorder, Token
from cgpt.generation.sampling import LogitsProcessor, Sampler, noted_token
from cgpt.nn.arrays import Floats, Ints, expect_ids
from cgpt.nn.decoder import SampleRequest
from cgpt.nn.inference import Inference
from cgpt.nn.kv_cache import KVCache
from cgpt.runtime.cancellation import Cancelled, Limit
from cgpt.validation import check_int, expect

if TYPE_CHECKING:
    from typing_extensions import Unpack

Prompt = Sequence[int] | np.ndarray
Rows = Sequence[Floats] | Floats  # logits (V,) each

_TOGETHER = 64  # prompts of a batch that are held at once
_LONGEST, _SHORTEST = 3, 2  # tokens in a row by which a draft is looked up


@overload
def generate_tokens(
    gpt: Inference,
    ids: Sequence[int] | Ints,
    sampling: SamplingConfig | None = None,
    *,
    cache: KVCache | None = None,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    **options: Unpack[TokenOptions],
) -> Generator[int, None, None]: ...


@overload
def generate_tokens(
    gpt: Inference,
    ids: Sequence[Sequence[int] | Ints],
    sampling: SamplingConfig | None = None,
    *,
    cache: None = None,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    **options: Unpack[TokenOptions],
) -> list[list[int]]: ...


def generate_tokens(
    gpt: Inference,
    ids: Any,
    sampling: SamplingConfig | None = None,
    *,
    cache: KVCache | None = None,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    **options: Unpack[TokenOptions],
) -> Generator[int, None, None] | list[list[int]]:
    """Stream the tokens that follow `ids`; a token of `stop` ends them and is not given.

    ids      (n,) at least one; of more than block_size the last block_size are used. A list of
             such prompts, of any lengths, gives the list of their continuations at once
    cache    holds the first cache.length of ids (a new one by default); only the rest is inferred
    banned   ids that are never chosen
    options  cancel and timeout, which end it early, and logits_processors (see TokenOptions)
    Raises ConfigError or DataError at once, not with the first token.
    """
    owner, sampling = "generate_tokens", SamplingConfig() if sampling is None else sampling
    expect(owner, gpt, Inference, "a GPT")
    expect(owner, sampling, SamplingConfig, "a SamplingConfig")
    expect(owner, cache, (KVCache, type(None)), "a KVCache")
    stop, banned = token_ids(owner, "stop", stop), token_ids(owner, "banned", banned)
    limit, processors = token_options(owner, options)
    if not _is_batch(ids):
        return _ids_of(
            decode(
                gpt,
                ids,
                sampling,
                Recorder(limit),
                cache=cache,
                stop=stop,
                banned=banned,
                processors=processors,
            )
        )
    if cache is not None:
        raise ConfigError(
            "generate_tokens: a cache holds one sequence, found several prompts; leave it out"
        )
    recorders = [Recorder(limit) for _ in ids]
    return generate_batch(
        gpt, ids, sampling, stop=stop, banned=banned, recorders=recorders, processors=processors
    )


def token_ids(owner: str, name: str, ids: Iterable[int]) -> list[int]:
    """Token ids as plain int. Raises ConfigError for what are none."""
    if isinstance(ids, (str, bytes, Mapping)) or not isinstance(ids, Iterable):
        raise ConfigError(
            "{owner}: expected a list of token ids for {name}, found {value}",
            owner=owner,
            name=name,
            value=shown(ids),
        )
    return [check_int(owner, name, one, -1 << 62, 1 << 62) for one in ids]  # see Sampler


def token_options(
    owner: str, options: TokenOptions
) -> tuple[Limit | None, tuple[LogitsProcessor, ...]]:
    """What ends a call with these options early, None where nothing does, and the processors.

    Raises ConfigError for other options and for what cannot be one.
    """
    return limit_of(owner, options, TOKENS), read_processors(owner, options)


def _ids_of(tokens: Generator[Token, None, None]) -> Generator[int, None, None]:
    try:
        for token in tokens:
            yield token.id
    finally:
        tokens.close()


def _is_batch(ids: Any) -> bool:
    return (
        isinstance(ids, (list, tuple, np.ndarray))
        and len(ids) > 0
        and (isinstance(ids[0], (list, tuple, np.ndarray)) and np.ndim(ids[0]) == 1)
    )


def generate_batch(
    gpt: Inference,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    *,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    processors: Sequence[LogitsProcessor] = (),
    recorders: Sequence[Recorder] = (),
    given: Callable[[int, int], bool] | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, each up to its own end; prompt i has seed + i.

    recorders  one for each prompt, with the same limit: note its tokens
    given      called as given(row, token) for each token, in order within its row; True ends the
               row after it
    Errors as generate_tokens, for all prompts before the first token.
    """
    recorders = recorders or [Recorder() for _ in prompts]
    if sampling.beam > 1 or sampling.speculate:
        streams = _streams(
            gpt,
            prompts,
            sampling,
            recorders,
            stop=list(stop),
            banned=list(banned),
            processors=processors,
        )
        for row, (stream, recorder) in enumerate(zip(streams, recorders, strict=True)):
            recorder.begin()
            for token in stream:
                recorder.add(token)
                if given is not None and given(row, token.id):
                    stream.close()
                    break
        return [recorder.ids for recorder in recorders]
    for recorder in recorders:
        recorder.begin()
    ids, samplers, ends = _rows(gpt, prompts, sampling, stop, banned, processors)
    for first in range(0, len(ids), _TOGETHER):
        part, ended = slice(first, first + _TOGETHER), set[int]()
        for step in steps(gpt, ids[part], samplers[part], ends, ended, recorders[part]):
            if given is not None:
                ended.update(row for row, token in step if given(first + row, token))
    return [recorder.ids for recorder in recorders]


def _rows(
    gpt: Inference,
    prompts: Iterable[Prompt],
    sampling: SamplingConfig,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    processors: Sequence[LogitsProcessor] = (),
) -> tuple[list[list[int]], list[Sampler], frozenset[int]]:
    """The prompts, checked, a sampler for each (prompt i has seed + i) and the ids that end."""
    sampling, ends, banned = _without_texts(sampling), frozenset(stop), list(banned)
    ids = [_check_ids(gpt, prompt) for prompt in prompts]
    samplers = [
        Sampler(replace(sampling, seed=seed), gpt.config.vocab_size, banned, ends, processors)
        for _, seed in zip(ids, _seeds(sampling), strict=False)
    ]
    return ids, samplers, ends


def stream_rows(
    gpt: Inference,
    prompts: Ints,
    sampling: SamplingConfig,
    limit: Limit | None = None,
    processors: Sequence[LogitsProcessor] = (),
) -> Generator[int | Ints, None, None]:
    """The tokens that follow prompts (T,) one by one, or as arrays (B,) for prompts (B, T).

    Row i of a batch has seed + i. Errors as generate_tokens.
    """
    if prompts.ndim != 2 or not len(prompts):
        return _ids_of(decode(gpt, prompts, sampling, Recorder(limit), processors=processors))
    rows_of = _rows(gpt, prompts, sampling, processors=processors)
    found = steps(gpt, *rows_of, set(), limit=limit)
    return (np.array([token for _, token in step], np.int32) for step in found)


def _streams(
    gpt: Inference,
    prompts: Iterable[Prompt],
    sampling: SamplingConfig,
    recorders: Iterable[Recorder],
    **named: Any,
) -> list[Generator[Token, None, None]]:
    """One stream a prompt; prompt i has seed + i."""
    return [
        decode(gpt, prompt, replace(sampling, seed=seed), recorder, **named)
        for prompt, recorder, seed in zip(prompts, recorders, _seeds(sampling), strict=False)
    ]


def _seeds(sampling: SamplingConfig) -> Iterator[int | None]:
    return (None if sampling.seed is None else sampling.seed + i for i in count())


def beam_search(
    gpt: Inference,
    ids: Prompt,
    sampling: SamplingConfig,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    recorder: Recorder | None = None,
    *,
    cache: KVCache | None = None,
    processors: Sequence[LogitsProcessor] = (),
) -> list[Hypothesis]:
    """The best `sampling.beam` continuations of `ids`, best first.

    recorder  notes what was fed, and ends the search where its limit is reached: what it had found
              by then is given
    Arguments and errors as generate_tokens; neither the prompt nor the stop token is repeated.
    """
    ids = _check_ids(gpt, ids)
    ends = frozenset(stop)
    sampler = Sampler(_without_texts(sampling), gpt.config.vocab_size, banned, ends, processors)
    return search(gpt, ids, sampler, ends, recorder, cache=cache)


def decode(
    gpt: Inference,
    ids: Prompt,
    sampling: SamplingConfig,
    recorder: Recorder | None = None,
    *,
    cache: KVCache | None = None,
    stop: Iterable[int] = (),
    banned: Iterable[int] = (),
    processors: Sequence[LogitsProcessor] = (),
) -> Generator[Token, None, None]:
    """The tokens that follow one prompt, with what `recorder` wants to be noted of them.

    A log-probability is the model's own, before penalties and temperature; in a beam search it is
    the search's. Arguments and errors as generate_tokens.
    """
    recorder = Recorder() if recorder is None else recorder
    prompt, ends = _check_ids(gpt, ids), frozenset(stop)
    sampler = Sampler(_without_texts(sampling), gpt.config.vocab_size, banned, ends, processors)
    if sampling.beam > 1:
        return _best(gpt, prompt, sampler, recorder, ends, cache)
    context = Context(gpt, cache, prompt)
    kept = prompt[-context.capacity :]
    recorder.dropped = Dropped(len(prompt) - len(kept))
    return decode_stream(context, kept, sampler, ends, recorder)


def _best(
    gpt: Inference,
    prompt: list[int],
    sampler: Sampler,
    recorder: Recorder,
    ends: frozenset[int],
    cache: KVCache | None,
) -> Generator[Token, None, None]:
    """The tokens of the best hypothesis of a beam search."""
    recorder.begin()
    best = search(gpt, prompt, sampler, ends, recorder, cache=cache)[0]
    yield from tokens_of(best, recorder)


def tokens_of(best: Hypothesis, recorder: Recorder) -> Generator[Token, None, None]:
    """The tokens that a beam search found; the recorder is told why they end."""
    for token, value in zip(best.ids, best.logprobs, strict=True):
        yield Token(token, value if recorder.noted else None)
    recorder.end(best.finish_reason)


def decode_stream(
    context: Context,
    prompt: Sequence[int],
    sampler: Sampler,
    ends: frozenset[int],
    recorder: Recorder | None = None,
    *,
    make_room: Callable[[list[int]], list[int]] | None = None,
) -> Generator[Token, None, None]:
    """Feed `prompt` to the context and stream what follows, up to a token of `ends`.

    recorder   says what is noted of each token and what ends it early; why it ended is noted there
    make_room  called with the new tokens so far where the context is full; what it returns, which
               ends in the last of them, becomes the context. By default the last half is kept
    With `speculate`, tokens that followed the same words before are inferred along with the one
    that was picked. Every token is picked from the logits behind those that were picked before
    it, and a draft only saves passes for as long as it is what is picked: so the tokens are those
    picked one by one, drawn from the same distribution with the same numbers.
    Source: Leviathan et al. 2023, arXiv:2211.17192, for checking guesses in one pass.
    """
    recorder = Recorder() if recorder is None else recorder
    most, answer = sampler.sampling.max_new_tokens, list[int]()
    limit, noted = recorder.limit, recorder.noted or None
    recorder.begin_prompt(len(prompt), context.common(prompt))
    if not most:
        return recorder.end("length")
    # known: what of the context is picked, not guessed
    known, request, row, draft = len(prompt), sampler.request(1), 0, list[int]()
    try:  # rows: the logits behind the last pick, and behind each token of the draft
        rows: Rows = context.feed(prompt, request, limit)[None]
        while limit is None or not limit.reached():
            if (token := sampler.pick(rows[row], context.seen(known), request, row)) in ends:
                return recorder.end("stop")
            answer.append(token)
            yield Token(token) if noted is None else noted_token(token, rows[row], noted)
            left = most - len(answer)
            if not left:
                return recorder.end("length")
            if row < len(draft) and token == draft[row]:
                row, known = row + 1, known + 1
                continue
            context.truncate(known)
            if known < context.capacity:
                room = min(left, context.capacity - known)
                rows, draft, request = _extended(context, token, sampler, room, noted)
                row, known = 0, known + 1
            else:
                kept = make_room(answer) if make_room else context.last_half(token)
                recorder.later += known + 1 - len(kept)
                request, known = sampler.request(1), len(kept)
                rows, row, draft = context.feed(kept, request, limit)[None], 0, []
    except Cancelled:
        pass
    finally:
        context.truncate(known)


def _extended(
    context: Context, token: int, sampler: Sampler, room: int, noted: Noted | None
) -> tuple[Rows, list[int], SampleRequest | None]:
    """Append `token` and, as far as they are picked or guessed, those that follow: `room` at most.

    (logits behind each, the tokens that follow, what was picked behind each). Where nothing needs
    to be looked at in between, several are picked in one call, and the logits are the last one's.
    """
    sampling, n = sampler.sampling, min(room, context.gpt.decoder.run_length)
    if n > 1 and not (sampling.speculate or sampler.has_logit_processors or noted):
        request = sampler.request(n)
        assert request is not None
        return [context.decode_n(token, request)] * n, request.tokens[:-1].tolist(), request
    guesses = min(sampling.speculate, room - 1)
    draft = prompt_lookup_draft(context.seen(len(context)), token, guesses) if guesses else []
    request = sampler.request(1 + len(draft))
    return context.extend([token, *draft], request), draft, request


def prompt_lookup_draft(seen: Ints, token: int, most: int) -> list[int]:
    """Up to `most` tokens that may follow `seen` and `token`: what followed their end before.

    The latest earlier place of the last three tokens is taken, else of the last two; where what
    follows there reaches the end, it is repeated from there. None where there is no such place.
    Source: Saxena 2023, "Prompt Lookup Decoding".
    """
    data = seen.tobytes() + np.int32(token).tobytes()
    for n in range(_LONGEST, _SHORTEST - 1, -1):
        place = _last_place(data[:-4], data[-4 * n :]) if len(data) > 4 * n else -1
        if place >= 0:
            span = np.frombuffer(data, np.int32)[place + n : place + n + most].tolist()
            return [span[i % len(span)] for i in range(most)]
    return []


def _last_place(data: bytes, part: bytes) -> int:
    """The last index of int32 numbers at which `part` begins in `data`; -1 for none."""
    place = data.rfind(part)
    while place >= 0 and place % 4:
        place = data.rfind(part, 0, place + len(part) - 1)
    return place // 4


def _without_texts(sampling: SamplingConfig) -> SamplingConfig:
    """Raises ConfigError where the options name texts, which tokens alone do not have."""
    if sampling.stop:
        raise ConfigError(
            "SamplingConfig: stop names texts, which only LLM and ChatSession see; "
            "give token ids by the argument stop"
        )
    return sampling


def _check_ids(gpt: Inference, ids: Prompt) -> list[int]:
    """ids as a list of int. Raises DataError where empty, of a wrong shape or out of range."""
    array = np.asarray(ids)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise DataError(
            "ids must be a list of at least one whole number, found {dtype} of shape "
            "{shape}; start a text with bos",
            dtype=array.dtype,
            shape=array.shape,
        )
    expect_ids(array, gpt.config.vocab_size)
    found: list[int] = array.tolist()
    return found


class TokenGenerator(Inference):
    """What infers and continues sequences of ids."""

    def generate(
        self,
        ids: ArrayLike,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = 0,
        **options: Unpack[TokenOptions],
    ) -> Ints:
        """The new tokens that follow ids: (n,) int32 for ids (T,), (B, n) for ids (B, T).

        temperature 0 is greedy; row i of a batch is drawn with seed + i, all afresh with None.
        options  cancel and timeout, which end it early with the tokens so far, and
                 logits_processors (see TokenOptions)
        Raises ConfigError or DataError for options or ids out of range.
        """
        tokens = list(self.stream(ids, max_new_tokens, temperature, top_k, top_p, seed, **options))
        found = np.array(tokens, np.int32).reshape(len(tokens), *np.shape(ids)[:-1])
        return np.ascontiguousarray(found.T)

    def stream(
        self,
        ids: ArrayLike,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = 0,
        **options: Unpack[TokenOptions],
    ) -> Generator[int | Ints, None, None]:
        """The same tokens one by one, as they are made; for ids (B, T) each is an array (B,)."""
        return stream_rows(
            self,
            self._tokens("ids", ids, 0),
            SamplingConfig(temperature, top_k, top_p, max_new_tokens=max_new_tokens, seed=seed),
            *token_options("GPT.generate", options),
        )
