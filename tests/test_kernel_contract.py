"""What kernels refuse, what they must not hide, and where they may read and write."""

# ruff: noqa: F401, F811 - `module` is a fixture: imported here, an argument below

from __future__ import annotations

import ast
import inspect
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_cases import all_cases, documents
from kernel_memory import Problem, run
from test_kernels import ISAS, UTILITIES, kernel_names, module

import cgpt
from cgpt import kernels

TESTS = Path(__file__).parent
# One call of each kernel with unlike sizes, past one vector and with a tail.
EXAMPLES = (
    "linear_forward-N9-K7-M17",
    "linear_forward-N3-K9-M17",
    "linear_backward_input-N6-K17-M9",
    "linear_forward-N100-K300-M1030-finishTrue",
    "linear_backward_input-N100-K300-M1030-geluTrue",
    "linear_backward_weight-N9-K7-M17",
    "layernorm_forward-N65-C17",
    "layernorm_recompute-N65-C17",
    "layernorm_backward-N65-C17",
    "layernorm_backward-N64-C17-addTrue",
    "gelu_forward-n65",
    "gelu_backward-n65",
    "relu_forward-n65",
    "relu_backward-n65",
    "residual_forward-n65",
    "attention_forward-T5+1-H3-D9",
    "attention_backward-T5+1-H3-D9",
    "attention_cached-n5-start17-room25-H3-D17",
    "embedding_forward-N300-C130",
    "embedding_backward-N300-C130",
    "gather_rows-N9-R4-C17",
    "scatter_rows-N9-R4-C17",
    "cross_entropy-N5-V17",
    "cross_entropy-N5-V17-smoothing0.1",
    "cross_entropy-N5-V17-weightedTrue",
    "adamw-n65-decay_end7-step3-beta20.999",
    "muon-rows17-columns17",
    "axpby-n65",
    "sum_of_squares-n65",
    "argmax-V65-",
    "apply_penalties-V300-n65",
    "sample-V65-top_k9-",
    "top_logprobs-V65-k8-",
)


def example(name: str) -> Problem:
    problem = next((case.problem() for case in all_cases() if str(case).startswith(name)), None)
    assert problem is not None, name
    return problem


def changed(problem: Problem, **arguments: Any) -> Problem:
    """The same call with other arguments, all arrays as scratch that may be written."""
    return replace(problem, arguments=problem.arguments | arguments)


@pytest.fixture(params=EXAMPLES)
def problem(request: pytest.FixtureRequest) -> Problem:
    return example(request.param)


def test_there_is_an_example_of_every_kernel():
    assert {name.split("-")[0] for name in EXAMPLES} | {"dropout"} == kernel_names(kernels._generic)


# shapes and types

# Sizes that no other array has to match: tables and caches may be of any length.
FREE = {
    ("embedding_forward", "wte", 0),
    ("embedding_forward", "wpe", 0),
    ("embedding_backward", "dwte", 0),
    ("embedding_backward", "dwpe", 0),
    ("gather_rows", "x", 0),
    ("scatter_rows", "dx", 0),
    ("cross_entropy", "logits", 1),
    ("sum_of_squares", "x", 0),
    ("argmax", "x", 0),
    ("apply_penalties", "ids", 0),
    ("sample", "scores", 0),
    ("top_logprobs", "scores", 0),
    ("muon", "matrices", 0),
}
# Arrays from which a kernel takes its sizes: if one of these is wrong, others seem to be.
DEFINES = {
    "linear_forward": ("x", "weight"),
    "linear_backward_input": ("dy", "weight"),
    "linear_backward_weight": ("dy", "x"),
    "attention_forward": ("qkv", "out"),
    "attention_backward": ("qkv", "out"),
    "attention_cached": ("qkv", "keys", "out"),
    "embedding_forward": ("ids", "wte"),
    "embedding_backward": ("ids", "dwte"),
    "gather_rows": ("rows", "x"),
    "scatter_rows": ("rows", "dx"),
    "cross_entropy": ("logits",),
    "adamw": ("data",),
    "muon": ("data", "matrices"),
    "axpby": ("data",),
    "apply_penalties": ("scores",),
    "top_logprobs": ("ids",),
}


def resized(array: np.ndarray, axis: int, by: int) -> np.ndarray:
    if by < 0:
        return np.ascontiguousarray(np.delete(array, np.s_[by:], axis))
    return np.pad(array, [(0, by if i == axis else 0) for i in range(array.ndim)], mode="edge")


def test_wrong_shapes_are_refused_by_name(module, problem):
    """Each array, one longer and one shorter along each axis: a ValueError that names it."""
    kernel, tried = problem.kernel, 0
    defines = DEFINES.get(kernel, ("x",))
    for name, array in problem.arguments.items():
        if not isinstance(array, np.ndarray):
            continue
        for axis, by in [(axis, by) for axis in range(array.ndim) for by in (1, -1)]:
            wrong = changed(problem, **{name: resized(array, axis, by)})
            if (kernel, name, axis) in FREE:
                if by > 0:
                    run(module, wrong)
                continue
            tried += 1
            with pytest.raises(ValueError, match=r"expected|must|divide|fit") as error:
                run(module, wrong)
            blamed = str(error.value).split(":")[0].split("[")[0]
            assert blamed in problem.arguments
            assert blamed == name or name in defines, str(error.value)
    assert tried or kernel in ("sum_of_squares", "argmax", "sample")


def test_other_types_and_layouts_are_refused(module, problem):
    for name, array in problem.arguments.items():
        if not isinstance(array, np.ndarray):
            continue
        for wrong in (
            array.astype(np.float64),
            np.zeros(array.shape, np.int64),
            array[None],
            np.repeat(array, 2, axis=-1)[..., ::2],
            "text",
        ):
            if (
                isinstance(wrong, np.ndarray)
                and wrong.flags.c_contiguous
                and (wrong.dtype, wrong.shape) == (array.dtype, array.shape)
            ):
                continue  # its own type
            with pytest.raises((ValueError, TypeError)):
                getattr(module, problem.kernel)(**problem.arguments | {name: wrong})
        if name in problem.written:
            frozen = array.copy()
            frozen.flags.writeable = False
            with pytest.raises(ValueError, match="read-only"):
                getattr(module, problem.kernel)(**problem.arguments | {name: frozen})


@pytest.mark.parametrize(
    "name, argument, value, message",
    [
        ("embedding_forward-N300", "ids", 11, r"ids\[1\]: found 11, expected 0 to 10"),
        ("embedding_forward-N300", "ids", -1, r"ids\[1\]: found -1"),
        ("embedding_forward-N300", "positions", 5, r"positions\[1\]: found 5"),
        ("embedding_forward-N300", "positions", -1, r"positions\[1\]"),
        ("embedding_backward-N300", "ids", 11, r"ids\[1\]"),
        ("embedding_backward-N300", "ids", -(2**31), r"ids\[1\]"),
        ("embedding_backward-N300", "positions", 2**31 - 1, r"positions\[1\]"),
        ("embedding_backward-N300", "positions", -1, r"positions\[1\]"),
        ("gather_rows-N9", "rows", 9, r"rows\[1\]"),
        ("gather_rows-N9", "rows", -1, r"rows\[1\]"),
        ("scatter_rows-N9", "rows", 9, r"rows\[1\]"),
        ("scatter_rows-N9", "rows", -1, r"rows\[1\]"),
        ("cross_entropy-N5", "targets", 17, r"targets\[1\]: found 17, expected -1 to 16"),
        ("cross_entropy-N5", "targets", -2, r"targets\[1\]"),
        *(
            (name, "offsets", value, r"offsets\[1\]: found -?\d+ after 0")
            for name in ("attention_forward-T5+1", "attention_backward-T5+1")
            for value in (0, -3)
        ),
        *(
            (name, "offsets", value, r"offsets\[2\]: found 6 after")
            for name in ("attention_forward-T5+1", "attention_backward-T5+1")
            for value in (6, 99)
        ),
    ],
)
def test_indices_out_of_range_are_refused(module, name, argument, value, message):
    problem = example(name)
    array = problem.arguments[argument].copy()
    array[1] = value
    with pytest.raises(ValueError, match=message):
        run(module, changed(problem, **{argument: array}))


ATTENTION = ("attention_forward-T5+1-H3-D9", "attention_backward-T5+1-H3-D9")


@pytest.mark.parametrize(
    "name, argument, value",
    [
        *(
            (name, "offsets", np.array(wrong, np.int32))
            for name in ATTENTION
            for wrong in ([], [0], [6], [1, 6], [0, 5], [0, 7], [0, 3, 3, 6])
        ),
        *((name, "n_head", wrong) for name in ATTENTION for wrong in (0, -1, 2, 28)),
        ("attention_cached-n5", "start", -1),
        ("attention_cached-n5", "start", 21),
        ("attention_cached-n5", "start", 2**62),
        ("adamw-n65", "step", 0),
        ("adamw-n65", "step", -1),
        *(("cross_entropy-N5-V17", "smoothing", wrong) for wrong in (-0.1, 1.0, float("nan"))),
    ],
)
def test_wrong_settings_are_refused(module, name, argument, value):
    with pytest.raises(ValueError, match=argument):
        run(module, changed(example(name), **{argument: value}))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_dropout_refuses(module, p):
    x = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="p: "):
        module.dropout(x, x, p, 1)
    with pytest.raises(ValueError, match="y: "):
        module.dropout(x, np.ones(4, np.float32), 0.5, 1)


# what must be seen


def read_elements(problem: Problem, name: str) -> np.ndarray:
    """Flat indices of the elements of an array that the call reads, in order."""
    array, arguments = problem.arguments[name], problem.arguments
    rows = None
    if (problem.kernel, name) == ("cross_entropy", "logits"):
        rows = np.flatnonzero(arguments["targets"] >= 0)
    elif (problem.kernel, name) == ("cross_entropy", "weights"):
        return np.flatnonzero(arguments["targets"] >= 0)
    elif name in ("wte", "wpe"):
        rows = arguments["ids" if name == "wte" else "positions"]
    elif (problem.kernel, name) == ("gather_rows", "x"):
        rows = arguments["rows"]
    if rows is None:
        return np.flatnonzero(np.isfinite(array))  # what is NaN already is only written
    return (np.unique(rows)[:, None] * array.shape[1] + np.arange(array.shape[1])).ravel()


def test_nan_and_infinity_are_visible(module, problem):
    """NaN or infinity in the first, the last or a middle element of an input reaches a result."""

    def unseen(results: dict[str, Any]) -> int:
        """Numbers that look like results; a chosen token is none below 0."""
        return sum(
            (np.isfinite(result) & ((result >= 0) | (result.dtype.kind == "f"))).sum()
            for result in results.values()
        )

    before, tried = unseen(run(module, problem)), 0
    for name, array in problem.arguments.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            continue
        readable = read_elements(problem, name)
        for i in readable[[0, len(readable) // 2, -1]] if len(readable) else ():
            for value in (np.nan, np.inf):
                if (name, value) == ("lse", np.inf):
                    continue  # exp(score - infinity) is rightly 0
                wrong = array.copy()
                wrong.flat[i] = value
                tried += 1
                found = run(module, changed(problem, **{name: wrong}))
                assert unseen(found) < before, (name, i, value)
    assert tried >= 6


def test_nan_stays_in_its_row(module):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 33)).astype(np.float32)
    x[4, 32] = np.nan
    weight, y = rng.standard_normal((17, 33)).astype(np.float32), np.zeros((9, 17), np.float32)
    module.linear_forward(x, weight, None, y)
    assert (np.isnan(y).all(axis=1) == np.isnan(x).any(axis=1)).all()
    assert not np.isnan(np.delete(y, 4, axis=0)).any()
    z, mean, rstd = np.zeros_like(x), np.zeros(9, np.float32), np.zeros(9, np.float32)
    module.layernorm_forward(x, weight[0], weight[1], z, mean, rstd)
    assert np.isnan(z[4]).all() and np.isnan(mean[4]) and np.isnan(rstd[4])
    assert not np.isnan(np.delete(z, 4, axis=0)).any()
    losses = np.zeros(9, np.float32)
    module.cross_entropy(x, np.full(9, 3, np.int32), losses, 1.0)
    assert np.isnan(x[4]).all() and np.isnan(losses[4])
    assert not np.isnan(np.delete(x, 4, axis=0)).any()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_nan_in_attention_stays_in_its_document_and_head(module, part):
    """A NaN in q, k or v: seen by its own and, from k and v, all later queries of the head."""
    lengths, H, D, row = (7, 40, 9), 2, 9, 20
    qkv = np.random.default_rng(1).standard_normal((56, 54)).astype(np.float32)
    offsets = documents(lengths)
    qkv[row, part * H * D + 3] = np.nan
    out, lse = np.zeros((56, 18), np.float32), np.zeros((2, 56), np.float32)
    module.attention_forward(qkv, offsets, H, out, lse)
    seen = np.isnan(out[:, 3]) if part == 2 else np.isnan(out[:, :9]).all(axis=1)
    assert seen[row] and (part == 0 or seen[row:47].all())
    assert not np.isnan(np.delete(out, np.s_[7:47], axis=0)).any()
    assert not np.isnan(out[:, 9:]).any() and not np.isnan(lse[1]).any()
    dqkv = np.zeros_like(qkv)
    module.attention_backward(np.ones_like(out), qkv, out, lse, offsets, H, dqkv)
    assert np.isnan(dqkv[7:47]).any()
    assert not np.isnan(np.delete(dqkv, np.s_[7:47], axis=0)).any()


def test_the_future_is_not_seen(module):
    """Other keys and values after a query leave its output alone, to the bit."""
    problem = example("attention_forward-T200+1+450-H2-D20")
    first = run(module, problem)
    for cut in (1, 17, 191, 192, 199, 202, 400, 650):
        qkv = problem.arguments["qkv"].copy()
        qkv[cut:] = 1 - 3 * qkv[cut:]
        found = run(module, changed(problem, qkv=qkv))
        assert found["out"][:cut].tobytes() == first["out"][:cut].tobytes()
        assert found["lse"][:, :cut].tobytes() == first["lse"][:, :cut].tobytes()
        assert found["out"][cut:].tobytes() != first["out"][cut:].tobytes()


@pytest.mark.parametrize("size", [1e3, 1e6, 1e15, 1e38])
@pytest.mark.parametrize("V", [2, 17, 65])
def test_large_logits_do_not_overflow(module, size, V):
    logits = np.full((3, V), -size, np.float32)
    logits[:, V - 1] = size
    logits[1] = size
    losses = np.zeros(3, np.float32)
    module.cross_entropy(logits, np.array([V - 1, 0, 0], np.int32), losses, 1.0)
    assert losses[0] == 0 and losses[2] == np.float32(2) * np.float32(size)
    assert losses[1] == pytest.approx(np.log(V), rel=1e-6)
    assert not logits[0].any() and (logits[2, [0, V - 1]] == [-1, 1]).all()


@pytest.mark.parametrize("size", [1e3, 1e5, 1e8])
def test_large_scores_choose_one_key(module, size):
    """Scores of 1e6 to 1e16: each query takes the value of its best key, with finite gradients."""
    T, D = 70, 9
    rng = np.random.default_rng(2)
    qkv = rng.standard_normal((T, 3 * D)).astype(np.float32)
    qkv[:, : 2 * D] *= np.float32(size)
    out, lse = np.zeros((T, D), np.float32), np.zeros((1, T), np.float32)
    module.attention_forward(qkv, documents((T,)), 1, out, lse)
    scores = qkv[:, :D].astype(float) @ qkv[:, D : 2 * D].T.astype(float)
    best = np.where(np.tri(T, dtype=bool), scores, -np.inf).argmax(axis=1)
    np.testing.assert_allclose(out, qkv[best, 2 * D :], rtol=1e-6)
    dqkv = np.full_like(qkv, np.nan)
    module.attention_backward(np.ones_like(out), qkv, out, lse, documents((T,)), 1, dqkv)
    assert np.isfinite(dqkv).all()
    np.testing.assert_allclose(
        dqkv[:, 2 * D :], np.bincount(best, minlength=T)[:, None] * np.ones(D), atol=1e-2
    )


@pytest.mark.parametrize("N", [2, 9])
def test_zero_length_products(module, N):
    """No columns to sum over: the product is zero, the bias remains."""
    y, bias = np.full((N, 3), 7, np.float32), np.arange(3, dtype=np.float32)
    module.linear_forward(np.zeros((N, 0), np.float32), np.zeros((3, 0), np.float32), bias, y)
    assert (y == bias).all()
    module.linear_backward_input(np.zeros((N, 0), np.float32), np.zeros((0, 3), np.float32), y)
    assert not y.any()


# the stub, the choice, the threads


def public_names(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, type)
    }


def stub() -> dict[str, ast.FunctionDef]:
    path = Path(cgpt.__file__).with_name("_kernels.pyi")
    return {
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def test_the_stub_names_what_is_compiled(module):
    functions = stub()
    assert set(functions) == public_names(module) == kernel_names(module) | UTILITIES
    for name, node in functions.items():
        signature = inspect.signature(getattr(module, name))
        assert [argument.arg for argument in node.args.args] == list(signature.parameters), name
        defaults = [p.default for p in signature.parameters.values() if p.default is not p.empty]
        assert [ast.literal_eval(value) for value in node.args.defaults] == defaults, name
        assert ast.get_docstring(node) and getattr(module, name).__doc__


def test_the_stubs_of_other_instruction_sets_pass_it_on():
    for isa in set(kernels.INSTRUCTION_SETS) - {"generic"}:
        text = Path(kernels.__file__).with_name(f"{isa}.pyi").read_text(encoding="utf-8")
        assert "from cgpt._kernels import *" in text


def test_threads(module):
    module.set_num_threads(3)
    assert module.get_num_threads() == (3 if module.has_openmp() else 1)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="threads"):
            module.set_num_threads(wrong)
    module.set_num_threads(1)
    assert module.get_num_threads() == 1
    assert module.vector_length() in (1, 4, 8, 16)
    assert module.cpu_level() == kernels.cpu_level() in (0, 1, 2)


NEEDS = ((), ("avx2", "fma", "f16c"), ("avx512f", "avx512bw", "avx512dq", "avx512vl"))


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64",
    reason="needs Linux on x86-64",
)
def test_the_level_is_what_the_processor_says(module):
    text = Path("/proc/cpuinfo").read_text()
    flags = next(line for line in text.splitlines() if line.startswith("flags")).split()
    has = [set(names) <= set(flags) for names in NEEDS]
    assert module.cpu_level() == (0 if not has[1] else 2 if has[2] else 1)
    sources = Path(cgpt.__file__).parent.parent
    setup = (sources / "setup.py").read_text() if (sources / "setup.py").exists() else ""
    for flag in re.findall(r"-m(avx\w+|fma|f16c)", setup):
        assert flag in NEEDS[1] + NEEDS[2], f"-m{flag} is built for but not asked for"


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folders = [TESTS, Path(cgpt.__file__).parent.parent, os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        text=True,
        timeout=120,
        capture_output=True,
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
    )


SHOW = "from cgpt import kernels as K; print(K.instruction_set(), K.vector_length())"


@pytest.mark.parametrize("isa", ISAS)
def test_the_environment_chooses(isa):
    found = python(SHOW, CGPT_ISA=isa.upper())
    assert found.stdout.split() == [isa, str(kernels.load(isa).vector_length())], found.stderr


def test_an_unknown_instruction_set_is_told():
    found = python(SHOW, CGPT_ISA="mmx")
    assert found.returncode == 1
    assert "ConfigError: CGPT_ISA: unknown instruction set 'mmx'" in found.stderr


# stray reads


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_no_access_outside_an_array():
    """Arrays against a page that may not be touched, for every case and instruction set."""
    found = python(
        """if True:
        from kernel_cases import all_cases
        from kernel_memory import Paged, run
        from cgpt import kernels
        for case in all_cases():
            for isa in kernels.runnable():
                for at_end in (True, False):
                    print(isa, case, at_end, flush=True)
                    run(kernels.load(isa), case.problem(), lambda array: Paged(array, at_end))
        print("done")
    """,
        CGPT_THREADS="1",
    )
    last = found.stdout.splitlines()[-1:]
    assert found.returncode == 0 and last == ["done"], (last, found.stderr)


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
@pytest.mark.parametrize("index, dies", [(-1, True), (0, False), (5, False), (6, True)])
def test_a_stray_read_of_a_paged_array_ends_the_process(index, dies):
    found = python(
        """if True:
        import ctypes, sys
        import numpy as np
        from kernel_memory import Paged
        index = int(sys.argv[1])
        placed = Paged(np.ones(6, np.float32), at_end=index > 0)
        print(ctypes.c_float.from_address(placed.array.ctypes.data + 4 * index).value)
    """,
        str(index),
    )
    assert (found.returncode != 0) == dies and (found.stdout == "1.0\n") == (not dies)
