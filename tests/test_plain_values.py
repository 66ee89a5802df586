"""NumPy's scalars and subclasses of str, int and float are taken wherever plain values are."""

from __future__ import annotations

import enum
import json
from typing import Any

import numpy as np
import pytest

from cgpt.config import GPTConfig, SamplingConfig, TrainConfig
from cgpt.errors import ConfigError, shown
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW
from cgpt.optim.schedules import schedule
from cgpt.validation import plain


class Text(str):
    """As an application may have it."""


class Named(str, enum.Enum):
    COSINE = "cosine"


class Count(enum.IntEnum):
    THREE = 3


PAIRS: list[tuple[Any, Any]] = [
    (np.int64(3), 3),
    (np.uint8(3), 3),
    (np.float32(0.5), 0.5),
    (np.float64(0.5), 0.5),
    (np.longdouble(0.5), 0.5),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (Text("a"), "a"),
    (Named.COSINE, "cosine"),
    (Count.THREE, 3),
    (np.array(3), 3),
    ([np.int8(1)], [1]),
    ((Text("x"),), ("x",)),
    ({np.int32(1): np.float16(2)}, {1: 2.0}),
]


@pytest.mark.parametrize(("given", "wanted"), PAIRS, ids=lambda one: repr(one))
def test_values_become_plain(given: Any, wanted: Any) -> None:
    found = plain(given)
    assert found == wanted and type(found) is type(wanted)
    assert json.dumps(plain([given])) == json.dumps([wanted])


def test_other_values_stay() -> None:
    for value in (None, object(), np.arange(3), b"x", 1j):
        assert plain(value) is value


def test_configurations_hold_plain_values() -> None:
    shape = GPTConfig(n_layer=np.int64(1), n_head=Count.THREE, n_embd=np.uint16(9), n_ff=np.int8(0))
    assert shape == GPTConfig(n_layer=1, n_head=3, n_embd=9) and shape.n_ff == 36
    training = TrainConfig(
        epochs=np.int64(2),
        lr=np.float32(0.5),
        schedule=Named.COSINE,
        recompute=np.bool_(True),
        freeze=(np.str_("h.*"),),
    )
    sampling = SamplingConfig(
        temperature=np.float32(0.5),
        top_k=np.int64(3),
        seed=np.uint64(1),
        stop=[Text("。")],
        logit_bias={np.int64(5): np.float32(-1)},
    )
    for config in (shape, training, sampling):
        assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert training.schedule == "cosine" and type(training.schedule) is str
    assert GPTConfig.preset(Text("tiny")) == GPTConfig.preset("tiny")


def test_calls_take_them() -> None:
    gpt = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=9, block_size=4), np.int64(3))
    assert np.array_equal(gpt.arena.data, GPT(gpt.config, 3).arena.data)
    gpt.gradients()
    optimizer = AdamW(gpt, betas=(np.float32(0.5), 0.5), eps=np.float64(1e-8))
    optimizer.step(np.float32(1e-3), clip=np.int64(1))
    assert json.dumps(optimizer.to_dict())
    assert schedule(np.int64(3), lr=np.float32(1), warmup=np.int64(2), total=9) == schedule(
        3, lr=1.0, warmup=2, total=9
    )


@pytest.mark.parametrize(
    "wrong",
    [
        dict(kind="nope"),
        dict(kind=None),
        dict(kind=["wsd"]),
        dict(lr="1"),
        dict(lr=float("nan")),
        dict(lr=10**400),
        dict(warmup=-1),
        dict(total=2.5),
        dict(min_lr_ratio=2),
        dict(decay=0),
    ],
)
def test_a_schedule_of_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"schedule: .*{next(iter(wrong))}"):
        schedule(0, **{"lr": 1.0, "warmup": 2, "total": 9, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        dict(betas=0.9),
        dict(betas=(0.9,)),
        dict(betas=("a", 0.9)),
        dict(betas=None),
        dict(eps="x"),
        dict(weight_decay=float("nan")),
        dict(freeze="wte*"),
        dict(freeze=[3]),
        dict(freeze=None),
        dict(embedding_lr=True),
        dict(gpt=None),
        dict(gpt="model.bin"),
    ],
)
def test_an_optimizer_of_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    gpt = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=9, block_size=4))
    with pytest.raises(ConfigError):
        AdamW(**{"gpt": gpt, **wrong})


def test_fields_are_a_mapping() -> None:
    for wrong in (None, [], "x", 3):
        with pytest.raises(ConfigError, match="expected the fields by name"):
            TrainConfig.from_dict(wrong)  # type: ignore[arg-type]


def test_what_is_shown_of_a_value_is_short() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown("a") == "'a'" and len(shown("a" * 99)) == 60
    assert shown(10**9999) == "<int>" and shown(Broken()) == "<Broken>"
    with pytest.raises(ConfigError, match="found <int>"):
        GPTConfig(n_layer=10**9999)
