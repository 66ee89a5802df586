"""A corpus larger than memory, tokenised once into a memory-mapped cache.

A cache entry is a folder named by what its tokens follow from: the files' contents, the vocabulary,
whether duplicates were left out, which strings are texts whatever they look like, and the version
of cgpt. It holds shards of about a million tokens, each written whole or not at all, and index.json
last of all. So a preparation that was killed continues after the last shard, and an entry with an
index is complete. A cache may be deleted at any time. Every byte of it is compared with a checksum
before it is used (shards.py), and what is damaged is made again from the files.

    shard       some documents, encoded
    index.json  digests of the shards, what was read from each file, the first dialogue

Reading and parsing are Python's; the shards are encoded on threads meanwhile, which costs no
process and no copy since the encoder computes without the GIL.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.corpus.documents import Shard, TokenStore, encode_documents, in_shards, token_type
from cgpt.corpus.invalid_rows import InvalidRow, InvalidRows
from cgpt.corpus.reader import FileReport, Reading, changed_while_read, digest_of
from cgpt.corpus.records import Dialogue, Message, n_characters, turn_fault
from cgpt.corpus.shards import (
    INDEX,
    Damaged,
    raise_file_limit,
    read_index,
    read_shard,
    shard_path,
    write_index,
    write_shard,
)
from cgpt.errors import DataError, as_reason
from cgpt.fileio.atomic import folder_lock
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.version import __version__

# Bytes of files from which on a corpus is prepared on disk. What a checkpoint says of its data
# differs on both sides, so a training that was begun on one cannot continue on the other.
LARGE_CORPUS = 1 << 26
_LAYOUT = 3  # of a cache entry; part of its name

ReadProgress = Callable[[int], object]


@dataclass(frozen=True)
class Prepared:
    """A corpus in the cache.

    store   every document and dialogue in the order of the files
    first_dialogue  () where there is none
    entry   its folder
    cached  whether it was there before
    invalid  rows that were left out
    repaired  names of its files that were damaged, or gone, and were made again
    """

    store: TokenStore
    files: list[FileReport]
    first_dialogue: Dialogue
    entry: Path
    cached: bool
    invalid: InvalidRows
    repaired: tuple[str, ...] = ()


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Where caches lie: `given`, else $CGPT_CACHE, else the user's cache folder of cgpt."""
    chosen = given or os.environ.get("CGPT_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("cgpt", appauthor=False)


def sampled(reading: Reading, share: float, progress: ReadProgress | None = None) -> Iterator[str]:
    """The texts of about this share of the items: which ones follows from what they say alone.

    So the same items in any order and any files give the same sample. progress: as in `prepare`.
    """
    characters = 0
    for item in reading:
        characters += n_characters(item)
        if progress is not None:
            progress(characters)
        if int.from_bytes(digest_of(item)[:8], "little") < share * 2**64:
            yield from (item,) if isinstance(item, str) else (turn.content for turn in item)


def prepare(
    reading: Reading,
    fingerprint: str,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    unique: bool,
    threads: int = 1,
    progress: ReadProgress | None = None,
) -> Prepared:
    """The corpus of `reading`, from the cache in `folder` or put there now.

    fingerprint  of the files' contents, `reader.fingerprint_of`
    progress     is called as progress(characters) when so many were read
    Where another process prepares the same, it is waited for. Rows that cannot be used do not
    decide where an entry lies: one that is complete holds what is usable.
    Raises DataError as `reading` does, where a file changes meanwhile, or where the folder cannot
    be used; CheckpointError (code "write") where a shard cannot be written.
    """
    parts = (
        __version__,  # another one may read the same files as other documents
        _LAYOUT,
        fingerprint,
        tokenizer.fingerprint(),
        unique,
        reading.reading_options,
    )
    entry = folder / blake2b(" ".join(map(str, parts)).encode(), digest_size=16).hexdigest()
    damaged: set[str] = set()
    try:
        entry.mkdir(parents=True, exist_ok=True)
        with folder_lock(entry):
            found = _load(entry, tokenizer, threads, damaged)
            if found is not None:
                return found
            digests, first = _encode_all(reading, tokenizer, entry, threads, progress, damaged)
            if reading.fingerprint != fingerprint:
                raise changed_while_read()
            write_index(
                entry,
                {
                    "digests": digests,
                    "files": [asdict(one) for one in reading.files],
                    "invalid": {
                        "rows": [one.to_dict(templates=True) for one in reading.invalid.rows],
                        "counts": reading.invalid.counts,
                    },
                    "first_dialogue": [[turn.role, turn.content] for turn in first],
                },
            )
            found = _load(entry, tokenizer, threads, set())
    except OSError as error:
        raise DataError(
            "{path}: the cache cannot be written or read ({reason}); name another folder, "
            "with room for the tokens",
            hint="cache",
            path=entry,
            reason=as_reason(error),
        ) from error
    if found is None:
        raise DataError(
            "{path}: the cache was changed while it was written; delete this folder", path=entry
        )
    return replace(found, cached=False, repaired=tuple(sorted(damaged)))


def _load(entry: Path, tokenizer: Tokenizer, threads: int, damaged: set[str]) -> Prepared | None:
    """A complete entry, every byte of it checked; None where it is not there or not complete.

    Names of files that are damaged, or that the index names and are gone, go into `damaged`.
    """
    try:
        index = read_index(entry)
        digests, files = index["digests"], [FileReport(**one) for one in index["files"]]
        raise_file_limit(len(digests))
        rows = [InvalidRow.from_dict(one) for one in index["invalid"]["rows"]]
        invalid = InvalidRows(rows, {**index["invalid"]["counts"]})
        dialogue = tuple(Message(*one) for one in index["first_dialogue"])
        count = sum(one.documents + one.dialogues for one in files)
        if dialogue and turn_fault(dialogue):
            raise ValueError
        with ThreadPoolExecutor(threads) as pool:
            found = list(
                pool.map(
                    partial(_shard, entry, _dtype(tokenizer), damaged), range(len(digests)), digests
                )
            )
    except FileNotFoundError:
        return None
    except (Damaged, ValueError, KeyError, TypeError):
        damaged.add(INDEX)
        return None
    whole = [one for one in found if one is not None]
    if len(whole) < len(found):
        return None
    store = TokenStore(whole, tokenizer)
    if len(store) != count:
        damaged.add(INDEX)
        return None
    return Prepared(store, files, dialogue, entry, True, invalid)


def _shard(
    entry: Path, dtype: np.dtype[Any], damaged: set[str], number: int, digest: str
) -> Shard | None:
    """A shard that the index names, or None where it is not what was written."""
    path = shard_path(entry, number)
    try:
        return replace(read_shard(path, dtype), digest=digest)
    except (Damaged, FileNotFoundError):
        damaged.add(path.name)
        return None


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype(token_type(tokenizer)).newbyteorder("<")


def _encode_all(
    reading: Reading,
    tokenizer: Tokenizer,
    entry: Path,
    threads: int,
    progress: ReadProgress | None,
    damaged: set[str],
) -> tuple[list[str], Dialogue]:
    """Write every shard that is not there whole; the digests of all, and the first dialogue.

    Names of those that are damaged go into `damaged`.
    """
    digests: list[str] = []
    first: Dialogue = ()
    waiting: deque[Future[str]] = deque()
    characters = 0
    with ThreadPoolExecutor(threads) as pool:
        for number, documents in enumerate(in_shards(reading)):
            first = first or next((one for one in documents if not isinstance(one, str)), ())
            waiting.append(
                pool.submit(_encode_one, tokenizer, shard_path(entry, number), documents, damaged)
            )
            if len(waiting) > threads:
                digests.append(waiting.popleft().result())
            characters += sum(map(n_characters, documents))
            if progress is not None:
                progress(characters)
        digests += [one.result() for one in waiting]
    return digests, first


def _encode_one(
    tokenizer: Tokenizer, path: Path, documents: Sequence[str | Dialogue], damaged: set[str]
) -> str:
    """Encode and write a shard, unless it is there whole; the digest of what is in it."""
    dtype = _dtype(tokenizer)
    try:
        shard = read_shard(path, dtype)
        whole = len(shard.sizes) == len(documents)
    except (FileNotFoundError, Damaged) as error:
        whole = False
        if isinstance(error, Damaged):
            damaged.add(path.name)
    if not whole:
        shard = encode_documents(tokenizer, documents)
        write_shard(path, shard, dtype)
    found = blake2b(shard.tokens.astype("<i4").data, digest_size=16)
    found.update(shard.sizes.astype("<i4", copy=False).data)
    return found.hexdigest()
