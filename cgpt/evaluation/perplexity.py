"""How well a model predicts text: nats per token, bits per character, bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from cgpt.corpus.encoding import Sample
from cgpt.corpus.inputs import Document, as_documents
from cgpt.corpus.reader import Corpus
from cgpt.errors import DataError
from cgpt.evaluation.answers import Accuracy
from cgpt.evaluation.scoring import packed_windows, sample_of, stride_of, summed_loss, windows
from cgpt.language_model import LanguageModel
from cgpt.locale import N_
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.validation import expect, list_of

_NO_TEXT = N_(
    "evaluate: no text to predict; give at least one document with text, or a dialogue with an "
    "answer"
)


@dataclass(frozen=True)
class EvalResult:
    """Totals over everything that carries loss; eos is a token but no character.

    loss                mean, nats per token
    tokens              counted tokens; characters and bytes (UTF-8) of their text
    perplexity          exp(loss), infinite where that is too large
    bits_per_character  total bits / characters: compares models of different vocabularies
    bits_per_byte       total bits / bytes
    """

    loss: float
    tokens: int
    characters: int
    bytes: int
    perplexity: float
    bits_per_character: float
    bits_per_byte: float

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def evaluate(
    llm: LanguageModel, samples: Iterable[Sample | Document], *, stride: int | None = None
) -> EvalResult:
    """Loss of the model on texts, dialogues or samples of `llm.samples`.

    stride  of the windows in which what is longer than the context is measured, as of `LLM.score`;
            samples are taken as they were cut
    Raises DataError where there is no character to predict, or one of them is nothing of these;
    ConfigError for a stride out of range.
    """
    expect("evaluate", llm, LanguageModel, "an LLM")
    stride, found = stride_of("evaluate", llm.config, stride), list[Sample]()
    for one in as_documents("evaluate", samples, Sample):
        found += (
            [one]
            if isinstance(one, Sample)
            else windows(sample_of(llm.tokenizer, one), llm.config.block_size, stride)
        )
    total, tokens = summed_loss(llm.gpt, found)
    characters, size = _measure(llm.tokenizer, found)
    if not characters:
        raise DataError(_NO_TEXT)
    return _result(total, tokens, characters, size)


def _result(total: float, tokens: int, characters: int, size: int) -> EvalResult:
    """Totals (nats, counts) as means."""
    loss, bits = total / tokens, total / math.log(2)
    return EvalResult(
        loss=loss,
        tokens=tokens,
        characters=characters,
        bytes=size,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_character=bits / characters,
        bits_per_byte=bits / size,
    )


@dataclass(frozen=True)
class DocumentScore:
    """What one document cost: total loss in nats, counted tokens, characters, UTF-8 bytes."""

    nats: float
    tokens: int
    characters: int
    bytes: int


def score_documents(
    llm: LanguageModel, documents: Iterable[Document], stride: int | None = None
) -> list[DocumentScore]:
    """The cost of each document or dialogue by itself, in order; stride as of `evaluate`."""
    expect("score_documents", llm, LanguageModel, "an LLM")
    stride = stride_of("score_documents", llm.config, stride)
    samples = [sample_of(llm.tokenizer, one) for one in as_documents("score_documents", documents)]
    totals = np.zeros((len(samples), 4))
    sizes = _sizes(llm.tokenizer)
    for batch, owners in packed_windows(samples, llm.config.block_size, stride):
        losses = llm.gpt.losses(batch.ids, batch.targets, offsets=batch.offsets)
        losses = losses.astype(np.float64)
        for owner, (start, end) in zip(owners, pairwise(batch.offsets), strict=True):
            targets = batch.targets[start:end]
            counted = targets[targets >= 0]
            totals[owner] += (losses[start:end].sum(), len(counted), *sizes[:, counted].sum(axis=1))
    return [
        DocumentScore(float(nats), int(tokens), int(characters), int(size))
        for nats, tokens, characters, size in totals
    ]


def total_of(scores: Iterable[DocumentScore]) -> EvalResult:
    """The totals of documents. Raises DataError where there is no character to predict."""
    scores = list_of("total_of", scores, DocumentScore, N_("a list of scores"))
    rows = np.array([(one.nats, one.tokens, one.characters, one.bytes) for one in scores])
    if not len(rows) or not rows[:, 2].sum():
        raise DataError(_NO_TEXT)
    nats, tokens, characters, size = rows.sum(axis=0)
    return _result(float(nats), int(tokens), int(characters), int(size))


@dataclass(frozen=True)
class Difference:
    """How much better or worse one model predicts the same documents than another.

    bits_per_character  of the second less those of the first: below 0 the second is better
    relative            that over the first's
    low, high           95 % interval of bits_per_character, over the choice of documents; None
                        for a single document
    better              documents that the second predicts better; documents: all of them
    """

    bits_per_character: float
    relative: float
    low: float | None
    high: float | None
    better: int
    documents: int


def difference(first: Sequence[DocumentScore], second: Sequence[DocumentScore]) -> Difference:
    """Of two models on the same documents, document by document.

    The interval is that of a ratio of sums: Cochran 1977, "Sampling Techniques", section 6.4.
    Raises DataError where the documents are not the same or have no character.
    """
    first, second = (
        list_of("difference", scores, DocumentScore, N_("a list of scores"))
        for scores in (first, second)
    )
    if [one.characters for one in first] != [one.characters for one in second]:
        raise DataError(
            "difference: the scores are of other documents; score both models on the same ones"
        )
    before = total_of(first)
    characters = np.array([one.characters for one in first], np.float64)
    bits = np.array(
        [other.nats - one.nats for one, other in zip(first, second, strict=True)]
    ) / math.log(2)
    n, ratio = len(bits), float(bits.sum() / characters.sum())
    low = high = None
    if n > 1:
        spread = float(np.square(bits - ratio * characters).sum())
        half = 1.96 * math.sqrt(n / (n - 1) * spread) / float(characters.sum())
        low, high = ratio - half, ratio + half
    return Difference(
        ratio, ratio / before.bits_per_character, low, high, int(np.count_nonzero(bits < 0)), n
    )


@dataclass
class ModelScores:
    """One model on several files.

    whole   of all files together;  files  (path, result) of each where there are several
    scores  of every document, in their order
    """

    name: str
    whole: EvalResult
    files: list[tuple[str, EvalResult]]
    scores: list[DocumentScore] = field(repr=False)
    stride: int
    accuracy: Accuracy | None = None

    def to_dict(self, paths: Sequence[str]) -> dict[str, Any]:
        """As `--json` has it."""
        found = {
            "model": self.name,
            "paths": list(paths),
            **self.whole.to_dict(),
            "stride": self.stride,
            "files": [{"path": path, **part.to_dict()} for path, part in self.files],
        }
        if self.accuracy is not None:
            found["accuracy"] = asdict(self.accuracy)
        return found

    def difference(self, other: ModelScores) -> Difference:
        """How much better or worse another model is on the same documents."""
        return difference(self.scores, other.scores)


def score_files(
    name: str, llm: LanguageModel, corpora: Sequence[tuple[str, Corpus]], stride: int | None = None
) -> ModelScores:
    """A model on files that were read; stride of the windows, half the context if None."""
    stride = stride_of("eval", llm.config, stride)
    parts = [
        (path, score_documents(llm, [*corpus.documents, *corpus.dialogues], stride))
        for path, corpus in corpora
    ]
    scores = [one for _, part in parts for one in part]
    files = [(path, total_of(part)) for path, part in parts] if len(parts) > 1 else []
    return ModelScores(name, total_of(scores), files, scores, stride)


def _sizes(tokenizer: Tokenizer) -> np.ndarray:
    """(2, V): characters and UTF-8 bytes of each token."""
    # A byte counts as a character unless it continues one.
    return np.array(
        [
            [sum(byte & 0xC0 != 0x80 for byte in token), len(token)]
            for token in tokenizer.token_bytes()
        ],
        dtype=np.int64,
    ).T


def _measure(tokenizer: Tokenizer, samples: Iterable[Sample]) -> tuple[int, int]:
    """Characters and UTF-8 bytes of the targets that carry loss."""
    sizes = _sizes(tokenizer)
    characters = size = 0
    for sample in samples:
        counted = sizes[:, sample.targets[sample.targets >= 0]].sum(axis=1)
        characters += int(counted[0])
        size += int(counted[1])
    return characters, size
