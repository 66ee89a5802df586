"""The learning rate of every step, for each schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cgpt.config import SCHEDULES, TrainConfig
from cgpt.errors import ConfigError
from cgpt.optim.schedules import schedule


def rates(kind: str, **changes: float) -> list[float]:
    settings = {"lr": 1.0, "warmup": 10, "total": 110, "min_lr_ratio": 0.1, **changes}
    return [schedule(i, kind=kind, **settings) for i in range(110)]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_rises_to_the_peak(kind: str) -> None:
    found = rates(kind)
    assert found[0] == pytest.approx(1 / 11) and found[10] == 1.0
    assert all(a < b for a, b in pairwise(found[:11]))
    assert max(found) == 1.0


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_falls_to_the_lowest(kind: str) -> None:
    found = rates(kind)
    assert all(a > b for a, b in pairwise(found[10:]))
    assert found[-1] == pytest.approx(0.1)
    assert schedule(500, lr=1.0, warmup=10, total=110, kind=kind) == pytest.approx(0.1)


def test_half_way() -> None:
    """Behind the warm-up 99 steps go down: the middle is at step 10 + 49.5."""

    def middle(kind: str) -> float:
        found = rates(kind, min_lr_ratio=0.0)
        return (found[59] + found[60]) / 2

    assert middle("cosine") == pytest.approx(0.5, abs=1e-3)
    assert middle("linear") == pytest.approx(0.5)
    assert rates("cosine")[35] > rates("linear")[35]


def test_constant_stays() -> None:
    assert set(rates("constant")[10:]) == {1.0}


def test_wsd_stays_then_falls() -> None:
    found = rates("wsd", decay=0.25, min_lr_ratio=0.0)
    assert set(found[10:85]) == {1.0} and found[86] < 1.0
    steps = [a - b for a, b in pairwise(found[86:])]
    assert steps == pytest.approx([steps[0]] * len(steps)) and found[-1] == 0.0
    assert rates("wsd", decay=1.0) == pytest.approx(rates("linear"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "square"},
        {"decay_share": 0.0},
        {"decay_share": 1.5},
        {"schedule_steps": -1},
        {"optimizer": "sgd"},
        {"momentum": 1.0},
        {"ema": 1.0},
        {"label_smoothing": -0.1},
        {"embedding_lr": 0.0},
    ],
)
def test_wrong_settings_name_the_field(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)
