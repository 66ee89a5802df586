"""Each sampling option against the exact distribution, and what the options promise otherwise.

The test of a distribution is Pearson's: the sum of (found - expected)^2 / expected over cells of
at least 5 expected draws is chi-squared with cells - 1 = k degrees of freedom, mean k and
deviation sqrt(2k). The bound k + 5 sqrt(2k) + 10 is passed by chance less than once in a million
(the + 10 is for few cells, where the tail is longer). Seeds are fixed, so a test that passes
passes always.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import sampling_reference as ref

from cgpt import kernels
from cgpt.config import SamplingConfig
from cgpt.errors import CgptError, ConfigError
from cgpt.generation.sampling import Sampler, Uniforms, logprob

V, DRAWS = 60, 40000
RNG = np.random.default_rng(11)
LOGITS = (1.5 * RNG.standard_normal(V)).astype(np.float32)
LOGITS[7] = LOGITS[8]  # a tie
SEEN = np.array([*RNG.integers(0, V, 30), 3, 3, 3, 5, 9, 5, 9, 5], np.int32)
BANNED, STOP = [0, 1, 40], [3]


def exact(sampling: SamplingConfig) -> ref.Array:
    """(V,) probabilities of the next token behind SEEN, in the order that sampling.py says."""
    scores = ref.apply_penalties(
        LOGITS,
        SEEN,
        sampling.repetition_penalty,
        sampling.presence_penalty,
        sampling.frequency_penalty,
    )
    scores[STOP] = LOGITS[STOP]
    for token, bias in sampling.logit_bias:
        scores[token] += bias
    n = sampling.no_repeat_ngram
    for i in range(len(SEEN) - n + 1 if n else 0):
        if SEEN[i : i + n - 1].tolist() == SEEN[len(SEEN) - n + 1 :].tolist():
            token = SEEN[i + n - 1]
            scores[token] = scores[token] if token in STOP else -np.inf
    scores[BANNED] = -np.inf
    return ref.distribution(
        scores, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
    )


def excess(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic over its bound; above 1 the draws do not follow the probabilities."""
    assert not counts[probabilities == 0].any(), "a token was drawn that is ruled out"
    expected = probabilities * counts.sum()
    order = np.argsort(-expected)
    cells, found = expected[order], counts[order]
    few = int((cells >= 5).sum())  # the rest is one cell
    cells = np.append(cells[:few], cells[few:].sum())
    found = np.append(found[:few], found[few:].sum())
    cells, found = cells[cells > 0], found[cells > 0]
    k = len(cells) - 1
    return float(((found - cells) ** 2 / cells).sum() / (k + 5 * math.sqrt(2 * k) + 10))


def draws(**options: Any) -> np.ndarray:
    sampler = Sampler(
        SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, "seed": 1, **options}), V, BANNED, STOP
    )
    picked = [sampler.pick(LOGITS, SEEN) for _ in range(DRAWS)]
    return np.bincount(picked, minlength=V)


OPTIONS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 9},
    {"top_k": V + 5},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"min_p": 0.1},
    {"min_p": 0.5},
    {"repetition_penalty": 1.8},
    {"repetition_penalty": 0.6},
    {"presence_penalty": 1.5},
    {"presence_penalty": -1.0},
    {"frequency_penalty": 0.7},
    {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 3},
    {"no_repeat_ngram": 99},
    {"logit_bias": {7: 2.0, 12: -3.0, 3: 1.0}},
    {
        "temperature": 1.4,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": 0.05,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.1,
        "no_repeat_ngram": 2,
        "logit_bias": {5: 4.0, 11: 1.0},
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_draws_follow_the_exact_distribution(options):
    sampling = SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, **options})
    assert excess(draws(**options), exact(sampling)) < 1


@pytest.mark.parametrize(
    ("drawn", "claimed"),
    [
        ({}, {"temperature": 1.1}),
        ({"top_p": 0.9}, {"top_p": 0.88}),
        ({"min_p": 0.1}, {}),
        ({"repetition_penalty": 1.8}, {"repetition_penalty": 1.5}),
        ({"presence_penalty": 0.2}, {}),
        ({"frequency_penalty": 0.1}, {}),
        ({"no_repeat_ngram": 2}, {}),
        ({}, {"logit_bias": {7: 0.3}}),
    ],
)
def test_the_statistic_notices_a_distribution_that_is_slightly_off(drawn, claimed):
    expected = exact(SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, **claimed}))
    counts = draws(**drawn)
    assert counts[expected == 0].any() or excess(counts, expected) > 1


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(temperature=1.0, top_p=1.0),
        SamplingConfig(top_p=0.9),
        SamplingConfig(top_p=1.0, top_k=50),
        SamplingConfig(top_k=200, top_p=0.7, min_p=0.01),
    ],
)
def test_instruction_sets_draw_the_same_tokens(sampling):
    """Their weights differ by 1e-7 or so: in 500 draws none should fall on such a border."""
    rng = np.random.default_rng(5)
    for size in (300, 5000):
        rows = (3 * rng.standard_normal((500, size))).astype(np.float32)
        found = []
        for isa in kernels.runnable():
            module, uniforms = kernels.load(isa), Uniforms(3)
            found.append(
                [
                    module.sample(
                        row,
                        sampling.temperature,
                        sampling.top_k,
                        sampling.top_p,
                        sampling.min_p,
                        uniforms.draw(),
                    )
                    for row in rows
                ]
            )
        assert all(one == found[0] for one in found)


def test_greedy_takes_the_lowest_of_equal_tokens():
    logits = np.zeros(1000, np.float32)
    logits[[400, 77, 999]] = 2
    sampler = Sampler(SamplingConfig(temperature=0), 1000)
    assert sampler.pick(logits, []) == 77
    assert Sampler(SamplingConfig(temperature=0), 1000, banned=[77]).pick(logits, []) == 400


def test_logits_are_left_as_they_are():
    before = LOGITS.copy()
    for options in OPTIONS:
        Sampler(SamplingConfig(**options), V, BANNED, STOP).pick(LOGITS, SEEN)
    assert LOGITS.tobytes() == before.tobytes()


def test_a_rule_that_leaves_nothing_is_told():
    sampler = Sampler(SamplingConfig(no_repeat_ngram=1), 4, banned=[0])
    assert sampler.pick(np.zeros(4, np.float32), [1, 2]) == 3
    with pytest.raises(CgptError, match="no_repeat_ngram=1 leaves no token"):
        sampler.pick(np.zeros(4, np.float32), [1, 2, 3])


def test_log_probability():
    expected = LOGITS.astype(np.float64)
    expected -= np.log(np.exp(expected).sum())
    for token in (0, 17, V - 1):
        # the exponent and the sum are off by a few roundings of numbers of this size
        assert logprob(LOGITS, token) == pytest.approx(expected[token], abs=2e-6)


def test_uniforms_are_even_and_unlike():
    def stream(seed: int, n: int = 20000) -> np.ndarray:
        uniforms = Uniforms(seed)
        return np.array([uniforms.draw() for _ in range(n)])

    seeds = (0, 1, 2, 1 << 63, 1 << 64, (1 << 64) + 1)
    found = {seed: stream(seed) for seed in seeds}
    for one in found.values():
        assert one.min() >= 0 and one.max() < 1
        counts = np.bincount((one * 100).astype(int), minlength=100)
        assert excess(counts, np.full(100, 0.01)) < 1
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 5 / math.sqrt(len(one))
    first = np.array([one[0] for one in found.values()])
    assert len(set(first)) == len(seeds)
    # seeds 0, 1, 2, ... are as good as one stream
    across = np.array([Uniforms(seed).draw() for seed in range(5000)])
    assert excess(np.bincount((across * 50).astype(int), minlength=50), np.full(50, 0.02)) < 1
    assert Uniforms(None).draw() != Uniforms(None).draw()


def test_the_random_stream_can_be_gone_on_with():
    first, other = Uniforms(4), Uniforms(4)
    numbers = [first.draw() for _ in range(6)]
    other.drawn = 4
    assert [other.draw(), other.draw()] == numbers[4:]


def test_a_configuration_survives_json():
    sampling = SamplingConfig(logit_bias={9: 1.5, 2: -1}, stop=["。", "\n"], seed=3, min_p=0.1)
    assert sampling.logit_bias == ((2, -1.0), (9, 1.5))
    again = SamplingConfig.from_dict(json.loads(json.dumps(sampling.to_dict())))
    assert again == sampling and hash(again) == hash(sampling)
    assert SamplingConfig(stop="。").stop == ("。",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("presence_penalty", math.nan),
        ("frequency_penalty", "1"),
        ("no_repeat_ngram", -1),
        ("no_repeat_ngram", 1.5),
        ("logit_bias", {1.5: 1}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: "x"}),
        ("logit_bias", 3),
        ("logit_bias", [(1, 2, 3)]),
        ("stop", [""]),
        ("stop", 5),
        ("stop", [1]),
        ("length_penalty", 11),
        ("length_penalty", math.nan),
        ("speculate", -1),
        ("speculate", 65),
    ],
)
def test_options_out_of_range_are_named(name, value):
    with pytest.raises(ConfigError, match=rf"SamplingConfig: {name} must be"):
        SamplingConfig(**{name: value})


def test_options_that_cannot_go_together():
    with pytest.raises(ConfigError, match="names a token id twice"):
        SamplingConfig(logit_bias=[(1, 2.0), (1, 3.0)])
    with pytest.raises(ConfigError, match=r"speculate=4 .* beam=2"):
        SamplingConfig(speculate=4, beam=2)
    with pytest.raises(ConfigError, match="logit_bias token ids must be between 0 and 59"):
        Sampler(SamplingConfig(logit_bias={V: 1.0}), V)
