"""The data of one phase of a run: in memory, or where it is large in the token cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.corpus import token_cache
from cgpt.corpus.documents import Documents, encode_in_memory
from cgpt.corpus.files import find_files, is_inside
from cgpt.corpus.invalid_rows import InvalidRows
from cgpt.corpus.reader import Corpus, FileReport, Reading, data_size, fingerprint_of, read_corpus
from cgpt.corpus.records import Dialogue
from cgpt.errors import CgptError, ConfigError, DataError, Phrase
from cgpt.kernels import get_num_threads
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.validation import path_list
from cgpt.version import __version__

SAMPLE_BYTES = 1 << 24  # about so much of a large corpus is what a vocabulary is learnt from
Mix = Sequence[tuple[str, float]]


class Source:
    """What the files and folders of one phase hold.

    paths   as given;  phase  "pretrain" (all of it) or "finetune" (the dialogues)
    mix     (path, weight): how often an epoch takes what lies at that path; of others once
    files   a report for each, complete once the data was read
    fingerprint  SHA-256 of the contents
    first_dialogue  () where there is none, or a large corpus was not read yet
    entry, cached, repaired  of a large corpus that was read: see `token_cache.Prepared`
    invalid  rows that cannot be used, complete like `files`
    required  whether a fine-tuning without dialogues is a fault
    skip_invalid, as_text, suffixes  as in `Reading`
    Raises DataError where the data cannot be used, ConfigError where a path of the mix is none of
    the data's.
    """

    def __repr__(self) -> str:
        return f"Source({', '.join(map(repr, self.paths))}, {self.phase})"

    def __init__(
        self,
        paths: Sequence[str],
        phase: str,
        *,
        unique: bool = True,
        mix: Mix = (),
        cache: Path | None = None,
        progress: token_cache.ReadProgress | None = None,
        required: bool = True,
        skip_invalid: bool = False,
        as_text: Sequence[str] = (),
        suffixes: Sequence[str] = (),
    ) -> None:
        self.paths = tuple(path_list("Source", paths))
        self.phase, self.unique = phase, unique
        self._skip_invalid = skip_invalid
        self._mix, self._cache, self._progress = tuple(mix), cache, progress
        self._required = required
        self.entry: Path | None = None
        self.cached = False
        self.repaired: tuple[str, ...] = ()
        self._found: Documents | None = None
        self._corpus: Corpus | None = None
        self.first_dialogue: Dialogue = ()
        self.size = sum(
            data_size(path, token_cache.LARGE_CORPUS)
            for path, skipped in find_files(self.paths, suffixes)
            if not skipped and os.path.isfile(path)
        )
        self.large = self.size >= token_cache.LARGE_CORPUS
        self.files: list[FileReport] = []
        self.invalid = InvalidRows()
        how: dict[str, Any] = {
            "unique": unique,
            "skip_invalid": skip_invalid,
            "as_text": as_text or False,
            "suffixes": suffixes,
        }
        if self.large:
            self.fingerprint = fingerprint_of(self.paths, suffixes)
            self._reading = Reading(self.paths, **how)
        else:
            self._corpus = read_corpus(self.paths, **how)
            self.invalid = self._corpus.invalid
            self.files, self.fingerprint = self._corpus.files, self._corpus.fingerprint
            self.first_dialogue = next(iter(self._corpus.dialogues), ())
            self._check()

    @property
    def reading_options(self) -> str:
        """As `Reading.reading_options`, of a large corpus."""
        return self._reading.reading_options if self.large else ""

    @property
    def n_documents(self) -> int:
        """Texts that are kept, of all files."""
        return sum(file.documents for file in self.files)

    @property
    def n_dialogues(self) -> int:
        """Dialogues that are kept, of all files."""
        return sum(file.dialogues for file in self.files)

    def texts(self) -> Iterator[str]:
        """What a vocabulary is learnt from: all texts, of a large corpus a sample of them."""
        if self._corpus is not None:
            return iter(self._corpus.texts())
        return token_cache.sampled(
            self._reading, min(1.0, SAMPLE_BYTES / self.size), self._progress
        )

    def documents(self, tokenizer: Tokenizer) -> Documents:
        """All that the phase trains on, encoded; a large corpus is prepared in the cache."""
        if self._found is None:
            found = self._encoded(tokenizer)
            if self._mix:
                weights = np.array(self.weights())[self._owners()][found.numbers]
                found = Documents(found.store, found.numbers, weights).only(weights > 0)
                if not len(found):
                    raise DataError(
                        "{phase}: the weights of mix leave nothing to train on; give at "
                        "least one above 0",
                        hint="mix",
                        phase=Phrase(self.phase),
                    )
            self._found = found
        return self._found

    def _encoded(self, tokenizer: Tokenizer) -> Documents:
        if self._corpus is not None:
            store = encode_in_memory(
                tokenizer, [*self._corpus.documents, *self._corpus.dialogues]
            ).store
        else:
            made = token_cache.prepare(
                self._reading,
                self.fingerprint,
                tokenizer,
                token_cache.cache_folder(self._cache),
                unique=self.unique,
                threads=get_num_threads(),
                progress=self._progress,
            )
            store, self.files, self.first_dialogue = made.store, made.files, made.first_dialogue
            self.entry, self.cached, self.repaired = made.entry, made.cached, made.repaired
            self.invalid = made.invalid
            if self.invalid and not self._skip_invalid:
                raise self.invalid.error()
            self._check()
        every = np.arange(len(store))
        return Documents(store, every if self.phase == "pretrain" else every[store.dialogues])

    def _check(self) -> None:
        if self._required and self.phase == "finetune" and not self.n_dialogues:
            raise DataError(
                "{paths}: no dialogues in the chat data, only {n} texts; name them for "
                "pre-training instead",
                paths=list(self.paths),
                n=self.n_documents,
            )

    def tokens_by_file(self, tokenizer: Tokenizer) -> list[int]:
        """Tokens that the phase trains on of each of `files`, specials included."""
        found = self.documents(tokenizer)
        owners = self._owners()[found.numbers]
        counts: list[int] = (
            np.bincount(owners, found.store.sizes[found.numbers], minlength=len(self.files))
            .astype(np.int64)
            .tolist()
        )
        return counts

    def long_by_file(self, tokenizer: Tokenizer, longest: int) -> list[int]:
        """Texts and dialogues of each of `files` with more tokens than a context of `longest`."""
        found = self.documents(tokenizer)
        long = found.lengths > longest
        counts: list[int] = np.bincount(
            self._owners()[found.numbers][long], minlength=len(self.files)
        ).tolist()
        return counts

    def weights(self) -> list[float]:
        """How often an epoch takes each of `files`; of entries that overlap the last one counts."""
        found = [1.0] * len(self.files)
        files = [os.path.realpath(file.path) for file in self.files]
        for path, weight in self._mix:
            folder = os.path.realpath(path)
            for number, file in enumerate(files):
                if is_inside(file, folder):
                    found[number] = weight
        return found

    def _owners(self) -> np.ndarray:
        """The file of each document of the store."""
        kinds = [[file.documents for file in self.files], [file.dialogues for file in self.files]]
        files = np.arange(len(self.files))
        if self._corpus is None:  # there the store has the order of the files
            return np.repeat(files, np.sum(kinds, axis=0))
        return np.repeat([*files, *files], [*kinds[0], *kinds[1]])


def check_paths(name: str, chosen: Iterable[str], paths: Sequence[str]) -> None:
    """Raises ConfigError where no file of the data lies at a path that the setting `name` has."""
    found = [os.path.realpath(path) for path, skipped in find_files(paths) if not skipped]
    for path in chosen:
        folder = os.path.realpath(path)
        if not any(is_inside(file, folder) for file in found):
            raise ConfigError(
                "{name}: no file of the data is {path} or lies in it; name a file or "
                "folder of the data",
                name=name,
                path=path,
            )


def learn_vocabulary(
    sources: Sequence[Source], vocab_size: int, kind: str, cache: Path | None = None
) -> Tokenizer:
    """A vocabulary of the sources' texts; where one of them is large it is kept in the cache."""

    def texts() -> Iterator[str]:
        for source in sources:
            yield from source.texts()

    if not any(source.large for source in sources):
        return Tokenizer.train(texts(), vocab_size, kind)
    parts = [__version__, kind, str(vocab_size), str(SAMPLE_BYTES)]
    parts += [
        f"{source.fingerprint} {source.unique} {source.reading_options}" for source in sources
    ]
    name = blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
    path = token_cache.cache_folder(cache) / f"{name}.json"
    try:
        return Tokenizer.load(path)
    except CgptError:
        pass  # not there yet, or damaged: it is learnt again
    tokenizer = Tokenizer.train(texts(), vocab_size, kind)
    tokenizer.save(path)
    return tokenizer
