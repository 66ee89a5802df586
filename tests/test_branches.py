"""Beams side by side in one pass give to the bit what each gives by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cgpt.config import GPTConfig, SamplingConfig
from cgpt.generation.beam import BatchedBeams
from cgpt.generation.context import Context
from cgpt.generation.generate import beam_search
from cgpt.models.gpt2 import GPT
from cgpt.models.quantized import with_weights

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=40, n_ff=70, vocab_size=90, block_size=24)
PROMPT = [5, 17, 80, 3, 3, 41]


class SeparateBeams:
    """What BatchedBeams does, by a context for each sequence."""

    def __init__(self, context: Context, *_: int) -> None:
        self._contexts = [context]

    def seen(self, i: int) -> np.ndarray:
        return self._contexts[i].seen(len(self._contexts[i]))

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        last = {parent: i for i, parent in enumerate(parents)}
        self._contexts = [
            self._contexts[parent] if last[parent] == i else self._contexts[parent].copy()
            for i, parent in enumerate(parents)
        ]
        return np.stack(
            [context.push(token) for context, token in zip(self._contexts, tokens, strict=True)]
        )


@pytest.fixture(params=["float32", "int8"])
def gpt(request: pytest.FixtureRequest) -> GPT:
    made = GPT(SHAPE, seed=3)
    for name, values in made.parameters().items():
        if name.endswith("weight") and values.ndim == 2:
            values *= 12  # so that the likeliest tokens are not those of every context
    return with_weights(made, request.param)


def filled(gpt: GPT) -> Context:
    context = Context(gpt)
    context.feed(PROMPT)
    return context


@pytest.mark.parametrize("most", [1, 3, 7])
def test_any_growth_has_the_same_bits(gpt, most):
    """Random parents, some with several children and some with none, past a full context."""
    rng, left = np.random.default_rng(most), 60
    one, other, n = BatchedBeams(filled(gpt), most, left), SeparateBeams(filled(gpt)), 1
    for _ in range(left):
        parents = rng.integers(0, n, rng.integers(1, most + 1)).tolist()
        tokens = rng.integers(0, 4, len(parents)).tolist()  # few: beginnings are often alike
        assert (one.grow(parents, tokens) == other.grow(parents, tokens)).all()
        n = len(parents)
        assert all(one.seen(i).tolist() == other.seen(i).tolist() for i in range(n))


def test_only_what_differs_is_copied(gpt, monkeypatch):
    grown, copied = BatchedBeams(filled(gpt), 2, 10), []
    copy = grown._copy

    def watched(source: int, target: int) -> None:
        before = grown._rows.keys.copy()
        copy(source, target)
        changed = (grown._rows.keys.view(np.int32) != before.view(np.int32)).any((0, 1, 2, 4))
        copied.append(int(changed.sum()))

    monkeypatch.setattr(grown, "_copy", watched)
    grown._rows.keys[1] = np.nan
    grown.grow([0, 0], [1, 2])  # the second is new: the whole prompt
    grown.grow([0, 1], [3, 4])
    grown.grow([1, 1], [5, 6])  # its brother's cache differs in two places
    assert copied == [len(PROMPT), 2]


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 4},
        {"beam": 9, "length_penalty": 0.3},
        {"beam": 3, "max_new_tokens": 40},
        {"beam": 5, "repetition_penalty": 1.3, "no_repeat_ngram": 2},
    ],
)
def test_a_search_finds_the_same(gpt, monkeypatch, options):
    sampling = SamplingConfig(**{"max_new_tokens": 15, **options})
    together = beam_search(gpt, PROMPT, sampling, [7], [2])
    monkeypatch.setattr("cgpt.generation.beam.BatchedBeams", SeparateBeams)
    assert beam_search(gpt, PROMPT, sampling, [7], [2]) == together
    assert len({tuple(one.ids) for one in together}) == len(together) > 1


def test_a_token_is_one_pass_and_the_callers_cache_is_its_own(gpt, monkeypatch):
    rows, run = [], gpt.decoder.run

    class Watched:
        def run(self, ids, *more):
            rows.append(len(ids))
            return run(ids, *more)

    monkeypatch.setitem(vars(gpt), "decoder", Watched())
    cache = gpt.new_cache()
    beam_search(gpt, PROMPT, SamplingConfig(beam=4, max_new_tokens=6), cache=cache)
    assert rows == [len(PROMPT), 4, 4, 4, 4, 4] and cache.length == len(PROMPT)
