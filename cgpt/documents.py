"""Encoded documents, in memory or memory-mapped, and the samples that are cut from them.

A token that carries no loss (a question, a mark) is kept as ~id, the complement of its id. So a
store is tokens and sizes alone, and a sample is cut when it is asked for: a corpus larger than
memory costs its sizes.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any, overload

import numpy as np

from cgpt.data import IGNORED, Dialogue, Sample, check_turns
from cgpt.errors import DataError
from cgpt.inputs import as_documents
from cgpt.items import n_characters
from cgpt.template import template_of
from cgpt.tokenizer import Tokenizer

SHARD_CHARACTERS = 1 << 21
_READS = 2048       # documents that are read before their pages are given back


@dataclass(frozen=True)
class Shard:
    """Some documents end to end.

    tokens  (n,) int16 or int32: ids, or ~id where the token is not learnt
    sizes   (documents,) int32: tokens of each, negative where it is a dialogue
    digest  of both; "" where nobody needs it
    mapped  the map of a file in which the tokens lie, or None
    """

    tokens: np.ndarray
    sizes: np.ndarray
    digest: str = ""
    mapped: mmap.mmap | None = None


class TokenStore:
    """Documents by number, encoded with a tokenizer; the shards follow one another.

    sizes      (documents,) int32: tokens of each
    dialogues  (documents,) bool
    digests    of the shards
    """

    def __init__(self, shards: Sequence[Shard], tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._shards = [shard.tokens for shard in shards]
        counts = [len(shard.sizes) for shard in shards]
        self._firsts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).tolist()
        signed = np.concatenate([np.empty(0, np.int32), *(shard.sizes for shard in shards)])
        self.dialogues = signed < 0
        self.sizes = np.abs(signed)
        # Where each document starts in its shard.
        self._starts = np.cumsum(self.sizes, dtype=np.int64) - self.sizes
        for first, end in zip(self._firsts, self._firsts[1:], strict=False):
            self._starts[first:end] -= self._starts[first:first + 1]
        self.digests = [shard.digest for shard in shards]
        self._maps = [shard.mapped for shard in shards]
        self._reads = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def tokens(self, document: int) -> np.ndarray:
        """The tokens of a document as a shard has them: a view."""
        self._reads += 1
        if self._reads % _READS == 0:
            for one in self._maps:
                _give_back(one)
        start = self._starts[document]
        shard = self._shards[bisect_right(self._firsts, document) - 1]
        return shard[start:start + self.sizes[document]]

    def tokens_at(self, offsets: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Token number offsets[i] of documents[i], both (n,); the documents rise."""
        found = np.empty(len(documents), np.int32)
        places = self._starts[documents] + offsets
        borders = np.searchsorted(documents, self._firsts)
        for shard, mapped, first, end in zip(self._shards, self._maps, borders, borders[1:],
                                             strict=False):
            found[first:end] = shard[places[first:end]]
            _give_back(mapped)
        return found


def _give_back(mapped: mmap.mmap | None) -> None:
    """Let go of the pages of a map, else a process seems to hold all that it ever read."""
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Documents:
    """Some documents of a store; what a phase trains on.

    numbers  (n,) int64, rising
    weights  (n,) float64: how often an epoch takes each; None for once each
    """

    store: TokenStore
    numbers: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_tokens(self) -> int:
        """Tokens that an epoch takes of them, specials included; of fractions about so many."""
        sizes = self.store.sizes[self.numbers]
        return round(float(sizes.sum(dtype=np.int64) if self.weights is None
                           else sizes @ self.weights))

    def only(self, which: np.ndarray) -> Documents:
        """Those where `which` (n,) bool is true."""
        return Documents(self.store, self.numbers[which],
                         None if self.weights is None else self.weights[which])


class Samples(Sequence[Sample]):
    """Documents cut into windows of at most `longest` tokens; windows without any loss left out.

    lengths  (samples,) int64
    weights  (samples,) float64 or None, of their documents
    n_long   texts of more than one window: those that `recut` cuts elsewhere
    """

    def __init__(self, documents: Documents, longest: int) -> None:
        self._store = store = documents.store
        sizes = store.sizes[documents.numbers].astype(np.int64) - 1
        counts = -(-sizes // longest)
        rows = np.repeat(np.arange(len(counts)), counts)
        self._numbers = documents.numbers[rows]
        self._firsts = (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
                        ) * longest
        self.lengths = np.minimum(longest, sizes[rows] - self._firsts)
        self.weights = None if documents.weights is None else documents.weights[rows]
        kept = np.ones(len(rows), dtype=bool)
        for i in np.flatnonzero(store.dialogues[self._numbers] & (counts[rows] > 1)).tolist():
            kept[i] = (self[i].targets != IGNORED).any()
        self._numbers, self._firsts = self._numbers[kept], self._firsts[kept]
        self.lengths = self.lengths[kept]
        self.weights = None if self.weights is None else self.weights[kept]
        self._longest = longest
        # Dialogues stay: they are cut where a turn ends.
        self._of_long = ~store.dialogues[self._numbers] & (
            store.sizes[self._numbers].astype(np.int64) - 1 > longest)
        self.n_long = int(np.count_nonzero(self._of_long & (self._firsts == 0)))

    def recut(self, first_lengths: np.ndarray) -> Samples:
        """The same documents with the long texts cut elsewhere; every token is in one window.

        first_lengths  (n_long,) int64 in 0 .. longest - 1: tokens of each text's first window, 0
                       for a whole one
        Samples keep their order, but those of the long texts follow all others.
        """
        fixed, heads = ~self._of_long, np.flatnonzero(self._of_long & (self._firsts == 0))
        longest = self._longest
        sizes = self._store.sizes[self._numbers[heads]].astype(np.int64) - 1
        before = -first_lengths % longest       # tokens that the first window lacks
        counts = -(-(sizes + before) // longest)
        rows = np.repeat(np.arange(len(heads)), counts)
        windows = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        ends = (windows + 1) * longest - before[rows]
        firsts = np.maximum(ends - longest, 0)
        found = copy(self)
        found._numbers = np.append(self._numbers[fixed], self._numbers[heads][rows])
        found._firsts = np.append(self._firsts[fixed], firsts)
        found.lengths = np.append(self.lengths[fixed], np.minimum(ends, sizes[rows]) - firsts)
        if self.weights is not None:
            found.weights = np.append(self.weights[fixed], self.weights[heads][rows])
        found._of_long = np.arange(len(found)) >= np.count_nonzero(fixed)
        return found

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, number: int) -> Sample: ...

    @overload
    def __getitem__(self, number: slice) -> list[Sample]: ...

    def __getitem__(self, number: int | slice) -> Sample | list[Sample]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        first = self._firsts[number]
        tokens = self._store.tokens(int(self._numbers[number]))[
            first:first + self.lengths[number] + 1].astype(np.int32)
        ids = tokens[:-1]
        return Sample(ids ^ (ids >> 31), np.maximum(tokens[1:], IGNORED))

    def joinable(self, tokenizer: Tokenizer) -> np.ndarray:
        """(samples,) bool: where <bos> <user> begins a dialogue and <eos> ends the sample."""
        found: np.ndarray = self._store.dialogues[self._numbers] & (self._firsts == 0)
        for offset, token in ((0, ~tokenizer.bos_id), (1, ~tokenizer.user_id),
                              (self.lengths, tokenizer.eos_id)):
            places = np.broadcast_to(offset, len(found))[found]
            found[found] = self._store.tokens_at(places, self._numbers[found]) == token
        return found

    @property
    def digest(self) -> str:
        """Of the windows and, where every shard says its own, of the tokens; else ""."""
        known = self._store.digests
        if not known or not all(known):
            return ""
        parts = (self._numbers, self._firsts, self.lengths)
        return " ".join([*known, *(blake2b(np.ascontiguousarray(part, "<i8").data,
                                           digest_size=16).hexdigest() for part in parts)])


def encoded(documents: Iterable[str | Dialogue] | Documents, tokenizer: Tokenizer) -> Documents:
    """The documents encoded with this tokenizer, in memory where they are not yet.

    Raises DataError where they were encoded with another one, or as `encode_documents`.
    """
    if not isinstance(documents, Documents):
        return stored(tokenizer, documents)
    other = documents.store.tokenizer
    if other is not tokenizer and other.fingerprint() != tokenizer.fingerprint():
        raise DataError("these documents were encoded with another vocabulary than the model's; "
                        "encode them with llm.tokenizer")
    return documents


def stored(tokenizer: Tokenizer, documents: Iterable[str | Dialogue]) -> Documents:
    """The documents, dialogues and rows encoded in memory. Errors as `as_documents`."""
    given = as_documents("fit", documents)
    store = TokenStore([encode_documents(tokenizer, some) for some in in_shards(given)], tokenizer)
    return Documents(store, np.arange(len(store)))


def in_shards(documents: Iterable[str | Dialogue]) -> Iterator[list[str | Dialogue]]:
    """The documents in lists of about SHARD_CHARACTERS characters."""
    shard: list[str | Dialogue] = []
    room = SHARD_CHARACTERS
    for document in documents:
        shard.append(document)
        room -= n_characters(document)
        if room <= 0:
            yield shard
            shard, room = [], SHARD_CHARACTERS
    if shard:
        yield shard


def token_type(tokenizer: Tokenizer) -> type[np.signedinteger[Any]]:
    """The integers that hold its ids and their complements."""
    return np.int16 if len(tokenizer) <= 1 << 15 else np.int32


def encode_documents(tokenizer: Tokenizer, documents: Iterable[str | Dialogue]) -> Shard:
    """The documents and dialogues as a shard in memory: the tokens of `encode_document` and
    `encode_dialogue`, but quickly.

    Raises DataError for what is neither, or a dialogue whose turns do not alternate.
    """
    template = template_of(tokenizer)
    texts: list[str] = []
    before: list[list[int]] = []    # tokens before each text, none of them learnt,
    behind: list[list[int]] = []    # and behind it, learnt
    learnt: list[bool] = []         # whether the text is
    pieces: list[int] = []          # texts of each document, negative for a dialogue
    for document in documents:
        if isinstance(document, str):
            parts = [(template.opening, document, [tokenizer.eos_id])]
            learnt.append(True)
        else:
            check_turns(document, "assistant")
            parts = [template.parts(message.role, message.content) for message in document]
            parts[0] = ([*template.start, *parts[0][0]], *parts[0][1:])
            learnt += [message.role == "assistant" for message in document]
        for start, text, end in parts:
            before.append(start)
            texts.append(text)
            behind.append(end)
        pieces.append(1 if isinstance(document, str) else -len(parts))
    ids, counts = tokenizer.encode_many(texts)
    ids = np.where(np.repeat(np.array(learnt, bool), counts), ids, ~ids)
    heads, tails = _flat(before), _flat(behind)
    tokens, sizes = _interleaved([(~heads[0], heads[1]), (ids, counts), tails],
                                 token_type(tokenizer))
    signed = np.array(pieces, np.int64)
    owners = np.repeat(np.arange(len(signed)), np.abs(signed))
    totals = np.bincount(owners, sizes, minlength=len(signed)).astype(np.int64)
    if len(totals) and totals.max() >= 1 << 31:
        raise DataError(f"a document of {totals.max()} tokens; cut it into smaller ones")
    return Shard(tokens, (np.sign(signed) * totals).astype(np.int32))


def _flat(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(all values end to end int32, how many each list has int64)."""
    return (np.array([*chain.from_iterable(lists)], np.int32),
            np.array([*map(len, lists)], np.int64))


def _interleaved(parts: Sequence[tuple[np.ndarray, np.ndarray]],
                 dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """First what each part has for the first entry, then for the second, ...; sizes of entries.

    parts  (values end to end, how many each entry has)
    """
    sizes = np.sum([counts for _, counts in parts], axis=0)
    places = np.cumsum(sizes) - sizes
    found: np.ndarray = np.empty(int(sizes.sum()), dtype)
    for values, counts in parts:
        shift = places - (np.cumsum(counts) - counts)
        found[np.arange(len(values)) + np.repeat(shift, counts)] = values
        places = places + counts
    return found, sizes
