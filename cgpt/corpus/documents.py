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
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain
from typing import Any, overload

import numpy as np

from cgpt.config import WINDOWS
from cgpt.corpus.encoding import IGNORED, Sample, check_turns
from cgpt.corpus.inputs import Document, as_documents
from cgpt.corpus.records import Dialogue, n_characters
from cgpt.corpus.splitting import Part, TooLong, parts_of
from cgpt.errors import DataError
from cgpt.tokenizers.chat_template import template_of
from cgpt.tokenizers.tokenizer import Tokenizer

SHARD_CHARACTERS = 1 << 21
_NOTHING: np.ndarray = np.empty(0, np.int32)
_READS = 2048  # documents that are read before their pages are given back


@dataclass(frozen=True)
class Shard:
    """Some documents end to end.

    tokens  (n,) int16 or int32: ids, or ~id where the token carries no loss
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
            self._starts[first:end] -= self._starts[first : first + 1]
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
                _release_pages(one)
        start = self._starts[document]
        shard = self._shards[bisect_right(self._firsts, document) - 1]
        return shard[start : start + self.sizes[document]]

    def tokens_at(self, offsets: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Token number offsets[i] of documents[i], both (n,); the documents rise."""
        found = np.empty(len(documents), np.int32)
        positions = self._starts[documents] + offsets
        bounds = np.searchsorted(documents, self._firsts)
        for shard, mapped, first, end in zip(
            self._shards, self._maps, bounds, bounds[1:], strict=False
        ):
            found[first:end] = shard[positions[first:end]]
            _release_pages(mapped)
        return found


def _find_first(tokens: np.ndarray, mark: np.ndarray) -> int:
    """Where the first question of a dialogue begins: at these tokens, which no text can produce."""
    for start in np.flatnonzero(tokens == mark[0]).tolist():
        if np.array_equal(tokens[start : start + len(mark)], mark):
            return int(start)
    return 0


def _release_pages(mapped: mmap.mmap | None) -> None:
    """Let go of the pages of a map; else a process seems to hold all that it ever read."""
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

    def __repr__(self) -> str:
        return f"Documents({len(self)} documents, {self.n_tokens} tokens)"

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: ids of each as one sample, which are its tokens but the last."""
        found: np.ndarray = self.store.sizes[self.numbers].astype(np.int64) - 1
        return found

    @property
    def n_tokens(self) -> int:
        """Tokens that an epoch takes of them, specials included; of fractions about so many."""
        sizes = self.store.sizes[self.numbers]
        return round(
            float(sizes.sum(dtype=np.int64) if self.weights is None else sizes @ self.weights)
        )

    def only(self, which: np.ndarray) -> Documents:
        """Those where `which` (n,) bool is true."""
        return Documents(
            self.store, self.numbers[which], None if self.weights is None else self.weights[which]
        )


class Samples(Sequence[Sample]):
    """Documents as samples of at most `longest` tokens; samples without any loss left out.

    lengths   (samples,) int64
    weights   (samples,) float64 or None, of their documents
    n_long    texts of more than one window: those that `recut` cuts elsewhere
    too_long  TooLong: which documents are longer, and what became of them
    """

    def __init__(
        self, documents: Documents, longest: int, too_long: str = WINDOWS, all_tokens: bool = False
    ) -> None:
        """too_long  "cut", "windows" or "drop", see `TrainConfig`
        all_tokens  whether every token of a dialogue carries loss, not only its answers
        """
        self._store, self._longest, self._all = documents.store, longest, all_tokens
        long = documents.lengths > longest
        found = TooLong(too_long, longest, of=len(documents))
        if long.any():
            dialogues = int(np.count_nonzero(self._store.dialogues[documents.numbers[long]]))
            found = replace(
                found, documents=int(np.count_nonzero(long)) - dialogues, dialogues=dialogues
            )
            if too_long == "drop":
                found = replace(found, without_loss=self._loss_of(documents.numbers[long]))
                documents = documents.only(~long)
        without_loss = self._cut(documents, too_long)
        lasting = self._store.sizes[self._numbers].astype(np.int64) - 1 > longest
        self.too_long = replace(
            found,
            without_loss=found.without_loss + without_loss,
            parts=int(np.count_nonzero(lasting)),
        )
        # Dialogues stay: they are cut where a turn ends.
        self._of_long = ~self._store.dialogues[self._numbers] & lasting
        self.n_long = int(np.count_nonzero(self._of_long & (self._firsts == 0)))

    def _cut(self, documents: Documents, too_long: str) -> int:
        """Cut what is long; tokens that carry no loss for it."""
        store, longest = self._store, self._longest
        sizes = documents.lengths
        counts = -(-sizes // longest)
        turned = (
            (sizes > longest) & store.dialogues[documents.numbers]
            if too_long == "cut"
            else np.zeros(len(sizes), bool)
        )
        parts, without_loss = self._parts(documents.numbers[turned])
        counts[turned] = [*map(len, parts)]
        rows = np.repeat(np.arange(len(counts)), counts)
        self._numbers = documents.numbers[rows]
        self._firsts = (
            np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        ) * longest
        self.lengths = np.minimum(longest, sizes[rows] - self._firsts)
        self.weights = None if documents.weights is None else documents.weights[rows]
        # Tokens from the beginning of a dialogue that a part repeats, and whether a mark follows.
        self._prefixes = self._prompted = None
        if parts:
            where = turned[rows]
            values = np.array([*chain.from_iterable(parts)], np.int64).reshape(-1, 4)
            self._firsts[where] = values[:, 0]
            self._prefixes = np.zeros(len(rows), np.int32)
            self._prompted = np.zeros(len(rows), bool)
            self._prefixes[where], self._prompted[where] = values[:, 2], values[:, 3]
            self.lengths[where] = (
                values[:, 1]
                + values[:, 2]
                - 1
                + values[:, 3] * len(template_of(store.tokenizer).generation_prompt)
            )
        elif too_long == WINDOWS and not self._all:
            self._leave_out(np.flatnonzero(store.dialogues[self._numbers] & (counts[rows] > 1)))
        return without_loss

    def _parts(self, numbers: np.ndarray) -> tuple[list[list[Part]], int]:
        """(parts of each dialogue, tokens of all of them that carry no loss for it)."""
        found, total = [], 0
        template = template_of(self._store.tokenizer)
        mark = ~np.array(template.question, np.int64)
        for number in numbers.tolist():
            tokens = self._store.tokens(number)
            parts, without_loss = parts_of(
                tokens,
                _find_first(tokens, mark),
                self._longest,
                len(template.generation_prompt),
                self._all,
            )
            found.append(parts)
            total += without_loss
        return found, total

    def _leave_out(self, candidates: np.ndarray) -> None:
        """Leave out those of the samples in which nothing carries loss."""
        kept = np.ones(len(self), dtype=bool)
        for i in candidates.tolist():
            kept[i] = (self[i].targets != IGNORED).any()
        self._numbers, self._firsts = self._numbers[kept], self._firsts[kept]
        self.lengths = self.lengths[kept]
        self.weights = None if self.weights is None else self.weights[kept]

    def _loss_of(self, numbers: np.ndarray) -> int:
        """Tokens of these documents that would carry loss."""
        whole = (~self._store.dialogues[numbers]) | self._all
        total = int((self._store.sizes[numbers[whole]].astype(np.int64) - 1).sum())
        return total + sum(
            int(np.count_nonzero(self._store.tokens(number) >= 0))
            for number in numbers[~whole].tolist()
        )

    def recut(self, first_lengths: np.ndarray) -> Samples:
        """The same documents with the long texts cut elsewhere; every token is in one window.

        first_lengths  (n_long,) int64 in 0 .. longest - 1: tokens of each text's first window, 0
                       for a whole one
        Samples keep their order, but those of the long texts follow all others.
        """
        fixed, heads = ~self._of_long, np.flatnonzero(self._of_long & (self._firsts == 0))
        longest = self._longest
        sizes = self._store.sizes[self._numbers[heads]].astype(np.int64) - 1
        before = -first_lengths % longest  # tokens that the first window lacks
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
        if self._prefixes is not None and self._prompted is not None:
            none = np.zeros(len(rows), bool)
            found._prefixes = np.append(self._prefixes[fixed], none)
            found._prompted = np.append(self._prompted[fixed], none)
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
        first, document = self._firsts[number], int(self._numbers[number])
        tokens, head = self._store.tokens(document), self._head(number)
        body = tokens[first : first + self.lengths[number] + 1 - len(head)].astype(np.int32)
        tokens = np.concatenate([head, body]) if len(head) else body
        ids = tokens[:-1]
        targets = np.maximum(tokens[1:], IGNORED)
        if self._all and self._store.dialogues[document]:
            targets = tokens[1:] ^ (tokens[1:] >> 31)
            targets[: max(len(head) - 1, 0)] = IGNORED  # they carry loss in the first part
        return Sample(ids ^ (ids >> 31), targets)

    def _head(self, number: int) -> np.ndarray:
        """Tokens of a sample before those that lie together in its document."""
        if self._prefixes is None or self._prompted is None:
            return _NOTHING
        start = self._store.tokens(int(self._numbers[number]))[: self._prefixes[number]]
        template = template_of(self._store.tokenizer)
        prompt = template.generation_prompt if self._prompted[number] else []
        return np.concatenate([start, ~np.array(prompt, np.int32)]).astype(np.int32)

    def joinable(self, tokenizer: Tokenizer) -> np.ndarray:
        """(samples,) bool: where <bos> <user> begins a dialogue and <eos> ends the sample."""
        found: np.ndarray = self._store.dialogues[self._numbers]
        second: int | np.ndarray = 1
        last = self.lengths
        if self._prefixes is None or self._prompted is None:
            found = found & (self._firsts == 0)
        else:  # a part after <bos> alone begins like a dialogue
            found = found & ((self._firsts == 0) | ((self._prefixes == 1) & ~self._prompted))
            second = np.where(self._firsts > 0, self._firsts, 1)
            last = self._firsts + self.lengths - self._prefixes
        for offset, token in (
            (0, ~tokenizer.bos_id),
            (second, ~tokenizer.user_id),
            (last, tokenizer.eos_id),
        ):
            offsets = np.broadcast_to(offset, len(found))[found]
            found[found] = self._store.tokens_at(offsets, self._numbers[found]) == token
        return found

    @property
    def digest(self) -> str:
        """Of the windows and, where every shard says its own, of the tokens; else ""."""
        known = self._store.digests
        if not known or not all(known):
            return ""
        parts = [self._numbers, self._firsts, self.lengths]
        if self._prefixes is not None and self._prompted is not None:
            parts += [self._prefixes, self._prompted]
        if self._all and self._store.dialogues[self._numbers].any():
            known = [*known, "all tokens"]
        return " ".join(
            [
                *known,
                *(
                    blake2b(np.ascontiguousarray(part, "<i8").data, digest_size=16).hexdigest()
                    for part in parts
                ),
            ]
        )


def as_encoded(documents: Iterable[Document] | Documents, tokenizer: Tokenizer) -> Documents:
    """The documents encoded with this tokenizer, in memory where they are not yet.

    Raises DataError where they were encoded with another one, or as `encode_documents`.
    """
    if not isinstance(documents, Documents):
        return encode_in_memory(tokenizer, documents)
    other = documents.store.tokenizer
    if other is not tokenizer and other.fingerprint() != tokenizer.fingerprint():
        raise DataError(
            "these documents were encoded with another vocabulary than the model's; "
            "encode them with llm.tokenizer"
        )
    return documents


def encode_in_memory(tokenizer: Tokenizer, documents: Iterable[Document]) -> Documents:
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
    before: list[list[int]] = []  # tokens before each text, without loss,
    behind: list[list[int]] = []  # and after it, with loss
    loss_mask: list[bool] = []  # whether the text is
    pieces: list[int] = []  # texts of each document, negative for a dialogue
    for document in documents:
        if isinstance(document, str):
            parts = [(template.opening, document, [tokenizer.eos_id])]
            loss_mask.append(True)
        else:
            check_turns(document, "assistant")
            parts = [template.parts(message.role, message.content) for message in document]
            parts[0] = ([*template.start, *parts[0][0]], *parts[0][1:])
            loss_mask += [message.role == "assistant" for message in document]
        for start, text, end in parts:
            before.append(start)
            texts.append(text)
            behind.append(end)
        pieces.append(1 if isinstance(document, str) else -len(parts))
    ids, counts = tokenizer.encode_many(texts)
    ids = np.where(np.repeat(np.array(loss_mask, bool), counts), ids, ~ids)
    heads, tails = _flat(before), _flat(behind)
    tokens, sizes = _interleaved(
        [(~heads[0], heads[1]), (ids, counts), tails], token_type(tokenizer)
    )
    signed = np.array(pieces, np.int64)
    owners = np.repeat(np.arange(len(signed)), np.abs(signed))
    totals = np.bincount(owners, sizes, minlength=len(signed)).astype(np.int64)
    if len(totals) and totals.max() >= 1 << 31:
        raise DataError("a document of {n} tokens; cut it into smaller ones", n=totals.max())
    return Shard(tokens, (np.sign(signed) * totals).astype(np.int32))


def _flat(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(all values end to end int32, how many each list has int64)."""
    return (
        np.array([*chain.from_iterable(lists)], np.int32),
        np.array([*map(len, lists)], np.int64),
    )


def _interleaved(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    """First what each part has for the first entry, then for the second, ...; sizes of entries.

    parts  (values end to end, how many each entry has)
    """
    sizes = np.sum([counts for _, counts in parts], axis=0)
    starts = np.cumsum(sizes) - sizes
    found: np.ndarray = np.empty(int(sizes.sum()), dtype)
    for values, counts in parts:
        shift = starts - (np.cumsum(counts) - counts)
        found[np.arange(len(values)) + np.repeat(shift, counts)] = values
        starts = starts + counts
    return found, sizes
