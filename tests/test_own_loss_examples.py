"""examples/distillation.py and examples/preference_tuning.py do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_student_learns_what_its_teacher_thinks(capsys: pytest.CaptureFixture[str]) -> None:
    """Far nearer to the teacher, in what it has not seen, than one that learnt the texts."""
    assert example("distillation").main(["--steps", "60"]) == 0
    out = capsys.readouterr().out
    by_text, by_teacher = map(float, re.findall(r"([0-9.]+) nats from the teacher", out))
    assert by_teacher < by_text / 2


def test_the_gradient_of_the_distillation_is_that_of_its_loss() -> None:
    """Against differences of T^2 KL(p || q), at single logits."""
    module = example("distillation")
    rng, T = np.random.default_rng(0), module.TEMPERATURE
    z, p = rng.standard_normal((3, 7)), module.softmax(rng.standard_normal((3, 7)), T)

    def loss(logits: np.ndarray) -> float:
        q = module.softmax(logits, T)
        return float(T * T * (p * (np.log(p) - np.log(q))).sum())

    gradient = T * (module.softmax(z, T) - p)
    for i, j in ((0, 0), (1, 5), (2, 3)):
        step = np.zeros_like(z)
        step[i, j] = 1e-4
        assert (loss(z + step) - loss(z - step)) / 2e-4 == pytest.approx(gradient[i, j], abs=1e-6)


def test_preferences_are_learnt(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("preference_tuning").main([]) == 0
    before, margin, after = capsys.readouterr().out.splitlines()
    share = [int(re.search(r"(\d+)%", line)[1]) for line in (before, after)]
    assert share[0] < share[1] == 100 and float(margin.split()[-1]) > 1
    assert before.endswith("三点。 小明。 很好。") and "谢谢您" in after


def test_the_gradient_of_the_preferences_is_that_of_their_loss() -> None:
    """-log sigmoid(margin) falls along the gradient as fast as that says."""
    import cgpt

    module = example("preference_tuning")
    config = cgpt.GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=48, vocab_size=400)
    llm = cgpt.LLM.from_texts([*module.QUESTIONS, *module.POLITE], config, kind="chars")
    reference = cgpt.LLM.fresh(llm.tokenizer, config, seed=5)
    answers = [module.laid_out(llm, some) for some in (module.POLITE, module.SHORT)]

    def loss() -> float:
        found = module.margins(llm, reference, *answers)
        return float(np.log1p(np.exp(-found)).mean())

    slope = module.BETA / (1 + np.exp(module.margins(llm, reference, *answers)))
    for one, sign in zip(answers, (1, -1), strict=True):
        weights = np.repeat(sign * slope / len(slope), np.diff(one.offsets))
        llm.gpt.forward(one.ids, one.targets, weights, offsets=one.offsets, scale=1.0)
        llm.gpt.backward()
    gradient = llm.gpt.arena.grad.copy()
    length = float(np.linalg.norm(gradient))
    llm.gpt.arena.data[:] -= 1e-3 * gradient / length
    below = loss()
    llm.gpt.arena.data[:] += 2e-3 * gradient / length
    assert (loss() - below) / 2e-3 == pytest.approx(length, rel=1e-2)
