"""A corpus larger than memory, tokenised once into a memory-mapped cache.

A cache entry is a folder named by what its tokens follow from: the files' contents, the vocabulary,
whether duplicates were left out, and the version of cgpt. It holds shards of about a million
tokens, each written whole or not at all, and index.json last of all. So a preparation that was
killed goes on behind the last shard, and an entry with an index is complete. A cache may be deleted
at any time.

    shard       number of documents int64, their sizes int32, their tokens int16 or int32
    index.json  digests of the shards, what was read from each file, the first dialogue

Reading and parsing are Python's; the shards are encoded on threads meanwhile, which costs no
process and no copy since the encoder computes without the GIL.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.atomic import Output, folder_lock, write_file
from cgpt.documents import (
    Shard,
    TokenStore,
    encode_documents,
    in_shards,
    token_type,
)
from cgpt.errors import DataError
from cgpt.items import Dialogue, Message, n_characters, turn_fault
from cgpt.readers import FileReport, Reading, digest_of
from cgpt.tokenizer import Tokenizer

# Bytes of files from which on a corpus is prepared on disk. What a checkpoint says of its data
# differs on both sides, so a training that was begun on one cannot go on on the other.
LARGE_CORPUS = 1 << 26
_LAYOUT = 1                 # of a cache entry; part of its name

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Prepared:
    """A corpus in the cache.

    store   every document and dialogue in the order of the files
    first_dialogue  () where there is none
    entry   its folder
    cached  whether it was there before
    """

    store: TokenStore
    files: list[FileReport]
    first_dialogue: Dialogue
    entry: Path
    cached: bool


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Where caches lie: `given`, else $CGPT_CACHE, else cgpt in the user's cache folder."""
    chosen = given or os.environ.get("CGPT_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home, "cgpt")


def sampled(reading: Reading, share: float, progress: Progress | None = None) -> Iterator[str]:
    """The texts of about this share of the items: which ones follows from what they say alone.

    So the same items in any order and any files give the same sample. progress: as in `prepare`.
    """
    characters = 0
    for item in reading:
        characters += n_characters(item)
        if progress is not None:
            progress(characters)
        if int.from_bytes(digest_of(item)[:8], "little") < share * 2 ** 64:
            yield from (item,) if isinstance(item, str) else (turn.content for turn in item)


def prepare(reading: Reading, fingerprint: str, tokenizer: Tokenizer, folder: Path, *,
            unique: bool, threads: int = 1, progress: Progress | None = None) -> Prepared:
    """The corpus of `reading`, from the cache in `folder` or put there now.

    fingerprint  of the files' contents, `readers.fingerprint_of`
    progress     is called as progress(characters) when so many were read
    Where another process prepares the same, it is waited for.
    Raises DataError as `reading` does, where a file changes meanwhile, or where the folder cannot
    be used; CheckpointError (code "write") where a shard cannot be written.
    """
    import cgpt  # another version may read the same files as other documents

    parts = (cgpt.__version__, _LAYOUT, fingerprint, tokenizer.fingerprint(), unique)
    entry = folder / blake2b(" ".join(map(str, parts)).encode(), digest_size=16).hexdigest()
    try:
        entry.mkdir(parents=True, exist_ok=True)
        with folder_lock(entry):
            found = _load(entry, tokenizer)
            if found is not None:
                return found
            digests, first = _encode_all(reading, tokenizer, entry, threads, progress)
            if reading.fingerprint != fingerprint:
                raise DataError("a data file was changed while it was read; start again when "
                                "nothing writes to the data")
            index = {"digests": digests, "files": [asdict(one) for one in reading.files],
                     "first_dialogue": [[turn.role, turn.content] for turn in first]}
            _write(entry / "index.json", json.dumps(index).encode())
            found = _load(entry, tokenizer)
    except OSError as error:
        raise DataError(f"{entry}: the cache cannot be written or read ({error.strerror}); name "
                        "another folder by --cache or CGPT_CACHE, with room for the tokens"
                        ) from error
    if found is None:
        raise DataError(f"{entry}: the cache was changed while it was written; delete this folder")
    return replace(found, cached=False)


def _load(entry: Path, tokenizer: Tokenizer) -> Prepared | None:
    """A complete entry, or None where it is not there, not complete or damaged."""
    try:
        index = json.loads((entry / "index.json").read_bytes())
        _allow_open(len(index["digests"]))
        shards = [_map(_path(entry, number), _dtype(tokenizer), digest)
                  for number, digest in enumerate(index["digests"])]
        files = [FileReport(**one) for one in index["files"]]
        dialogue = tuple(Message(*one) for one in index["first_dialogue"])
        store = TokenStore(shards, tokenizer)
        whole = len(store) == sum(one.documents + one.dialogues for one in files)
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not whole or (dialogue and turn_fault(dialogue)):
        return None
    return Prepared(store, files, dialogue, entry, True)


def _allow_open(files: int) -> None:
    """Let this process hold so many files more, where the system can: every map keeps its own."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            most = soft + files if hard == resource.RLIM_INFINITY else min(soft + files, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype(token_type(tokenizer)).newbyteorder("<")


def _path(entry: Path, number: int) -> Path:
    return entry / f"{number:06}.shard"


def _map(path: Path, dtype: np.dtype[Any], digest: str = "") -> Shard:
    """A shard's sizes in memory, its tokens mapped.

    Raises OSError, or ValueError where it is damaged.
    """
    with open(path, "rb") as file:
        count = int(np.fromfile(file, "<i8", 1).sum())
        sizes = np.fromfile(file, "<i4", count) if 0 <= count <= os.path.getsize(path) else None
        if sizes is None or len(sizes) != count:
            raise ValueError("a shard cut short")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tokens = np.frombuffer(mapped, dtype, offset=8 + 4 * count)
    if len(tokens) != np.abs(sizes.astype(np.int64)).sum():
        raise ValueError("a shard of another length")
    return Shard(tokens, sizes, digest, mapped)


def _encode_all(reading: Reading, tokenizer: Tokenizer, entry: Path, threads: int,
                progress: Progress | None) -> tuple[list[str], Dialogue]:
    """Write every shard that is not there yet; their digests, and the first dialogue."""
    digests: list[str] = []
    first: Dialogue = ()
    waiting: deque[Future[str]] = deque()
    characters = 0
    with ThreadPoolExecutor(threads) as pool:
        for number, documents in enumerate(in_shards(reading)):
            first = first or next((one for one in documents if not isinstance(one, str)), ())
            waiting.append(pool.submit(_encode_one, tokenizer, entry, number, documents))
            if len(waiting) > threads:
                digests.append(waiting.popleft().result())
            characters += sum(map(n_characters, documents))
            if progress is not None:
                progress(characters)
        digests += [one.result() for one in waiting]
    return digests, first


def _encode_one(tokenizer: Tokenizer, entry: Path, number: int,
                documents: Sequence[str | Dialogue]) -> str:
    """Encode and write a shard, unless it is there whole; the digest of what is in it."""
    path, dtype = _path(entry, number), _dtype(tokenizer)
    try:
        shard = _map(path, dtype)
    except (FileNotFoundError, ValueError):
        shard = None
    if shard is None or len(shard.sizes) != len(documents):
        shard = encode_documents(tokenizer, documents)
        _write(path, np.array([len(shard.sizes)], "<i8"), shard.sizes.astype("<i4", copy=False),
               shard.tokens.astype(dtype, copy=False))
    found = blake2b(shard.tokens.astype("<i4").data, digest_size=16)
    found.update(shard.sizes.astype("<i4", copy=False).data)
    return found.hexdigest()


def _write(path: Path, *parts: Any) -> None:
    """Write buffers end to end; the file is there whole or not at all."""
    def write(out: Output) -> None:
        for part in parts:
            out.write(memoryview(part))

    write_file(path, sum(memoryview(part).nbytes for part in parts), write)
