"""A short run of every benchmark, so that none of them rots; no time is judged here."""

from __future__ import annotations

import json
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cgpt import kernels
from cgpt.bench import machine, measure, tasks, train, workers
from cgpt.bench.machine import fastest
from cgpt.bench.measure import Skip
from cgpt.bench.shapes import SHAPES, Shape
from cgpt.bench.table import BENCHES, Settings
from cgpt.bench.tasks import KernelClock
from cgpt.cli.commands import bench
from cgpt.errors import CgptError, ConfigError
from cgpt.models.gpt2 import GPT

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SHORT = {
    "bench_chat_quality.py": [
        "--preset",
        "tiny",
        "--max-steps",
        "2",
        "--every",
        "200",
        "--set",
        "optimizer=adamw",
        "finetune.epochs=1",
    ],
    "bench_checkpoint.py": ["--preset", "tiny", "--repeats", "2"],
    "bench_data.py": [
        "--megabytes",
        "1",
        "--preset",
        "tiny",
        "--steps",
        "2",
        "--data",
        str(BENCHMARKS.parent / "data"),
    ],
    "bench_interrupt.py": ["--interrupts", "2"],
    "peers/learning.py": [
        "--data",
        str(BENCHMARKS.parent / "tests" / "data" / "learning"),
        "--steps",
        "2",
        "--set",
        "n_embd=32",
        "n_layer=1",
        "n_head=2",
        "n_ff=64",
        "vocab_size=600",
        "batch_tokens=256",
        *(["--sides", "cgpt", "trigram"] if not find_spec("torch") else []),
    ],
    "bench_builds.py": ["--config", "S", "--repeats", "1", "--seconds", "0"],
    "bench_beam.py": ["--new", "5", "--repeats", "1"],
    "bench_kill.py": ["--kills", "4"],
    "bench_lora.py": ["--preset", "tiny", "--tokens", "256", "--repeats", "1"],
    "bench_mpi.py": ["--preset", "tiny", "--steps", "2"],
    "bench_sampling.py": ["--repeats", "1"],
    "bench_session.py": ["--turns", "20"],
    "bench_startup.py": ["--repeats", "1"],
    "peers/tokenizer.py": [
        "--data",
        str(Path(__file__).parent.parent / "data"),
        "--repeats",
        "1",
        "--vocab-size",
        "600",
    ],
}


# What a report must say in numbers above 0; * is every entry of a list or an object.
REPORTS = {
    "bench_chat_quality.py": (
        "pretrain_loss",
        "finetune_loss",
        "training_seconds",
        "trained_questions",
        "rewordings",
    ),
    "bench_checkpoint.py": ("parameters", "bytes", "json_bytes", "seconds.*", "save_ratio"),
    "bench_data.py": (
        "corpus_mb",
        "cache_mb",
        "measured.*.tokens",
        "measured.*.first_step",
        "prepare_mb_per_second",
        "first_step_seconds",
    ),
    "bench_interrupt.py": ("interrupts", "forms.*.trainings"),
    "peers/learning.py": ("*.average", "*.law", "*.seconds", "cgpt.tokens", "cgpt.training_loss"),
    "bench_builds.py": ("ratios.*.median", "ratios.*.tokens_per_second"),
    "bench_beam.py": ("tokens_per_second.*.median",),
    "bench_kill.py": ("kills", "rounds", "resumed", "finished", "instants.*", "seconds"),
    "bench_lora.py": ("full.*", "lora.*", "weights_file_mb", "speed"),
    "bench_mpi.py": ("one.step", "two.step", "two.all_reduce", "efficiency", "model.*.step"),
    "bench_sampling.py": ("context", "times.*.us"),
    "bench_session.py": ("answered", "points.*.ms_per_turn", "points.*.context_tokens"),
    "bench_startup.py": ("seconds.*.median",),
    "peers/tokenizer.py": ("bytes", "learn_seconds.*", "mb_per_second.*.median"),
}


def at(report: Any, path: str) -> list[Any]:
    """What a report has at "results.*.median"; nothing where a part of the way is missing."""
    found = [report]
    for name in path.split("."):
        if name == "*":
            found = [
                inner for one in found for inner in (one.values() if isinstance(one, dict) else one)
            ]
        else:
            found = [one[name] for one in found if name in one]
    return found


def missing(name: str, report: Any) -> list[str]:
    """Paths of REPORTS without a value, or with one that is no number above 0."""
    return [
        path
        for path in REPORTS[name]
        if not (found := at(report, path))
        or not all(isinstance(one, (int, float)) and 0 < one < float("inf") for one in found)
    ]


TINY = Shape(3, 4, 128, 192, 300, 16, 2)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is measured for long; two threads, whatever the other tests have."""
    threads = kernels.get_num_threads()
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.001)
    monkeypatch.setattr(machine, "PEAK_SECONDS", 0.001)
    monkeypatch.setattr(machine, "READ", 1 << 20)
    monkeypatch.setitem(SHAPES, "S", TINY)
    kernels.set_num_threads(2)
    yield
    kernels.set_num_threads(threads)


@pytest.fixture
def run(
    brief: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """run(script, *more): what the script prints as JSON, in this process, on a tiny shape."""

    def as_script(name: str, *more: str) -> Any:
        path = str(BENCHMARKS / name)
        monkeypatch.setattr(sys, "argv", [path, *SHORT[name], "--json", *more])
        capfd.readouterr()
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            assert not end.code, capfd.readouterr().err[-2000:]
        return json.loads(capfd.readouterr().out)

    return as_script


def test_every_benchmark_is_run() -> None:
    scripts = [path for path in BENCHMARKS.rglob("*.py") if "argparse" in path.read_text("utf-8")]
    names = {path.relative_to(BENCHMARKS).as_posix() for path in scripts}
    assert names - {"peers/__main__.py"} == set(SHORT) == set(REPORTS)


@pytest.mark.parametrize("name", SHORT)
def test_short_run(run: Callable[..., Any], name: str) -> None:
    assert not missing(name, run(name))


@pytest.mark.parametrize(
    ("seconds", "wrong"),
    [
        ({"a": {"median": 1.5}}, False),
        ({}, True),
        ({"a": {}}, True),
        ({"a": {"median": 0.0}}, True),
        ({"a": {"median": 1.5}, "b": {"median": float("nan")}}, True),
        ({"a": {"median": None}}, True),
    ],
)
def test_a_report_without_its_numbers_is_noticed(seconds: Any, wrong: bool) -> None:
    assert bool(missing("bench_startup.py", {"seconds": seconds})) == wrong


def test_invalid_rows_are_found_and_left_out(run: Callable[..., Any]) -> None:
    found = run("bench_data.py", "--invalid", "--rows", "400")
    for form in "json", "jsonl":
        assert found[f"{form}_found"]["invalid"] == found[f"{form}_left_out"]["invalid"] == 29
        assert found[f"{form}_left_out"]["rows"] == 371


def test_both_ways_of_a_beam_search_find_the_same(run: Callable[..., Any]) -> None:
    assert run("bench_beam.py", "--config", "S", "--beam", "3")["same"] is True


def test_import_brings_in_nothing_heavy(run: Callable[..., Any]) -> None:
    """`import cgpt` brings in nothing heavy, whatever public name is used."""
    assert run("bench_startup.py")["heavy_imports"] == []


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch, brief: None) -> Callable[..., list[dict[str, Any]]]:
    """peers(what, *words): what `python -m benchmarks.peers` measures, in this process."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.peers import __main__ as table

    def results(what: str, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = table.measure([what, "--repeats", "1", *words])["results"]
        assert all(one["bench"] == what and one["values"] for one in found)
        return found

    return results


# ---- what the machine can do ---------------------------------------------------------------


@pytest.fixture(params=kernels.runnable())
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    loaded = kernels.load(request.param)
    before = loaded.get_num_threads()
    loaded.set_num_threads(2)
    yield loaded
    loaded.set_num_threads(before)


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_every_multiply_add_is_done_and_counted(module: ModuleType, tasks: int) -> None:
    """Twelve chains from 0.0, 0.1 ... 1.1: with factor 1 and term 1/1024, 256 steps add 1/4."""
    ends = np.zeros(tasks, np.float32)
    lanes, rounds = module.vector_length(), 3
    work = module.roofline_multiply_add(ends, rounds, 1.0, 1 / 1024)
    assert work == tasks * rounds * 256 * 12 * lanes * 2
    starts = np.arange(12) / 10
    np.testing.assert_allclose(ends, lanes * (starts + rounds / 4).sum(), rtol=1e-5)
    module.roofline_multiply_add(ends, 1, 0.5, 1.0)
    np.testing.assert_allclose(ends, lanes * 12 * 2.0, rtol=1e-6)  # x = x / 2 + 1 ends at 2


@pytest.mark.parametrize("size", [1, 7, 64, 65, 127, 128, 129, 1000])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_every_element_is_read_once(module: ModuleType, size: int, parts: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    sums = np.full(parts, np.nan, np.float32)
    module.roofline_read(x, sums)
    span = -(-size // parts)
    expected = [x[part * span : (part + 1) * span].sum(dtype=np.float64) for part in range(parts)]
    np.testing.assert_allclose(sums, expected, atol=1e-6 * np.abs(x).sum())


def test_probes_refuse_nothing_to_do(module: ModuleType) -> None:
    one, none = np.zeros(1, np.float32), np.zeros(0, np.float32)
    for wrong in (
        lambda: module.roofline_multiply_add(none, 1),
        lambda: module.roofline_multiply_add(one, 0),
        lambda: module.roofline_read(none, one),
        lambda: module.roofline_read(one, none),
    ):
        with pytest.raises(ValueError, match="expected at least 1"):
            wrong()


# ---- shapes and processes ------------------------------------------------------------------


def test_operations_of_a_token_are_those_of_the_matrices() -> None:
    for shape in SHAPES.values():
        entries = {
            entry.name: entry.size
            for entry in GPT.layout(shape.config())
            if len(entry.shape) == 2 and entry.name != "wpe.weight"
        }
        assert shape.matmul_parameters == sum(entries.values())
    small = SHAPES["S"]
    assert small.token_flops == 6 * small.matmul_parameters + 12 * 2 * 256 * 128


def test_a_side_that_cannot_is_left_out_and_one_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_side.py").write_text(
        "from cgpt.bench.measure import Skip\n"
        "from cgpt.errors import ConfigError\n"
        "def skips(): raise Skip('no such thing here')\n"
        "def refuses(): raise ConfigError('no')\n"
        "def works():\n    print('noise on stdout')\n    return lambda: 2.5\n"
        "TASKS = {'skips': skips, 'refuses': refuses, 'works': works, 'fails': lambda: 1 / 0}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sides = dict.fromkeys(("odd", "odder"), workers.Side("odd_side"))
    told: list[tuple[str, CgptError]] = []
    with workers.WorkerPool(sides, 1, lambda *what: told.append(what)) as pool:
        found = pool.measure({"odd": ("works", {}), "odder": ("skips", {})}, 3)
        assert found.values == {"odd": [2.5] * 3}
        assert [(name, str(why)) for name, why in told] == [("odder", "no such thing here")]
        assert 1e6 < found.memory["odd"]["resident"] <= found.memory["odd"]["peak"] < 1e9
        with pytest.raises(ConfigError, match="no"):
            pool.measure({"odd": ("refuses", {})}, 1)
        with pytest.raises(CgptError, match="side odd ended"):
            pool.measure({"odd": ("fails", {})}, 1)


def test_threads_in_the_environment_of_a_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many; one where its name says so; and of cgpt's own way of waiting, nothing."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.peers.__main__ import COMPARISONS
    from benchmarks.peers.sides import SIDES

    monkeypatch.setenv("GOMP_SPINCOUNT", "5000")
    for name, side in SIDES.items():
        environment = side.process_environment(3)
        expected = "1" if name.endswith("-1") else "3"
        assert {environment[name] for name in workers.THREAD_VARIABLES} == {expected}
        assert ("GOMP_SPINCOUNT" in environment) == (not side.package)
    assert {peer for one in COMPARISONS.values() for peer in one.peers} <= SIDES.keys()


@pytest.mark.peer
@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_peers_decode_the_same_model(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every peer that is installed says the tokens that cgpt says with float32."""
    sides = {
        "torch": "torch",
        "transformers": "transformers",
        "llama-cpp": "llama_cpp",
        "ctranslate2": "ctranslate2",
    }
    sides = {side: package for side, package in sides.items() if find_spec(package)}
    if not sides or ("llama-cpp" in sides and not find_spec("gguf")):
        pytest.skip("no peer is installed")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.peers.sides import SIDES

    made = {"shape": vars(TINY), "folder": str(tmp_path), "weights": weights}
    found = {}
    for side in ("cgpt", *sides):
        stored = "float32" if side == "cgpt" else weights
        details = {**made, "weights": stored, "batch": 3, "seconds": 0.0, "threads": 1}
        with workers.Worker(side, SIDES[side], 1) as worker:
            try:
                worker.prepare("make", {**made, "weights": stored})
                worker.prepare("decode", details)
                found[side] = worker.ask(do="measure")["tokens"]
            except Skip:
                assert weights != "float32"
    agreeing = 100 if weights == "float32" else 5  # rounding turns a close choice some day
    assert len(set(found["cgpt"])) > 5
    assert all(tokens[:agreeing] == found["cgpt"][:agreeing] for tokens in found.values())


# ---- short runs of what has no script of its own ---------------------------------------------


def measured(what: str, **more: Any) -> list[dict[str, Any]]:
    results = bench.measure([what], 1, **more)["results"]
    assert all(one["bench"] == what and one["values"] for one in results)
    return results


def test_grids_leave_out_what_takes_too_long(
    brief: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "MOST_FLOPS", 3e9)
    small = measured("small")
    assert "C256 L2 B1 T16" in [one["name"] for one in small]
    assert "C512 L4 B4 T64" in capsys.readouterr().err and len(small) < 36
    assert [one["name"] for one in measured("sweep")] == ["C256 L4 B1 T16", "C256 L4 B1 T64"]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("small", "正在测量 small: 36 种形状，各 2 次，至少需要 00:36..."),
        ("sweep", "正在测量 sweep: 12 种形状，各 2 次，至少需要 00:12..."),
        ("train", "正在测量 train S..."),
    ],
)
def test_a_grid_says_how_long_it_takes(what: str, said: str) -> None:
    assert bench.announced(what, BENCHES[what], "S", 2) == said


@pytest.mark.parametrize("what", ["small", "sweep"])
def test_the_announced_grid_is_the_grid(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    seen: list[Shape] = []
    monkeypatch.setattr(train, "bench_grid", lambda shapes, run_: seen.extend(shapes) or [])
    list(BENCHES[what].run(Settings("S", 1, 1, lambda *_: None)))
    assert len(seen) == BENCHES[what].shapes


def test_the_peak_is_named_after_the_set_in_use_where_that_is_as_fast() -> None:
    assert fastest({"avx2": 100.0, "avx512": 97.0}, "avx512") == "avx512"
    assert fastest({"avx2": 100.0, "avx512": 90.0}, "avx512") == "avx2"
    assert fastest({"generic": 20.0, "avx2": 100.0}, "generic") == "avx2"


def test_a_grid_tells_its_least_ratio(brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """cgpt beside itself with one thread: a ratio at each shape, the least one at the end."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.peers.compare import BEST, compared, with_least

    monkeypatch.setattr(train, "MOST_FLOPS", 1.2e9)
    alone = workers.Side(workers.CGPT.module, environment=workers.ONE_THREAD)
    run_ = Settings("S", 1, 2, lambda *what: None, peers={"one": alone})
    *found, least, best = with_least(compared(train.bench_sweep(run_)))
    ratios = [one for one in found if one.to == "one"]
    assert ratios and least.median == best.median == min(one.median for one in ratios)
    assert least.note in [one.name for one in ratios] and best.to == BEST


def test_a_ratio_of_seconds_is_that_of_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.peers.compare import compared

    times = [measure.Measurement("start", "s", [2.0], "cgpt", higher=False)]
    times += [
        measure.Measurement("start", "s", [v], s, higher=False) for s, v in (("a", 3.0), ("b", 5.0))
    ]
    *_, to_a, to_b, best = compared(times)
    assert [(one.name, one.to, one.values) for one in (to_a, to_b, best)] == [
        ("start, speed", "a", [1.5]),
        ("start, speed", "b", [2.5]),
        ("start, speed", "best peer", [1.5]),
    ]
    assert (best.note, best.side, best.higher) == ("a", "cgpt", True)


def test_memory_that_is_not_there_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MOST_FLOPS", 1e30)
    with pytest.raises(Skip, match="GB"):
        train.require_room(Shape(1, 1, 8, 32, 1 << 24, 1 << 10, 1 << 10))
    train.require_room(TINY)


def test_cgpt_against_itself(brief: None) -> None:
    many, one, ratio = measured("threads", config="S")
    assert ratio["median"] == pytest.approx(many["median"] / one["median"])
    (same,) = measured("bits")
    assert same["median"] == 1.0
    (share,) = measured("share")
    assert 0 < share["median"] < 100


def test_recompute_reaches_the_side_that_is_measured(
    brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(
        tasks, "GPT", lambda *what, **more: built.append(more) or GPT(*what, **more)
    )
    form = vars(TINY)
    assert tasks.train(form, 0.001, recompute=True)() > 0 and tasks.train(form, 0.001)() > 0
    assert [one["recompute"] for one in built] == [True, False]
    assert measured("train", recompute=True)


def test_other_bits_are_noticed(brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "cgpt_alone", lambda *what: [["a", "a", "b", "a"]])
    (same,) = measured("bits")
    assert same["median"] == 0.0


def test_time_outside_the_kernels_is_all_that_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vars(kernels).items():
        if callable(value):
            monkeypatch.setattr(kernels, name, value)  # put back what the clock replaces
    clock = KernelClock()
    x = np.ones(1 << 22, np.float32)
    spent = measure.seconds_of(lambda: [kernels.sum_of_squares(x) for _ in range(5)])
    time.sleep(0.01)
    found = clock.take()["sum_of_squares"]
    assert 0.5 * spent < found.seconds <= spent
    assert (found.work, found.size) == (0, 5 * x.nbytes)
    assert not clock.take()


def test_operations_of_kernels_are_those_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the clock counts in a step beside 6 flops a matrix element and token; of attention
    only what is not masked."""
    for name, value in vars(kernels).items():
        if callable(value):
            monkeypatch.setattr(kernels, name, value)
    calls = tasks.clocked(TINY, 0.001)()[1]
    products = sum(one.work for name, one in calls.items() if name.startswith("linear"))
    assert products == 6.0 * TINY.matmul_parameters * TINY.tokens
    pairs = TINY.B * TINY.T * (TINY.T + 1) / 2
    assert calls["attention_forward"].work == 4 * TINY.n_layer * TINY.n_embd * pairs
    assert calls["attention_backward"].work == 10 * TINY.n_layer * TINY.n_embd * pairs


def test_roofline(brief: None) -> None:
    kernels_of_a_step = {"linear_forward", "attention_backward", "adamw", "all kernels"}
    assert {one["name"] for one in measured("roofline")} > kernels_of_a_step


def test_startup(brief: None) -> None:
    assert [one["name"] for one in measured("startup")] == ["first training step", "first token"]


def test_products_beside_blas(peers: Callable[..., list[dict[str, Any]]]) -> None:
    found = peers("products")
    assert {one["side"] for one in found} == {"cgpt", "blas", "blas-slices-1"}
    assert len({one["name"] for one in found}) == 15
    assert {one.get("to") for one in found} > {"blas", "best peer", "multiply-add peak"}


def test_packing(peers: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    dialogue = {
        "messages": [
            {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "你好，很高兴见到你。"},
        ]
    }
    path.write_text(json.dumps([dialogue] * 5), "utf-8")
    (epoch,) = peers("packing", "--data", str(path))
    assert epoch["note"].startswith("1 steps, ")
    path.write_text(json.dumps(["一段文字。"]), "utf-8")
    with pytest.raises(ConfigError, match="needs dialogues"):
        peers("packing", "--data", str(path))


@pytest.mark.parametrize("what", ["train", "decode", "startup"])
def test_without_peers_cgpt_alone_is_measured(
    peers: Callable[..., list[dict[str, Any]]], what: str
) -> None:
    assert {one["side"] for one in peers(what)} <= {"cgpt", "machine"}


@pytest.mark.peer
@pytest.mark.parametrize("what", ["train", "packing", "startup"])
def test_beside_torch(peers: Callable[..., list[dict[str, Any]]], what: str) -> None:
    pytest.importorskip("torch")
    assert {one["to"] for one in peers(what, "--peer", "torch") if "to" in one} >= {"torch"}


def test_a_missing_peer_names_the_extra(
    peers: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgpt.bench.workers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=re.escape("cgpt[peers]")):
        peers("train", "--peer", "torch")
    with pytest.raises(SystemExit, match="2"):
        peers("train", "--peer", "torch,nobody")


@pytest.mark.peer
def test_padded_batches_hold_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.peers.torch_side import padded_batches

    lengths = np.arange(1, 41)
    ids = np.arange(lengths.sum(), dtype=np.int32)
    np.savez(tmp_path / "samples.npz", ids=ids, targets=ids + 1, lengths=lengths)
    batches = list(padded_batches(tmp_path))
    assert [len(one) for one, _ in batches] == [16, 16, 8]
    kept = np.concatenate([one[wanted >= 0].numpy() for one, wanted in batches])
    assert np.array_equal(np.sort(kept), ids)
    assert all(
        ((wanted == one + 1) | ((one == 0) & (wanted == -1))).all() for one, wanted in batches
    )
