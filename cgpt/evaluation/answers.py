"""How many questions a model answers as expected: exactly, or with the answer inside its own."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from cgpt.config import SamplingConfig
from cgpt.corpus.encoding import encode_prompt
from cgpt.corpus.inputs import as_documents
from cgpt.corpus.records import Dialogue, Message
from cgpt.errors import DataError
from cgpt.generation.generate import generate_batch
from cgpt.generation.results import Recorder
from cgpt.language_model import LanguageModel
from cgpt.locale import N_
from cgpt.validation import check_int, expect, list_of

TOGETHER = 32  # questions that are answered at once


@dataclass(frozen=True)
class Answer:
    """One question: what was asked last, what was expected and what the model said.

    exact     both are the same but for blanks, width and case of letters, and closing marks
    contains  what was expected stands in what was said, compared likewise
    dropped   tokens of the turns before, the first, that the context had no room for
    """

    question: str
    expected: str
    found: str
    exact: bool
    contains: bool
    dropped: int = 0


@dataclass(frozen=True)
class Accuracy:
    """Shares of all questions, and their number; how many of them did not fit the context whole."""

    exact: float
    contains: float
    questions: int
    shortened: int = 0


def questions_of(dialogues: Iterable[Dialogue]) -> Iterator[tuple[list[Message], str]]:
    """Every turn of the assistant as (the messages before it, what was said)."""
    for dialogue in dialogues:
        for i, message in enumerate(() if isinstance(dialogue, str) else dialogue):
            if message.role == "assistant":
                yield list(dialogue[:i]), message.content


def answer(
    llm: LanguageModel, dialogues: Iterable[Dialogue], max_new_tokens: int = 128, most: int = 0
) -> Iterator[Answer]:
    """The model's most likely answer (greedy) to each question, after the turns as they are.

    most  number of questions, 0 for all
    Raises ConfigError for a number out of range, and DataError with the first that is no dialogue.
    """
    expect("answer", llm, LanguageModel, "an LLM")
    most = check_int("answer", "most", most, 0, (1 << 63) - 1)
    sampling = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.0)
    questions = questions_of(as_documents("answer", dialogues))
    if most:
        questions = islice(questions, most)
    return _answers(llm, questions, sampling)


def _answers(
    llm: LanguageModel, questions: Iterator[tuple[list[Message], str]], sampling: SamplingConfig
) -> Iterator[Answer]:
    while group := list(islice(questions, TOGETHER)):
        prompts = [encode_prompt(llm.tokenizer, before) for before, _ in group]
        recorders = [Recorder() for _ in prompts]
        rows = generate_batch(
            llm.gpt,
            prompts,
            sampling,
            stop=[llm.tokenizer.eos_id],
            banned=llm.banned_ids,
            recorders=recorders,
        )
        for (before, expected), row, recorder in zip(group, rows, recorders, strict=True):
            found = llm.tokenizer.decode(row)
            said, wanted = plain(found), plain(expected)
            yield Answer(
                before[-1].content,
                expected,
                found,
                said == wanted,
                wanted in said,
                recorder.dropped.tokens,
            )


def accuracy(answers: Sequence[Answer]) -> Accuracy:
    """The shares of right answers. Raises DataError where there is no question."""
    answers = list_of("accuracy", answers, Answer, N_("a list of answers"))
    if not answers:
        raise DataError("accuracy: no question; give files of dialogues, each with an answer")
    n = len(answers)
    return Accuracy(
        sum(one.exact for one in answers) / n,
        sum(one.contains for one in answers) / n,
        n,
        sum(one.dropped > 0 for one in answers),
    )


def plain(text: str) -> str:
    """A text as compared: width and case of letters, blanks and closing marks do not matter."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(".。!?;") or folded
