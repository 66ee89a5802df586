"""Documents and dialogues -> tokens -> packed batches; files are read in cgpt/corpus/reader.py.

A document is <bos> text <eos>, every token of which carries loss. A dialogue is
    <bos> [<system> text] <user> text <assistant> text <eos> <user> text <assistant> text <eos>
and only the assistant's text and its <eos> carry loss.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgpt.corpus.records import Message, turn_fault
from cgpt.errors import DataError
from cgpt.tokenizers.chat_template import template_of
from cgpt.tokenizers.tokenizer import Tokenizer

IGNORED = -1  # the target of a token that carries no loss


@dataclass(frozen=True)
class Sample:
    """ids (n,) int32; targets (n,) int32: the token that follows ids[i], -1 for no loss."""

    ids: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Documents laid end to end, without padding.

    ids, targets, positions  (N,) int32   positions start at 0 in each document
    offsets                  (D+1,) int32 document borders, offsets[0] = 0, offsets[D] = N
    counted                  targets that carry loss
    """

    ids: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    positions: np.ndarray
    counted: int


def encode_document(tokenizer: Tokenizer, text: str) -> Sample:
    """ids = <bos> text, targets = text <eos>."""
    tokens = np.array(
        [*template_of(tokenizer).opening, *tokenizer.encode(text), tokenizer.eos_id], dtype=np.int32
    )
    return Sample(tokens[:-1], tokens[1:])


def encode_dialogue(tokenizer: Tokenizer, dialogue: Sequence[Message]) -> Sample:
    """The dialogue by the template above. Raises DataError where the turns do not alternate."""
    check_turns(dialogue, "assistant")
    template = template_of(tokenizer)
    tokens, loss_mask = list(template.start), [False] * len(template.start)
    for message in dialogue:
        found = template.message(message.role, message.content)
        n_masked = len(template.generation_prompt) if message.role == "assistant" else len(found)
        tokens += found
        loss_mask += [False] * n_masked + [True] * (len(found) - n_masked)
    ids = np.array(tokens, dtype=np.int32)
    return Sample(ids[:-1], np.where(loss_mask[1:], ids[1:], np.int32(IGNORED)))


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The template up to the answer that is due: messages end with the user's, ids with
    <assistant>. Raises DataError where the turns do not alternate."""
    check_turns(messages, "user")
    template = template_of(tokenizer)
    return [
        *template.start,
        *(
            token
            for message in messages
            for token in template.message(message.role, message.content)
        ),
        *template.generation_prompt,
    ]


def split_samples(samples: Iterable[Sample], block_size: int) -> list[Sample]:
    """Samples longer than block_size cut into windows; windows without any loss are left out."""
    windows: list[Sample] = []
    for sample in samples:
        for start in range(0, len(sample), block_size):
            targets = sample.targets[start : start + block_size]
            if (targets != IGNORED).any():
                windows.append(Sample(sample.ids[start : start + block_size], targets))
    return windows


def pack(samples: Iterable[Sample], batch_tokens: int) -> list[Batch]:
    """Batches of at most batch_tokens tokens, in the order given; the last may be short.

    A sample longer than batch_tokens is a batch of its own.
    """
    return list(packed(samples, batch_tokens))


def packed(samples: Iterable[Sample], batch_tokens: int) -> Iterator[Batch]:
    """The batches of `pack`, one by one."""
    group: list[Sample] = []
    room = batch_tokens
    for sample in samples:
        if not len(sample):
            continue
        if group and len(sample) > room:
            yield _batch(group)
            group, room = [], batch_tokens
        group.append(sample)
        room -= len(sample)
    if group:
        yield _batch(group)


def packaged_data() -> tuple[Path, Path]:
    """(pre-training file, chat file) that come with cgpt. Raises DataError where they are missing.

    A wheel holds them in cgpt/_data; a source tree in data/ next to the package.
    """
    package = Path(os.path.abspath(__file__)).parents[1]
    folder = package / "_data"
    if not folder.is_dir():
        folder = package.parent / "data"
    files = folder / "pretraining_data.json", folder / "chat_training_data.json"
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: the data that comes with cgpt is missing; install cgpt again")
    return files


def check_turns(messages: Sequence[Message], last: str) -> None:
    """Raises DataError where the turns do not alternate or the last is not from `last`."""
    if not isinstance(messages, (list, tuple)) or not all(
        isinstance(message, Message) for message in messages
    ):
        raise DataError(
            f"dialogue: expected Message(role, content) one after the other, found "
            f"{messages!r:.100}"
        )
    fault = turn_fault(messages, last)
    if fault:
        raise DataError(f"dialogue: {fault}")


def _batch(samples: list[Sample]) -> Batch:
    sizes = [len(sample) for sample in samples]
    offsets = np.zeros(len(sizes) + 1, dtype=np.int32)
    np.cumsum(sizes, out=offsets[1:])
    targets = np.concatenate([sample.targets for sample in samples])
    positions = np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], sizes)
    return Batch(
        np.concatenate([sample.ids for sample in samples]),
        targets,
        offsets,
        positions,
        int(np.count_nonzero(targets != IGNORED)),
    )
