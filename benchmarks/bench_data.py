"""A corpus larger than one would keep in memory: how long until the first step, how much memory.

    python benchmarks/bench_data.py                 1 GB of made-up documents, deleted afterwards
    python benchmarks/bench_data.py --megabytes 100 --kind dialogues --json
    ... --only start --folder DIR                   again on a corpus and a cache that were kept
    python benchmarks/bench_data.py --invalid       52,002 rows of which 29 cannot be used

The documents are pairs of texts of --data, drawn at random, so that hardly two of them are alike;
of --kind dialogues, questions and answers cut from the same texts. Every measurement is a process
of its own, timed from its start:

prepare   the first training: vocabulary of a sample, all files tokenised into the cache
start     the next one, whose tokens are in the cache: seconds to the end of the first step
small     the same steps of the same model on a few documents: what was not the data's memory

Of --invalid, as .json and as .jsonl: "found" reads the rows and refuses them, "left_out" begins a
training without them; seconds from the start of the process, peak resident memory.

"data" is the peak resident memory of start less that of small; "all of it" the same after every
page of the cache was read, as at the end of an epoch (the system may drop these pages again).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

DATA = Path(__file__).parent.parent / "data"
FILES = 4
FEW = 300  # documents of "small"
ROWS = 52_002  # of --invalid, as many as the Alpaca data set has
BAD = (
    '{"instruction": "问", "output": ""}',
    '{"instruction": "问", "output": null}',
    '{"instruction": "问"}',
    '{"instruction": "问", "output": "答", "output": "另"}',
    "[]",
    '{"messages": [{"role": "narrator", "content": "文"}]}',
    '{"unknown": 1}',
)
N_BAD = 29


def sample_texts(folder: Path) -> list[str]:
    """The texts of the folder's pretraining_*.json."""
    return [
        text
        for path in sorted(folder.glob("pretraining_*.json"))
        for text in json.loads(path.read_text(encoding="utf-8"))
    ]


def make_corpus(folder: Path, texts: list[str], size: int, kind: str) -> None:
    """FILES files of about `size` bytes together, and small.jsonl."""
    rng = np.random.default_rng(0)

    def line() -> str:
        one, other = (texts[i] for i in rng.integers(0, len(texts), 2))
        if kind == "texts":
            return json.dumps(f"{one}\n{other}", ensure_ascii=False) + "\n"
        question = {"role": "user", "content": one[:60]}
        answer = {"role": "assistant", "content": other[:200]}
        return json.dumps({"messages": [question, answer]}, ensure_ascii=False) + "\n"

    for number in range(FILES):
        left = size / FILES
        with open(folder / f"{number}.jsonl", "w", encoding="utf-8", newline="\n") as file:
            while left > 0:
                written = line()
                left -= len(written.encode())
                file.write(written)
    (folder / "small.jsonl").write_text("".join(line() for _ in range(FEW)), encoding="utf-8")


def make_rows(path: Path, texts: list[str], rows: int) -> None:
    """So many rows as Alpaca has them, N_BAD of them of the kinds of BAD."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(rows):
        one, other = (texts[i] for i in rng.integers(0, len(texts), 2))
        lines.append(
            json.dumps(
                {"instruction": f"{number} {one[:40]}", "input": "", "output": other[:120]},
                ensure_ascii=False,
            )
        )
    for number, place in enumerate(rng.permutation(rows)[:N_BAD].tolist()):
        lines[place] = BAD[number % len(BAD)]
    text = "\n".join(lines) if path.suffix == ".jsonl" else "[" + ",\n".join(lines) + "]"
    path.write_text(text, encoding="utf-8")


def measure_invalid(what: str, path: Path, args: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: read the rows, or train a few steps without the invalid ones."""
    from cgpt.bench.workers import memory
    from cgpt.config import RunConfig
    from cgpt.corpus.invalid_rows import InvalidRowsError
    from cgpt.corpus.reader import read_corpus
    from cgpt.training.recipe import default_run
    from cgpt.training.run import TrainingRun

    if what == "found":
        try:
            read_corpus(path)
            raise SystemExit("no row was refused")
        except InvalidRowsError as error:
            found = {"invalid": len(error.rows), "kinds": len(error.counts)}
    else:
        train = default_run(args.preset).finetune_train.to_dict()
        run = TrainingRun.start(
            RunConfig(
                preset=args.preset,
                tokenizer="chars",
                chat=(str(path),),
                skip_invalid=True,
                finetune_train={**train, "max_steps": args.steps},
            )
        )
        run.fit_phase("finetune")
        found = {
            "invalid": len(run.sources["finetune"].invalid),
            "rows": len(run.documents("finetune")),
            "steps": run.llm.training_state.step,
        }
    return {**found, "ended": time.time(), "peak": memory()["peak"] / 1e6}


def run_invalid(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both forms of the file, read and trained with."""
    found: dict[str, Any] = {}
    for suffix in ("json", "jsonl"):
        path = folder / f"rows.{suffix}"
        make_rows(path, sample_texts(args.data), args.rows)
        for what in ("found", "left_out"):
            began = time.time()
            one = run_command(
                "--measure-invalid",
                what,
                "--folder",
                str(path),
                "--preset",
                args.preset,
                "--steps",
                str(args.steps),
            )
            seconds = one.pop("ended") - began
            found[f"{suffix}_{what}"] = {**one, "seconds": seconds}
    return {"rows": args.rows, "bad": N_BAD, **found}


def measure(what: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: train a few steps, and say what that took."""
    from cgpt.bench.workers import memory
    from cgpt.config import RunConfig
    from cgpt.corpus import token_cache
    from cgpt.training.recipe import default_run
    from cgpt.training.run import TrainingRun

    token_cache.LARGE_CORPUS = min(token_cache.LARGE_CORPUS, args.megabytes * 500_000)
    names = ["small.jsonl"] if what == "small" else [f"{n}.jsonl" for n in range(FILES)]
    paths = tuple(str(folder / name) for name in names)
    # The vocabulary of the large corpus: the same model, and no jieba in memory.
    tokenizer = str(next((folder / "cache").glob("*.json"))) if what == "small" else "words"
    phase, recipe = (
        ("pretrain", "pretrain_train") if args.kind == "texts" else ("chat", "finetune_train")
    )
    train = getattr(default_run(args.preset), recipe).to_dict()
    config = RunConfig(
        preset=args.preset,
        tokenizer=tokenizer,
        **{phase: paths, recipe: {**train, "max_steps": args.steps}},
    )
    run = TrainingRun.start(config, cache=folder / "cache")
    ready, first = time.time(), []
    name = run.phases[0]
    run.fit_phase(name, on_progress=lambda _: first.append(time.time()))
    found = {
        "ready": ready,
        "first_step": first[0],
        "cpu": time.process_time(),
        "peak": memory()["peak"] / 1e6,
        "cached": float(run.sources[name].cached),
        "tokens": run.documents(name).n_tokens,
        "documents": len(run.documents(name)),
    }
    store = run.documents(name).store
    for number in range(0, len(store)):
        store.tokens(number)[::1024].max()
    return {**found, "peak_touched": memory()["peak"] / 1e6}


def in_a_process(what: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """What `measure` found, times as seconds from the start of the process."""
    began = time.time()
    found = run_command(
        "--measure",
        what,
        "--folder",
        str(folder),
        "--preset",
        args.preset,
        "--megabytes",
        str(args.megabytes),
        "--kind",
        args.kind,
        "--steps",
        str(args.steps),
    )
    return {**found, "ready": found["ready"] - began, "first_step": found["first_step"] - began}


def run_command(*args: str) -> dict[str, float]:
    """What this script prints in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make what is missing in the folder and measure."""
    if not (folder / "small.jsonl").exists():
        print(f"writing {args.megabytes} MB...", file=sys.stderr, flush=True)
        make_corpus(folder, sample_texts(args.data), args.megabytes * 1_000_000, args.kind)
    found = {}
    for what in args.only or ("prepare", "start", "small"):
        found[what] = in_a_process(what, folder, args)
        print(f"{what}: {found[what]}", file=sys.stderr, flush=True)
    size = sum((folder / f"{n}.jsonl").stat().st_size for n in range(FILES))
    cache = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
    return {
        "kind": args.kind,
        "preset": args.preset,
        "corpus_mb": size / 1e6,
        "cache_mb": cache / 1e6,
        "measured": found,
        **figures(found, size / 1e6),
    }


def figures(found: dict[str, dict[str, float]], megabytes: float) -> dict[str, float]:
    """What a reader wants to know."""
    result = {}
    if "prepare" in found:
        result["prepare_seconds"] = found["prepare"]["ready"]
        result["prepare_mb_per_second"] = megabytes / found["prepare"]["ready"]
        result["prepare_cpu_seconds"] = found["prepare"]["cpu"]
    if "start" in found:
        result["first_step_seconds"] = found["start"]["first_step"]
    if "small" in found and "start" in found:
        result["data_mb"] = found["start"]["peak"] - found["small"]["peak"]
        result["data_all_mb"] = found["start"]["peak_touched"] - found["small"]["peak"]
    if "small" in found and "prepare" in found:
        result["prepare_data_mb"] = found["prepare"]["peak"] - found["small"]["peak"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--kind", choices=("texts", "dialogues"), default="texts")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of pretraining_*.json")
    parser.add_argument("--folder", type=Path, help="keep corpus and cache here")
    parser.add_argument("--only", nargs="+", choices=("prepare", "start", "small"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--invalid", action="store_true", help="rows that cannot be used")
    parser.add_argument("--rows", type=int, default=ROWS, help="of --invalid")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--measure-invalid", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder, args)))
        return
    if args.measure_invalid:
        print(json.dumps(measure_invalid(args.measure_invalid, args.folder, args)))
        return
    if not list(args.data.glob("pretraining_*.json")):
        raise SystemExit(f"{args.data}: no pretraining_*.json; name a folder of them by --data")
    with TemporaryDirectory(prefix="cgpt-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = (run_invalid if args.invalid else run)(args, folder)
    if args.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        if key != "measured":
            print(f"{key:24} {value:,.1f}" if isinstance(value, float) else f"{key:24} {value}")


if __name__ == "__main__":
    main()
