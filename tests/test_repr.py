"""repr of every public object says what it is, on few lines and without what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm, trained_llm

import cgpt
from cgpt.models.quantized import with_weights

LONGEST = 2000


def made(folder: Path) -> dict[str, tuple[Any, str]]:
    """An object of each public class that is not a plain dataclass, and what its repr says."""
    llm = small_llm()
    trainer = cgpt.Trainer(llm, cgpt.TrainConfig(epochs=1))
    trainer.fit(TEXTS)
    (folder / "a.json").write_text('["长江全长"]', "utf-8")
    stream = trained_llm().stream("长江", 5)
    next(stream)
    session = cgpt.ChatSession(trained_llm())
    return {
        "LLM": (llm, "LLM(Tokenizer("),
        "fresh": (small_llm(), ", untrained)"),
        "GPT": (llm.gpt, "parameters, n_layer=2, n_head=2, n_embd=32, n_ff=128, vocab_size="),
        "int8": (with_weights(llm.gpt, "int8"), "QuantizedModel("),
        "read": (
            cgpt.load(cgpt.save_model_binary(llm, folder / "m.bin"), training=False).gpt,
            "block_size=64, read-only)",
        ),
        "Tokenizer": (llm.tokenizer, "304 tokens"),
        "StreamDecoder": (llm.tokenizer.decoder(), "StreamDecoder(304 tokens, 0 bytes"),
        "AdamW": (cgpt.AdamW(small_llm().gpt), "AdamW(betas=(0.9, 0.95), eps=1e-08, weight"),
        "Muon": (llm.optimizer, "Muon(momentum=0.95, betas="),
        "Lora": (cgpt.Lora(small_llm().gpt, 4, 8.0), "(rank=4, alpha=8, 8 matrices, "),
        "Trainer": (trainer, "Trainer(LLM(Tokenizer("),
        "TrainingState": (llm.training_state, "TrainingState(phase='pretrain'"),
        "KVCache": (llm.gpt.new_cache(), "KVCache(0 of 64 tokens, "),
        "ChatSession": (session, "ChatSession(0 turns, 0 of 96 tokens of context)"),
        "SamplingConfig": (cgpt.SamplingConfig(), "SamplingConfig(temperature=0.8"),
        "Generation": (trained_llm().generate("长江", 5), "finish_reason='length', 5 tokens)"),
        "TextStream": (stream, "<TextStream: under way, 1 tokens so far>"),
        "PieceStream": (trained_llm().continuation("长江"), "<PieceStream: under way"),
        "Continuation": (
            trained_llm().beam_search("长", cgpt.SamplingConfig(beam=2))[0],
            "Continuation(",
        ),
        "Score": (llm.score("长江"), "Score('长江'"),
        "CheckpointManager": (cgpt.CheckpointManager(folder), "CheckpointManager('"),
        "Corpus": (cgpt.read_corpus([folder / "a.json"]), "Corpus(1 documents, 0 dialogues of 1"),
        "Source": (cgpt.Source([str(folder / "a.json")], "pretrain"), "a.json', pretrain)"),
        "Message": (DIALOGUES[0][0], "Message(role='user'"),
    }


def test_public_objects_say_what_they_are(tmp_path: Path) -> None:
    for name, (one, said) in made(tmp_path).items():
        assert said in repr(one), name
        assert len(repr(one)) < LONGEST and " object at 0x" not in repr(one), name


@pytest.mark.parametrize(
    "name", [name for name in cgpt.__all__ if isinstance(getattr(cgpt, name), type)]
)
def test_no_public_class_has_the_repr_of_any_object(name: str) -> None:
    public = getattr(cgpt, name)
    if name in ("CancelToken", "Callback"):  # what users bring themselves
        return
    assert public.__repr__ is not object.__repr__


def test_a_repr_of_much_data_is_short() -> None:
    state = cgpt.TrainingState(
        history=[["pretrain", i, 1.0, None] for i in range(5000)], run={"paths": ["x"] * 5000}
    )
    assert len(repr(state)) < LONGEST
    long = cgpt.Generation("长" * 9999, ids=range(9999), logprobs=np.zeros(9999).tolist())
    assert len(repr(long)) < 200
