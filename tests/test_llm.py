"""LLM and TrainingState: what belongs together, losses, round trips."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm, small_tokenizer

from cgpt.config import GPTConfig, TrainConfig
from cgpt.corpus.encoding import encode_document
from cgpt.errors import ConfigError, DataError
from cgpt.language_model import TrainingState
from cgpt.llm import LLM
from cgpt.models.gpt2 import GPT
from cgpt.training.trainer import Trainer


def test_from_texts_learns_a_vocabulary_and_adapts_the_model():
    config = GPTConfig.preset("tiny", vocab_size=5000)
    llm = LLM.from_texts((text for text in TEXTS), config, seed=4)
    assert llm.config.vocab_size == len(llm.tokenizer) < 5000
    assert llm.config.n_embd == config.n_embd
    again = LLM.from_texts(TEXTS, config, seed=4)
    assert np.array_equal(llm.gpt.arena.data, again.gpt.arena.data)
    assert llm.tokenizer.words == again.tokenizer.words
    assert not np.array_equal(
        LLM(llm.tokenizer, GPT(llm.config, seed=5)).gpt.arena.data, llm.gpt.arena.data
    )


def test_the_default_model_knows_the_packaged_data():
    llm = LLM.default()
    assert len(llm.tokenizer) == llm.config.vocab_size <= GPTConfig.preset("small").vocab_size
    assert len(llm.tokenizer.encode("长江全长约")) <= 4
    assert llm.training_state == TrainingState() and llm.optimizer is None
    assert isinstance(llm.generate("山脉", max_new_tokens=3), str)


def test_loss_is_the_mean_over_the_tokens_of_all_texts():
    llm = small_llm(block_size=8)  # the texts are longer than the context
    total, counted = 0.0, 0
    for text in TEXTS:
        sample = encode_document(llm.tokenizer, text)
        for i in range(len(sample)):
            start = max(0, -(-(i + 1 - 8) // 4) * 4)  # of the first window of 8 that holds it
            logits = llm.gpt.logits([sample.ids[start : i + 1]])[0, -1].astype(np.float64)
            total += float(np.log(np.exp(logits).sum()) - logits[sample.targets[i]])
        counted += len(sample)
    assert llm.loss(TEXTS) == pytest.approx(total / counted, rel=1e-5)  # float32 logits
    assert llm.loss(TEXTS * 400) == pytest.approx(total / counted, rel=1e-5)
    assert llm.loss(DIALOGUES) != llm.loss(TEXTS)


@pytest.mark.parametrize(("texts", "message"), [([], "at least one"), ("山水", "one string")])
def test_nothing_to_predict_is_told(texts, message):
    with pytest.raises(DataError, match=message):
        small_llm().loss(texts)


def test_a_vocabulary_larger_than_the_embedding_is_told():
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=50, block_size=8)
    with pytest.raises(ConfigError, match="do not belong together"):
        LLM(small_tokenizer(), GPT(config))


def test_special_and_unnamed_ids_are_banned():
    llm = small_llm(vocab_size=len(small_tokenizer()) + 3)
    size = len(llm.tokenizer)
    assert llm.banned_ids == [0, 1, 3, 4, 5, size, size + 1, size + 2]


def test_generation_goes_on_from_the_text_without_repeating_it():
    llm = small_llm()
    Trainer(llm, TrainConfig(epochs=120, batch_tokens=128, lr=1e-2, warmup=5)).fit(TEXTS)
    assert llm.generate("天空是什么颜色") == "，天空是蓝色的。"
    assert llm.generate("天空是什么颜色", beam=3) == "，天空是蓝色的。"
    assert llm.generate("天空是什么颜色", max_new_tokens=3) == "，天空"
    draws = {llm.generate("", temperature=1.0, seed=seed) for seed in range(12)}
    assert len(draws) > 3


def test_training_state_round_trip_through_json():
    llm = small_llm()
    config = TrainConfig(epochs=2, batch_tokens=48, val_fraction=0.2)
    Trainer(llm, config).fit(TEXTS, should_stop=lambda: llm.training_state.step > 3)
    state = llm.training_state
    again = TrainingState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
    assert again == state and again.to_dict() == state.to_dict()
    assert TrainingState.from_dict({}) == TrainingState()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected an object"),
        ({"steps": 1}, "unknown field 'steps'"),
        ({"step": -1}, "step must be int"),
        ({"step": 1.5}, "step must be int"),
        ({"step": True}, "step must be int"),
        ({"seconds": float("nan")}, "seconds must be float"),
        ({"best_loss": "low"}, "best_loss must be float"),
        ({"done": "pretrain"}, "done must be"),
        ({"done": [1]}, "done must be"),
        ({"run": []}, "run must be"),
        ({"phase": None}, "phase must"),
        ({"history": {}}, "history must be"),
        ({"history": [["pretrain", 1, 2.0]]}, "history must be"),
        ({"history": [["pretrain", 1, None, None]]}, "history must be"),
    ],
)
def test_training_states_that_are_wrong_are_told(values, message):
    with pytest.raises(DataError, match=message):
        TrainingState.from_dict(values)


def test_begin_keeps_history_and_run():
    state = TrainingState(
        phase="pretrain",
        step=7,
        epoch=2,
        history=[["pretrain", 7, 1.0, None]],
        run={"seed": 1},
        data_fingerprint="x",
        best_loss=1.0,
        documents="d",
    )
    assert state.unfinished
    state.begin("finetune")
    assert state == TrainingState(
        phase="finetune",
        done=["pretrain"],
        run={"seed": 1},
        history=[["pretrain", 7, 1.0, None]],
        data_fingerprint="x",
    )
