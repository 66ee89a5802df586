"""The shipped data: enough of it, every fact in several wordings, nothing held out leaks."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from cgpt.corpus.files import packaged_data
from cgpt.corpus.reader import read_corpus

REWORDINGS = json.loads((Path(__file__).parent / "data" / "rewordings.json").read_text("utf-8"))


def test_enough_of_it() -> None:
    pretraining, chat = packaged_data()
    documents = read_corpus([pretraining]).documents
    dialogues = read_corpus([chat]).dialogues
    assert len(documents) == len(set(documents)) >= 600
    assert len(dialogues) == len(set(dialogues)) >= 900
    assert sum(2 < len(d) <= 8 for d in dialogues) >= 100
    assert max(len(d) for d in dialogues) <= 8


def test_every_fact_is_asked_in_three_wordings() -> None:
    wordings = defaultdict(set)
    for dialogue in read_corpus([packaged_data()[1]]).dialogues:
        if len(dialogue) == 2:
            wordings[dialogue[1].content].add(dialogue[0].content)
    assert len(wordings) >= 300
    assert min(len(questions) for questions in wordings.values()) >= 3


def test_one_history_has_one_answer() -> None:
    answers = defaultdict(set)
    for dialogue in read_corpus([packaged_data()[1]]).dialogues:
        for turn in range(1, len(dialogue), 2):
            answers[dialogue[:turn]].add(dialogue[turn].content)
    assert not [history for history, found in answers.items() if len(found) > 1]


def test_rewordings_are_held_out() -> None:
    asked = {
        message.content
        for dialogue in read_corpus([packaged_data()[1]]).dialogues
        for message in dialogue
        if message.role == "user"
    }
    answers = {
        message.content
        for dialogue in read_corpus([packaged_data()[1]]).dialogues
        for message in dialogue
        if message.role == "assistant"
    }
    assert len(REWORDINGS) >= 60
    for item in REWORDINGS:
        assert item["question"] not in asked
        assert item["answer"] in answers
        assert item["core"] and all(word in item["answer"] for word in item["core"])
