"""From a prompt to new tokens: one prompt streamed, several at once, or by beam search.

A full context keeps its last half: the tail is inferred again and generation goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cgpt.arena import Floats
from cgpt.batch import steps
from cgpt.beam import Hypothesis, search
from cgpt.context import Context
from cgpt.errors import ConfigError, DataError
from cgpt.sampling import Ints, Picks, Sampler, SamplingConfig, logprob

if TYPE_CHECKING:
    from cgpt.inference import Inference
    from cgpt.kvcache import KVCache

Prompt = Sequence[int] | np.ndarray
Rows = Sequence[Floats] | Floats       # logits (V,) each
Token = tuple[int, float | None]        # a token and its log-probability (nats) where asked for

_TOGETHER = 64      # prompts of a batch that are held at once
_LONGEST, _SHORTEST = 3, 2              # tokens in a row by which a draft is looked up


@overload
def generate_tokens(gpt: Inference, ids: Sequence[int] | Ints,
                    sampling: SamplingConfig | None = None, *,
                    cache: KVCache | None = None, stop: Iterable[int] = (),
                    banned: Iterable[int] = ()) -> Iterator[int]: ...


@overload
def generate_tokens(gpt: Inference, ids: Sequence[Sequence[int] | Ints],
                    sampling: SamplingConfig | None = None, *, cache: None = None,
                    stop: Iterable[int] = (), banned: Iterable[int] = ()) -> list[list[int]]: ...


def generate_tokens(gpt: Inference, ids: Any, sampling: SamplingConfig | None = None, *,
                    cache: KVCache | None = None, stop: Iterable[int] = (),
                    banned: Iterable[int] = ()) -> Iterator[int] | list[list[int]]:
    """Stream the tokens that follow `ids`; a token of `stop` ends them and is not given.

    ids     (n,) at least one; of more than block_size the last block_size are used. A list of
            such prompts, of any lengths, gives the list of their continuations at once
    cache   holds the first cache.length of ids (a new one by default); only the rest is inferred
    banned  ids that are never chosen
    Raises ConfigError or DataError at once, not with the first token.
    """
    sampling = SamplingConfig() if sampling is None else sampling
    if _is_batch(ids):
        if cache is not None:
            raise ConfigError("generate_tokens: a cache holds one sequence, found several prompts; "
                              "leave it out")
        return generate_batch(gpt, ids, sampling, stop=stop, banned=banned)
    return (token for token, _ in decode(gpt, ids, sampling, cache=cache, stop=stop, banned=banned))


def _is_batch(ids: Any) -> bool:
    return isinstance(ids, (list, tuple, np.ndarray)) and len(ids) > 0 and (
        isinstance(ids[0], (list, tuple, np.ndarray)) and np.ndim(ids[0]) == 1)


def generate_batch(gpt: Inference, prompts: Sequence[Prompt], sampling: SamplingConfig, *,
                   stop: Iterable[int] = (), banned: Iterable[int] = (),
                   given: Callable[[int, int], bool] | None = None) -> list[list[int]]:
    """The tokens that follow each prompt, each up to its own end; prompt i has seed + i.

    given  called as given(row, token) for each token, in order within its row; True ends the row
           after it
    Errors as generate_tokens, for all prompts before the first token.
    """
    if gpt.decoder is None or sampling.beam > 1 or sampling.speculate:
        return _one_by_one(_streams(gpt, prompts, sampling, stop=list(stop), banned=list(banned)),
                           given)
    found: list[list[int]] = [[] for _ in prompts]
    ids, samplers, ends = _rows(gpt, prompts, sampling, stop, banned)
    for first in range(0, len(ids), _TOGETHER):
        part, ended = slice(first, first + _TOGETHER), set[int]()
        for step in steps(gpt, ids[part], samplers[part], ends, ended):
            for row, token in step:
                found[first + row].append(token)
                if given is not None and given(first + row, token):
                    ended.add(row)
    return found


def _one_by_one(streams: Sequence[Generator[Token, None, None]],
                given: Callable[[int, int], bool] | None) -> list[list[int]]:
    """The tokens of each stream; see generate_batch."""
    found: list[list[int]] = []
    for row, stream in enumerate(streams):
        found.append([])
        for token, _ in stream:
            found[row].append(token)
            if given is not None and given(row, token):
                stream.close()
                break
    return found


def _rows(gpt: Inference, prompts: Iterable[Prompt], sampling: SamplingConfig,
          stop: Iterable[int] = (), banned: Iterable[int] = (),
          ) -> tuple[list[list[int]], list[Sampler], frozenset[int]]:
    """The prompts, checked, a sampler for each (prompt i has seed + i) and the ids that end."""
    sampling, ends, banned = _without_texts(sampling), frozenset(stop), list(banned)
    ids = [_check_ids(gpt, prompt) for prompt in prompts]
    samplers = [Sampler(replace(sampling, seed=seed), gpt.config.vocab_size, banned, ends)
                for _, seed in zip(ids, _seeds(sampling), strict=False)]
    return ids, samplers, ends


def stream_rows(gpt: Inference, prompts: Ints, sampling: SamplingConfig) -> Iterator[int | Ints]:
    """The tokens that follow prompts (T,) one by one, or as arrays (B,) for prompts (B, T).

    Row i of a batch has seed + i. Errors as generate_tokens.
    """
    if prompts.ndim != 2 or not len(prompts):
        return (token for token, _ in decode(gpt, prompts, sampling))
    if gpt.decoder is None:
        rows = [(token for token, _ in stream) for stream in _streams(gpt, prompts, sampling)]
        return (np.array(tokens, np.int32) for tokens in zip(*rows, strict=True))
    found = steps(gpt, *_rows(gpt, prompts, sampling), set())
    return (np.array([token for _, token in step], np.int32) for step in found)


def _streams(gpt: Inference, prompts: Iterable[Prompt], sampling: SamplingConfig,
             **named: Any) -> list[Generator[Token, None, None]]:
    """One stream a prompt; prompt i has seed + i."""
    return [decode(gpt, prompt, replace(sampling, seed=seed), **named)
            for prompt, seed in zip(prompts, _seeds(sampling), strict=False)]


def _seeds(sampling: SamplingConfig) -> Iterator[int | None]:
    return (None if sampling.seed is None else sampling.seed + i for i in count())


def beam_search(gpt: Inference, ids: Prompt, sampling: SamplingConfig, stop: Iterable[int] = (),
                banned: Iterable[int] = (), *, cache: KVCache | None = None) -> list[Hypothesis]:
    """The best `sampling.beam` continuations of `ids`, best first, as (ids, score, logprobs).

    Arguments and errors as generate_tokens; neither the prompt nor the stop token is repeated.
    """
    return search(gpt, _check_ids(gpt, ids), _without_texts(sampling), stop, banned, cache=cache)


def decode(gpt: Inference, ids: Prompt, sampling: SamplingConfig, *, cache: KVCache | None = None,
           stop: Iterable[int] = (), banned: Iterable[int] = (),
           logprobs: bool = False) -> Generator[Token, None, None]:
    """The tokens that follow one prompt, with their log-probabilities where asked for.

    A log-probability is the model's own, before penalties and temperature; in a beam search it is
    the search's. Arguments and errors as generate_tokens.
    """
    prompt, ends = _check_ids(gpt, ids), frozenset(stop)
    sampling = _without_texts(sampling)
    sampler = Sampler(sampling, gpt.config.vocab_size, banned, ends)
    if sampling.beam > 1:
        best = search(gpt, prompt, sampling, ends, banned, cache=cache)[0]
        return (pair for pair in zip(best.ids, best.logprobs, strict=True))
    context = Context(gpt, cache, prompt)
    return follow(context, prompt[-context.capacity:], sampler, ends, logprobs=logprobs)


def follow(context: Context, prompt: Sequence[int], sampler: Sampler, ends: frozenset[int], *,
           make_room: Callable[[list[int]], list[int]] | None = None,
           logprobs: bool = False) -> Generator[Token, None, None]:
    """Feed `prompt` to the context and stream what follows, up to a token of `ends`.

    make_room  called with the new tokens so far where the context is full; what it returns, which
               ends in the last of them, becomes the context. By default the last half is kept
    With `speculate`, tokens that followed the same words before are inferred along with the one
    that was picked. Every token is picked from the logits behind those that were picked before
    it, and a draft only saves passes for as long as it is what is picked: so the tokens are those
    that would be picked one by one, drawn from the same distribution with the same numbers.
    Source: Leviathan et al. 2023, arXiv:2211.17192, for checking guesses in one pass; Saxena 2023,
    "Prompt Lookup Decoding", for guessing by looking up.
    """
    sampling, answer = sampler.sampling, list[int]()
    if not sampling.max_new_tokens:
        return
    picks = sampler.ahead(1)
    rows: Rows = context.feed(prompt, picks)[None]  # logits behind the last pick, and
    row, draft = 0, list[int]()                     # behind each token of the draft
    known = len(prompt)                             # what of the context is picked, not guessed
    try:
        while True:
            token = sampler.pick(rows[row], context.seen(known), picks, row)
            if token in ends:
                return
            answer.append(token)
            yield token, logprob(rows[row], token) if logprobs else None
            left = sampling.max_new_tokens - len(answer)
            if not left:
                return
            if row < len(draft) and token == draft[row]:
                row, known = row + 1, known + 1
                continue
            context.truncate(known)
            if known < context.capacity:
                room = min(left, context.capacity - known)
                rows, draft, picks = _extended(context, token, sampler, room, logprobs)
                row, known = 0, known + 1
            else:
                kept = make_room(answer) if make_room else context.last_half(token)
                picks = sampler.ahead(1)
                rows, row, known, draft = context.feed(kept, picks)[None], 0, len(kept), []
    finally:
        context.truncate(known)


def _extended(context: Context, token: int, sampler: Sampler, room: int,
              logprobs: bool) -> tuple[Rows, list[int], Picks | None]:
    """Append `token` and, as far as they are picked or guessed, those that follow: `room` at most.

    (logits behind each, the tokens that follow, what was picked behind each). Where nothing needs
    to be looked at in between, several are picked in one call, and the logits are the last one's.
    """
    sampling, n = sampler.sampling, min(room, context.gpt.run_length)
    if n > 1 and not (sampling.speculate or sampler.changes or logprobs):
        picks = sampler.ahead(n)
        assert picks is not None
        return [context.go_on(token, picks)] * n, picks.tokens[:-1].tolist(), picks
    guesses = min(sampling.speculate, room - 1)
    draft = look_up(context.seen(len(context)), token, guesses) if guesses else []
    picks = sampler.ahead(1 + len(draft))
    return context.extend([token, *draft], picks), draft, picks


def look_up(seen: Ints, token: int, most: int) -> list[int]:
    """Up to `most` tokens that may follow `seen` and `token`: what followed their end before.

    The latest earlier place of the last three tokens is taken, else of the last two; where what
    follows there reaches the end, it is repeated from there. None where there is no such place.
    """
    data = seen.tobytes() + np.int32(token).tobytes()
    for n in range(_LONGEST, _SHORTEST - 1, -1):
        place = _last_place(data[:-4], data[-4 * n:]) if len(data) > 4 * n else -1
        if place >= 0:
            span = np.frombuffer(data, np.int32)[place + n:place + n + most].tolist()
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
        raise ConfigError("SamplingConfig: stop names texts, which only LLM and ChatSession see; "
                          "give token ids by the argument stop")
    return sampling


def _check_ids(gpt: Inference, ids: Prompt) -> list[int]:
    """ids as a list of int. Raises DataError where empty, of a wrong shape or out of range."""
    array = np.asarray(ids)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise DataError(f"ids must be a list of at least one whole number, found "
                        f"{array.dtype} of shape {array.shape}; start a text with bos")
    vocab_size = gpt.config.vocab_size
    if array.min() < 0 or array.max() >= vocab_size:
        raise DataError(f"ids must be between 0 and {vocab_size - 1}, "
                        f"found {array.min()} to {array.max()}")
    found: list[int] = array.tolist()
    return found
