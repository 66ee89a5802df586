"""Every kernel of every instruction set against its float64 twin, at sizes around the vectors.

The calls are listed in kernel_cases.py, with where the tolerances come from; kernel_memory.py
places the arrays between borders that a stray write changes. What kernels refuse, let through
and promise beyond numbers is in test_kernel_contract.py.
"""

from __future__ import annotations

import ctypes
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import reference as ref
from kernel_cases import EPS, TINY, Case, all_cases, blank
from kernel_memory import Alone, Guarded, Misaligned, Problem, check, run, same_bits

from cgpt import kernels

CASES = all_cases()
ISAS = kernels.runnable()
PROBES = {"roofline_multiply_add", "roofline_read"}  # tested in test_benchmarks.py
UTILITIES = PROBES | {
    "set_num_threads",
    "get_num_threads",
    "has_openmp",
    "cpu_level",
    "vector_length",
}


@pytest.fixture(scope="module", params=ISAS)
def module(request: pytest.FixtureRequest) -> Any:
    """The compiled module of one instruction set, with one thread."""
    loaded = kernels.load(request.param)
    before = loaded.get_num_threads()
    loaded.set_num_threads(1)
    yield loaded
    loaded.set_num_threads(before)


def kernel_names(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and not isinstance(value, type)
    } - UTILITIES


def test_the_fallback_is_among_the_instruction_sets():
    assert "generic" in ISAS and kernels.instruction_set() in ISAS


def test_every_kernel_has_a_twin_and_cases(module):
    names = kernel_names(module)
    assert names and all(callable(getattr(ref, name, None)) for name in names)
    assert names == {case.kernel for case in CASES} | {"dropout"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_its_twin(module, case):
    """Within tolerance with one thread; the same bits off every vector boundary and with 2, 3."""
    problem = case.problem()
    found = run(module, problem, Alone)
    check(problem, found)
    try:
        for threads, place in ((2, Misaligned), (3, Guarded)):
            module.set_num_threads(threads)
            assert same_bits(found, run(module, problem, place)), f"{threads} threads, {place}"
    finally:
        module.set_num_threads(1)


def test_python_threads_do_not_share_scratch(module):
    """Two Python threads in kernels at once (the GIL is released) get what one gets."""
    chosen = [
        case.problem()
        for case in CASES
        if case.kernel in ("linear_forward", "attention_backward", "layernorm_backward")
    ]
    expected = [run(module, problem) for problem in chosen]
    same: list[bool] = []

    def work(order: int) -> None:
        for problem, result in list(zip(chosen, expected, strict=True))[::order]:
            same.append(same_bits(run(module, problem), result))

    workers = [threading.Thread(target=work, args=(order,)) for order in (1, -1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(same) == 2 * len(chosen) and all(same)


# aliases that the docstrings allow


@pytest.mark.parametrize(
    "name, case, output, alias",
    [
        ("gelu_forward", "gelu_forward-n4097", "y", "x"),
        ("gelu_backward", "gelu_backward-n4097", "dx", "dy"),
        ("relu_forward", "relu_forward-n4097", "y", "x"),
        ("relu_backward", "relu_backward-n4097", "dx", "dy"),
        ("residual_forward", "residual_forward-n4097", "y", "x"),
        ("residual_forward", "residual_forward-n4097", "y", "branch"),
        ("layernorm_backward", "layernorm_backward-N65-C17", "dx", "dy"),
        ("layernorm_backward", "layernorm_backward-N5-C600", "dx", "dy"),
    ],
)
def test_output_in_place_of_an_input(module, name, case, output, alias):
    problem = next(c for c in CASES if str(c) == case).problem()
    apart = run(module, problem)
    arguments = {
        key: value.copy() if isinstance(value, np.ndarray) else value
        for key, value in problem.arguments.items()
    }
    arguments[output] = arguments[alias]
    getattr(module, name)(**arguments)
    for written, value in apart.items():
        assert arguments[written].tobytes() == value.tobytes(), written


def test_dropout_and_residual_as_their_own_output(module):
    x = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    apart, within = np.empty_like(x), x.copy()
    module.dropout(x, apart, 0.3, 5)
    module.dropout(within, within, 0.3, 5)
    assert apart.tobytes() == within.tobytes()


# dropout: the mask is compared with nothing, so its statistics are


def mask(module: ModuleType, n: int, p: float, key: int) -> np.ndarray:
    """Which of n elements are kept."""
    kept = np.ones(n, np.float32)
    module.dropout(kept, kept, p, key)
    return kept != 0


@pytest.mark.parametrize("n", [0, 1, 3, 7, 8, 9, 15, 16, 17, 65, 4095, 4096, 4097, 60000])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
def test_dropout_agrees_with_its_twin(module, n, p):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    key = 2**63 + n
    y = ref.dropout(x, p, mask(module, n, p, key))
    problem = Problem(
        "dropout", {"x": x, "y": blank(n), "p": p, "key": key}, {"y": (y, EPS * np.abs(y))}
    )
    first = run(module, problem)
    check(problem, first)
    for threads in (2, 3):
        module.set_num_threads(threads)
        assert same_bits(first, run(module, problem, Misaligned))
    module.set_num_threads(1)


def test_dropout_of_nothing_changes_nothing(module):
    assert mask(module, 5000, 0.0, 3).all()


def test_the_mask_depends_on_the_key_alone(module):
    kept = mask(module, 9000, 0.3, 77)
    assert (kept == mask(module, 9000, 0.3, 77)).all()
    assert (kept[:5000] == mask(module, 5000, 0.3, 77)).all()
    assert (kept == mask(kernels.load("generic"), 9000, 0.3, 77)).all()


def independence(a: np.ndarray, b: np.ndarray, p: float) -> float:
    """How many standard deviations the overlap of two masks is off that of independent ones."""
    keep = 1 - p
    return abs(float((a & b).sum()) - len(a) * keep**2) / np.sqrt(len(a) * keep**2 * (1 - keep**2))


KEYS = [0, 1, 2, 3, 12345, 2**31, 2**32, 2**32 + 1, 5 * 2**32, 2**63, 2**64 - 1]


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_look_independent(p):
    """Rates, neighbours, spans and pairs of keys: within 5 sigma of independent coins."""
    module, n = kernels, 2**17
    masks = [mask(module, n, p, key) for key in KEYS]
    for key, kept in zip(KEYS, masks, strict=True):
        assert abs((~kept).sum() - n * p) < 5 * np.sqrt(n * p * (1 - p)), key
        # a lag's pairs overlap, which raises the spread of their count: 7 for 5 sigma
        for lag in (1, 2, 3, 4, 8, 16, 64, 1024, 4095, 4096, 4097, 8192):
            assert independence(kept[:-lag], kept[lag:], p) < 7, (key, lag)
    for i, first in enumerate(masks):
        for j in range(i):
            assert independence(first, masks[j], p) < 5, (KEYS[i], KEYS[j])


def test_independence_notices_masks_that_are_not():
    kept = mask(kernels, 2**17, 0.5, 9)
    assert independence(kept, kept, 0.5) > 5
    assert independence(kept, ~kept, 0.5) > 5
    shifted = np.roll(kept, 1)
    assert independence(np.where(np.arange(2**17) % 20, shifted, kept), kept, 0.5) > 5


# the exponential, seen through the kernels that use it


def test_exponential_through_cross_entropy(module):
    """Row (0, x, x, ...) with scale 1: the gradient of an x is e / (1 + (V - 1) e), e = exp(x).

    The largest logit is 0, so x goes into the exponential as it is: 2e-7 for it, EPS / 2 for
    each of the sum, the quotient and the product.
    """
    x = np.linspace(-87.3, 0, 4001).astype(np.float32)
    for V in (2, 2 * module.vector_length() + 1):  # through the tail, through whole vectors
        logits = np.repeat(x[:, None], V, axis=1)
        logits[:, 0] = 0
        losses, targets = blank(len(x)), np.zeros(len(x), np.int32)
        module.cross_entropy(logits, targets, losses, 1.0)
        e = np.exp(x.astype(float))
        expected = (e / (1 + (V - 1) * e))[:, None]
        error = np.abs(logits[:, 1:] - expected) / expected
        normal = (expected > 2 * TINY)[:, 0]
        assert error[normal].max() < 2e-7 + 3 * EPS


def test_exponential_underflows_to_zero(module):
    logits = np.array([[0, -87.4, -100, -1e30, -np.inf, -88.0, -104, -3e38]], np.float32)
    losses = blank(1)
    module.cross_entropy(logits, np.zeros(1, np.int32), losses, 1.0)
    assert losses[0] == 0 and (np.abs(logits) < 2 * TINY).all()


def test_exponential_through_gelu(module):
    """x / y - 1 = exp(-2u) for x below 0, where y is small: seen where u is nearly x itself."""
    x = -np.linspace(1e-4, 0.1, 2000).astype(np.float32)
    y = blank(len(x))
    module.gelu_forward(x, y)
    expected = ref.gelu_forward(x)
    assert (np.abs(y - expected) / np.abs(expected)).max() < 2e-7 + 3 * EPS


def test_relu_keeps_nan(module):
    y = blank(3)
    module.relu_forward(np.array([np.nan, -np.inf, np.inf], np.float32), y)
    np.testing.assert_array_equal(y, [np.nan, 0, np.inf])


# the checkers can fail


class Wrong:
    """A module with one kernel whose result is spoilt by `spoil(arguments)` after the call."""

    def __init__(self, problem: Problem, spoil: Any) -> None:
        def kernel(**arguments: Any) -> Any:
            returned = getattr(kernels.load("generic"), problem.kernel)(**arguments)
            spoil(arguments)
            return returned

        setattr(self, problem.kernel, kernel)


def problem_named(name: str) -> Problem:
    return next(case for case in CASES if str(case) == name).problem()


def test_check_notices_every_wrong_number():
    """For each kernel and each array that it writes: off by 3 tolerances, NaN, or far off."""
    seen = set()
    for case in CASES:
        problem = case.problem()
        right = {
            name: np.array(expected, dtype=float) for name, (expected, _) in problem.written.items()
        }
        for name, (_, tolerance) in problem.written.items():
            if (case.kernel, name) in seen or not np.isfinite(right[name]).any():
                continue
            seen.add((case.kernel, name))
            check(problem, right)
            i = np.flatnonzero(np.isfinite(right[name]))[-1]
            step = 3 * np.broadcast_to(tolerance, right[name].shape).flat[i]
            step += 1e-6 * abs(right[name].flat[i]) + 1e-30
            for wrong in (right[name].flat[i] + step, np.nan, np.inf):
                spoilt = right | {name: right[name].copy()}
                spoilt[name].flat[i] = wrong
                with pytest.raises(AssertionError, match=name):
                    check(problem, spoilt)
    assert {name for name, _ in seen} == {case.kernel for case in CASES}


def test_tolerances_are_far_below_one_term():
    """Tolerances stay under 1e-3 of the largest result: a term left out of a sum is seen."""
    for case in CASES:
        for name, (expected, tolerance) in case.problem().written.items():
            level = np.nanmax(np.abs(expected), initial=0)
            assert np.max(tolerance, initial=0) <= 1e-3 * max(level, 1), (str(case), name)


@pytest.mark.parametrize(
    "name, index, complaint",
    [
        ("y", -1, "y: 1 elements written before"),
        ("y", 17, "y: 1 elements written behind"),
        ("y", 17 + 1023, "y: 1 elements written behind"),
        ("x", 17, "x: 1 elements written behind"),
        ("x", 3, "x: written, though it is an input"),
    ],
)
def test_run_notices_stray_writes(name, index, complaint):
    problem = problem_named("gelu_forward-n17")

    def stray(arguments: dict[str, Any]) -> None:
        ctypes.c_float.from_address(arguments[name].ctypes.data + 4 * index).value = 1

    for place in (Guarded, Misaligned):
        with pytest.raises(AssertionError, match=complaint):
            run(Wrong(problem, stray), problem, place)


def test_run_notices_what_is_not_written():
    problem = problem_named("gelu_forward-n17")

    def forget(arguments: dict[str, Any]) -> None:
        arguments["y"][16] = problem.arguments["y"][16]

    with pytest.raises(AssertionError, match=r"y\[16\]"):
        check(problem, run(Wrong(problem, forget), problem))


def test_guarded_arrays_lie_as_they_say():
    for place, shift in ((Guarded, 0), (Misaligned, 4)):
        for n in (0, 1, 17, 4096):
            assert place(np.zeros(n, np.float32)).array.ctypes.data % 64 == shift


def test_same_bits_notices_one_bit():
    x = np.ones(3, np.float32)
    assert same_bits({"x": x}, {"x": x.copy()})
    assert not same_bits({"x": x}, {"x": np.nextafter(x, 2, dtype=np.float32)})
    assert not same_bits({"x": np.zeros(3)}, {"x": -np.zeros(3)})


def test_case_names_are_unlike():
    assert len({str(case) for case in CASES}) == len(CASES)
    assert isinstance(CASES[0], Case)
