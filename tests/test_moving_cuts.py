"""Where texts longer than the context are cut moves from epoch to epoch, seeded and resumable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_llm import DIALOGUES, TEXTS, small_llm, small_tokenizer

import cgpt.training.trainer
from cgpt.checkpoint.saving import save_model_binary
from cgpt.config import TrainConfig
from cgpt.corpus import documents as documents_module
from cgpt.corpus import token_cache
from cgpt.corpus.documents import Documents, Samples, encode_in_memory
from cgpt.corpus.encoding import IGNORED
from cgpt.corpus.sources import Source
from cgpt.language_model import TrainingState
from cgpt.llm import LLM, load_model_auto
from cgpt.training.epochs import Epochs
from cgpt.training.trainer import Trainer

LONGEST = 20
LONG = "长江全长约六千公里。" * 5
MIXED = [*TEXTS, LONG, DIALOGUES[0], LONG[:21], LONG[:19], LONG[3:] * 2]
CONFIG = TrainConfig(epochs=4, batch_tokens=LONGEST, lr=3e-3, warmup=2, dropout=0.1, seed=3)
BLOCK = {"block_size": LONGEST}


def windows(epochs: Epochs, epoch: int) -> list[tuple[int, ...]]:
    plan = epochs.plan(epoch)
    return [tuple(plan.samples[i].targets.tolist()) for i in sorted(plan.order.tolist())]


def tokens_in(found: list[tuple[int, ...]]) -> list[int]:
    return sorted(token for window in found for token in window if token != IGNORED)


def planned(documents: Documents, **more: bool) -> Epochs:
    return Epochs(
        Samples(documents, LONGEST), small_tokenizer(), CONFIG, "pretrain", LONGEST, **more
    )


def test_every_epoch_cuts_elsewhere_and_holds_every_token() -> None:
    documents = encode_in_memory(small_tokenizer(), MIXED)
    moving, fixed = planned(documents), planned(documents, moving_cuts=False)
    first = windows(moving, 0)
    assert first == windows(fixed, 0) == windows(fixed, 1)
    others = [windows(moving, epoch) for epoch in range(1, 6)]
    assert len({tuple(sorted(one)) for one in [first, *others]}) == 6
    for one in others:
        assert tokens_in(one) == tokens_in(first)
        assert all(0 < len(window) <= LONGEST for window in one)
    assert others == [windows(planned(documents), epoch) for epoch in range(1, 6)]
    other_seed = Epochs(
        Samples(documents, LONGEST), small_tokenizer(), replace(CONFIG, seed=4), "pretrain", LONGEST
    )
    assert windows(other_seed, 0) == first and windows(other_seed, 1) != others[0]


@given(st.lists(st.integers(0, 70), min_size=1, max_size=12), st.data())
def test_windows_follow_one_another_without_a_gap(lengths: list[int], data: st.DataObject) -> None:
    tokenizer = small_tokenizer()
    documents = [LONG[:1] * length for length in lengths]
    weights = np.arange(1.0, len(documents) + 1)
    store = encode_in_memory(tokenizer, documents)
    samples = Samples(Documents(store.store, store.numbers, weights), LONGEST)
    firsts = data.draw(
        st.lists(st.integers(0, LONGEST - 1), min_size=samples.n_long, max_size=samples.n_long)
    )
    found = samples.recut(np.array(firsts, np.int64))
    assert samples.n_long == sum(length + 1 > LONGEST for length in lengths)
    spans: dict[int, list[tuple[int, int]]] = {}
    for number, first, length, weight in zip(
        found._numbers.tolist(),
        found._firsts.tolist(),
        found.lengths.tolist(),
        found.weights.tolist(),
        strict=True,
    ):
        spans.setdefault(number, []).append((first, first + length))
        assert weight == weights[number] and 0 < length <= LONGEST
    cut = iter(firsts)
    for number, length in enumerate(lengths):
        assert [start for start, _ in spans[number]] == [0, *(end for _, end in spans[number][:-1])]
        assert spans[number][-1][1] == length + 1
        if length + 1 > LONGEST:
            assert spans[number][0][1] == (next(cut) or LONGEST)
    assert len(found) == sum(map(len, spans.values()))


def test_dialogues_stay_as_they_are_cut() -> None:
    long = (DIALOGUES[0][0], replace(DIALOGUES[0][1], content=LONG))
    epochs = planned(encode_in_memory(small_tokenizer(), [long, *DIALOGUES]))
    assert windows(epochs, 0) == windows(epochs, 1)


def outcome(llm: LLM) -> tuple:
    state = llm.training_state.to_dict()
    state.pop("seconds")
    return llm.gpt.arena.data.tobytes(), llm.gpt.arena.m.tobytes(), state


def stopped_after(steps: int):
    left = count(1)
    return lambda: next(left) >= steps


def test_every_step_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, fixed = small_llm(**BLOCK), small_llm(**BLOCK)
    result = Trainer(whole, CONFIG).fit(MIXED)
    assert result.steps == whole.training_state.total_steps and whole.training_state.moving_cuts
    Trainer(fixed, replace(CONFIG, epochs=1)).fit(MIXED)
    steps_of_one = fixed.training_state.step
    assert result.steps > 4 * steps_of_one  # one more window of a text that is cut early
    llm = small_llm(**BLOCK)
    for _ in range(1, result.steps):
        Trainer(llm, CONFIG).fit(MIXED, should_stop=stopped_after(1))
        llm = load_model_auto(save_model_binary(llm, tmp_path / "m.bin"))
    Trainer(llm, CONFIG).fit(MIXED)
    assert outcome(llm) == outcome(whole)


def test_the_cache_of_a_large_corpus_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import json

    texts = [one for one in MIXED if isinstance(one, str)]
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(texts), "utf-8")
    whole, mapped = small_llm(**BLOCK), small_llm(**BLOCK)
    Trainer(whole, CONFIG).fit(texts)
    monkeypatch.setattr(token_cache, "LARGE_CORPUS", 0)
    monkeypatch.setattr(documents_module, "SHARD_CHARACTERS", 20)
    source = Source([str(path)], "pretrain", cache=tmp_path / "cache")
    Trainer(mapped, CONFIG).fit(source.documents(mapped.tokenizer))
    assert source.entry is not None
    assert outcome(mapped)[:2] == outcome(whole)[:2]


def test_what_an_older_version_began_goes_on_with_its_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    old, llm = small_llm(**BLOCK), small_llm(**BLOCK)
    moving, new = small_llm(**BLOCK), Epochs
    Trainer(moving, CONFIG).fit(MIXED)

    def fixed(*given: object, **named: object) -> Epochs:
        return new(*given, **{**named, "moving_cuts": False})  # type: ignore[arg-type]

    monkeypatch.setattr(cgpt.training.trainer, "Epochs", fixed)
    Trainer(old, CONFIG).fit(MIXED)
    Trainer(llm, CONFIG).fit(MIXED, should_stop=stopped_after(old.training_state.step // 2))
    monkeypatch.undo()
    values = llm.training_state.to_dict()
    assert values.pop("moving_cuts")  # which that version did not write
    llm.training_state = TrainingState.from_dict(values)
    Trainer(llm, CONFIG).fit(MIXED)
    assert outcome(llm)[:2] == outcome(old)[:2] != outcome(moving)[:2]
    again = partial(Trainer(llm, CONFIG).fit, MIXED)
    assert again().steps == moving.training_state.step  # a new phase moves them
    assert llm.training_state.moving_cuts
