"""Tokens picked by the kernels: what is written, and by a decoder in the call for the logits."""

# ruff: noqa: F811 - `module` is a fixture: imported here, an argument below

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sampling_reference as ref
from test_decoder import WIDE, caches, decoder, int32, tokens, weights
from test_kernels import module  # noqa: F401

from cgpt.config import SamplingConfig
from cgpt.generation.generate import generate_tokens
from cgpt.models.gpt2 import GPT

LIMITS = [
    {},
    {"temperature": 0.8},
    {"temperature": 1.5, "top_k": 9, "top_p": 0.9},
    {"temperature": 1.0, "min_p": 0.05},
]


def options(V: int, banned: Any = (), **settings: Any) -> dict[str, Any]:
    return {
        "V": V,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        **settings,
        "banned": int32(banned),
    }


def wanted(scores: np.ndarray, how: dict[str, Any], u: np.ndarray | None) -> list[int]:
    """What the reference picks where banned scores are -inf."""
    scores = scores.copy()
    scores[:, how["banned"]] = -np.inf
    return ref.pick_rows(scores, how["temperature"], how["top_k"], how["top_p"], how["min_p"], u)


@pytest.mark.parametrize(("R", "V"), [(0, 5), (1, 3), (3, 65), (33, 3000)])
@pytest.mark.parametrize("settings", LIMITS)
def test_each_row_is_picked_as_by_itself(module, R, V, settings):
    rng = np.random.default_rng(V)
    scores = (3 * rng.standard_normal((R, V))).astype(np.float32)
    before, u = scores.copy(), rng.random(R) if settings else None
    for banned in ((), np.unique(scores.argmax(1)), (V - 1, 0)):
        how, found = options(V, banned, **settings), np.full(R, -7, np.int32)
        module.TokenSampler(**how).sample(scores, u, found)
        assert found.tolist() == wanted(scores, how, u)
        assert (scores == before).all()


def test_where_nothing_can_be_picked(module):
    scores, found = np.zeros((3, 4), np.float32), np.zeros(3, np.int32)
    scores[0, 2], scores[1] = np.nan, -np.inf
    module.TokenSampler(**options(4)).sample(scores, None, found)
    assert found.tolist() == [-1, -1, 0]
    module.TokenSampler(**options(4, range(4))).sample(scores, None, found)
    assert found.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"banned": int32([5])}, r"banned\[0\]: found 5"),
        ({"top_p": 0.0}, "top_p: found 0"),
        ({"temperature": -1.0}, "temperature: found -1"),
        ({"top_k": -1}, "top_k: found -1"),
        ({"u": None}, "u: found None"),
        ({"u": np.ones(2)}, "u: found 1.0"),
        ({"u": np.zeros(3)}, "u: found 3, expected 2"),
        ({"tokens": int32([0])}, "tokens: found 1"),
        ({"scores": np.zeros((2, 4), np.float32)}, "vocabulary: found 5, expected 4"),
    ],
)
def test_wrong_calls_are_refused(module, changes, message):
    how = options(5, temperature=1.0)
    call = {"scores": np.zeros((2, 5), np.float32), "u": np.zeros(2), "tokens": int32([7, 7])}
    how |= {name: value for name, value in changes.items() if name in how}
    call |= {name: value for name, value in changes.items() if name in call}
    with pytest.raises(ValueError, match=message):
        module.TokenSampler(**how).sample(**call)
    assert set(call["tokens"].tolist()) <= {0, 7}


@pytest.mark.parametrize("settings", LIMITS)
@pytest.mark.parametrize("n", [1, 3, 70])
def test_a_decoder_picks_in_its_own_call(module, settings, n):
    """The same tokens as from the logits afterwards, with one thread and with two."""
    made, V = decoder(module, WIDE, weights(WIDE, "float32")), WIDE.vocab_size
    ids, zeros = tokens(WIDE, 80), np.zeros(80, np.int32)
    how = options(V, (3, 100), **settings)
    u = np.random.default_rng(1).random(n) if settings else None
    for threads in (1, 2):
        module.set_num_threads(threads)
        keys, values = caches(WIDE, 1, 80)
        logits, found = np.empty((n, V), np.float32), np.full(n, -7, np.int32)
        made.run(
            ids,
            int32(range(80)),
            zeros,
            keys,
            values,
            logits,
            None,
            module.TokenSampler(**how),
            u,
            found,
        )
        assert found.tolist() == wanted(logits, how, u)
    module.set_num_threads(1)


def test_a_decoder_refuses_picks_that_do_not_fit(module):
    made, V = decoder(module, WIDE, weights(WIDE, "float32")), WIDE.vocab_size
    keys, values = caches(WIDE, 1, 2)
    for size, rows, message in ((V, 1, "tokens: found 1, expected 2"), (V - 1, 2, "vocabulary")):
        with pytest.raises(ValueError, match=message):
            made.run(
                int32([0, 1]),
                int32([0, 1]),
                int32([0, 0]),
                keys,
                values,
                np.empty((2, V), np.float32),
                None,
                module.TokenSampler(**options(size)),
                None,
                np.empty(rows, np.int32),
            )
    assert np.isnan(keys).all()


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.9, "top_k": 20}])
def test_a_token_is_one_call(monkeypatch, settings):
    """No other kernel is called for a token, its choice included, unless options look back."""
    gpt, called = GPT(WIDE, seed=1), []
    monkeypatch.setattr("cgpt.generation.sampling.K.argmax", lambda *_: called.append("argmax"))
    monkeypatch.setattr("cgpt.generation.sampling.K.sample", lambda *_: called.append("draw"))
    found = list(
        generate_tokens(
            gpt,
            [1, 2, 3],
            SamplingConfig(max_new_tokens=9, seed=4, top_p=1.0, **settings),
            banned=[0],
        )
    )
    assert len(found) == 9 and not called
    with pytest.raises(TypeError):  # the replaced kernel gives None
        list(generate_tokens(gpt, [1, 2], SamplingConfig(presence_penalty=0.5, **settings)))
    assert called
