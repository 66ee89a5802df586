"""How well a model predicts held-out Chinese after a few minutes of training, against two peers.

    python -m benchmarks.peers.learning --data FOLDER   10 minutes a side, in turn
    ... --minutes 1      the same for a minute
    ... --steps 500      so many steps a side, whatever they take
    ... --sides cgpt torch trigram   --set n_embd=384 lr=0.002   --json

Data: pretraining_*.json of --data less a held-out tenth of each file's texts; a text that occurs in
several files is counted once. Figures: bits a character = all bits of the held-out texts (their
ends included) / all their characters, for law, stories, officehelp and songci, and their average.
So tokenizers compare: cgpt spells what it does not know as bytes and pays for each; the peers have
the characters seen at least twice, and an unknown one costs 16 bits besides the symbol that says
that it is one. Time is everything behind the reading of the files, learning a vocabulary included,
but not the scoring.

cgpt     the recipe below, documents packed
torch    a GPT in PyTorch in the manner of nanoGPT: characters, 4 layers, 256 wide, context 256,
         batch 8 of one stream of all texts, AdamW 2e-3 with a cosine; scored text by text and as a
         stream in windows that overlap by half, whichever is better for it
trigram  characters, Witten-Bell interpolation down to all of 2^16 characters; takes no time
Source: Witten and Bell 1991, IEEE Transactions on Information Theory 37(4).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
SCORED = ("law", "stories", "officehelp", "songci")
UNKNOWN_BITS = 16.0
END, UNKNOWN = "\0", "\1"  # symbols of the peers: the end of a text, a rare character

Score = dict[str, float]


# Data


def split_texts(folder: Path, seed: int = 0) -> tuple[list[str], dict[str, list[str]]]:
    """(texts to train on, held-out texts by file): a tenth of each file, no text in both."""
    rng = np.random.default_rng(seed)
    train: list[str] = []
    held_out, seen = {}, set()
    for path in sorted(
        folder.glob("pretraining_*.json"),
        key=lambda path: (path.stem == "pretraining_small", path.stem),
    ):
        texts = [
            text
            for text in json.loads(path.read_text(encoding="utf-8"))
            if not (text in seen or seen.add(text))
        ]
        out = set(rng.permutation(len(texts))[: len(texts) // 10].tolist())
        train += [text for i, text in enumerate(texts) if i not in out]
        held_out[path.stem.partition("_")[2]] = [texts[i] for i in sorted(out)]
    return train, held_out


def scores(held_out: dict[str, list[str]], bits: Callable[[list[str]], float]) -> Score:
    """Bits a character of each scored file, and their average."""
    found = {name: bits(held_out[name]) / sum(map(len, held_out[name])) for name in SCORED}
    return {**found, "average": sum(found.values()) / len(found)}


# cgpt


def recipe(changes: dict[str, str]) -> tuple[Any, Any]:
    """(GPTConfig, TrainConfig) with fields changed by name."""
    from cgpt import GPTConfig, TrainConfig

    shape = GPTConfig(n_layer=2, n_head=8, n_embd=256, n_ff=1024, vocab_size=8192, block_size=256)
    train = TrainConfig(
        batch_tokens=2048,
        lr=3e-3,
        warmup=20,
        min_lr_ratio=0.0,
        optimizer="muon",
        embedding_lr=3.0,
        schedule="wsd",
        decay_share=0.6,
    )
    for config in (shape, train):
        kinds = {field.name: type(getattr(config, field.name)) for field in fields(config)}
        found = {name: kinds[name](changes.pop(name)) for name in list(changes) if name in kinds}
        if config is shape:
            shape = replace(shape, **found)
        else:
            train = replace(train, **found)
    if changes:
        raise SystemExit(f"--set: no field is named {', '.join(changes)}")
    return shape, train


def seconds_a_step(llm: Any, config: Any, texts: list[str], steps: int = 12) -> float:
    """Median time of a step of a throw-away model."""
    import cgpt

    model = cgpt.LLM(llm.tokenizer, cgpt.GPT(llm.config))
    times = [time.perf_counter()]
    cgpt.Trainer(model, replace(config, max_steps=steps, epochs=100)).fit(
        texts[:2000], on_progress=lambda _: times.append(time.perf_counter())
    )
    return float(np.median(np.diff(times)[2:]))


def train_cgpt(train: list[str], held_out: dict[str, list[str]], options: Any) -> dict[str, Any]:
    """Train by the recipe for the budget, score; the figures."""
    import cgpt

    start = time.perf_counter()
    shape, config = recipe(dict(one.split("=", 1) for one in options.set))
    llm = cgpt.LLM.from_texts(train, shape, seed=options.seed)
    tokens = sum(len(sample) for sample in llm.samples(train))
    steps = options.steps
    if not steps:
        a_step = seconds_a_step(llm, config, train)
        left = 60 * options.minutes - (time.perf_counter() - start)
        steps = max(1, int(left / a_step))
    epochs = 1 + steps * config.batch_tokens * config.grad_accum // tokens
    config = replace(
        config,
        epochs=epochs + epochs // 8,
        max_steps=steps,
        schedule_steps=steps,
        seed=options.seed,
        max_minutes=0.0 if options.steps else left / 60,
    )
    fit = cgpt.Trainer(llm, config).fit(train)
    seconds = time.perf_counter() - start

    def bits(texts: list[str]) -> float:
        return -sum(llm.score(text, end=True).total for text in texts) / math.log(2)

    return {
        **scores(held_out, bits),
        "steps": fit.steps,
        "tokens": fit.tokens,
        "characters": round(fit.tokens / tokens * sum(map(len, train))),
        "epochs": fit.tokens / tokens,
        "seconds": seconds,
        "tokens_per_second": fit.tokens / fit.seconds,
        "training_loss": fit.loss,
        "parameters": llm.n_parameters,
        "vocabulary": len(llm.tokenizer),
    }


# The peers


def characters(train: list[str]) -> dict[str, int]:
    """Symbols of the peers: END, UNKNOWN, the characters that occur at least twice."""
    counts = Counter("".join(train))
    found = [END, UNKNOWN, *sorted(one for one, count in counts.items() if count > 1)]
    return {one: number for number, one in enumerate(found)}


def stream(texts: Iterable[str], known: dict[str, int]) -> tuple[np.ndarray, float]:
    """(END text END text ... END as ids, bits that the unknown characters cost besides)."""
    symbols = END + END.join(texts) + END
    ids = np.array([known.get(one, 1) for one in symbols], np.int64)
    return ids, UNKNOWN_BITS * float((ids == 1).sum())


def train_torch(train: list[str], held_out: dict[str, list[str]], options: Any) -> dict[str, Any]:
    """The PyTorch model for the budget; the figures of the better way to score it."""
    import torch

    from benchmarks.peers.torch_side import build
    from cgpt.config import GPTConfig

    start = time.perf_counter()
    known = characters(train)
    ids = torch.from_numpy(stream(train, known)[0])
    T, B = 256, 8
    model = build(
        GPTConfig(n_layer=4, n_head=8, n_embd=256, n_ff=1024, vocab_size=len(known), block_size=T)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    rng = np.random.default_rng(options.seed)
    step, progress = 0, 0.0
    while progress < 1:
        rate = 2e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = [ids[i : i + T + 1] for i in rng.integers(0, len(ids) - T - 1, B).tolist()]
        batch = torch.stack(rows)
        optimizer.zero_grad(set_to_none=True)
        loss = model(batch[:, :-1], batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        progress = (
            step / options.steps
            if options.steps
            else (time.perf_counter() - start) / (60 * options.minutes)
        )
    seconds = time.perf_counter() - start
    ways = [
        scores(held_out, lambda texts, way=way: way(model, known, texts, T))
        for way in (bits_by_text, bits_of_stream)
    ]
    best = min(ways, key=lambda found: found["average"])
    return {
        **best,
        "scored": "by text" if best is ways[0] else "as a stream",
        "steps": step,
        "characters": step * B * T,
        "seconds": seconds,
        "training_loss": loss.item(),
        "parameters": sum(one.numel() for one in model.parameters()),
        "vocabulary": len(known),
    }


def bits_by_text(model: Any, known: dict[str, int], texts: list[str], T: int) -> float:
    """Bits of the texts, each behind nothing but END."""
    return sum(bits_of_stream(model, known, [text], T) for text in texts)


def bits_of_stream(model: Any, known: dict[str, int], texts: list[str], T: int) -> float:
    """Bits of the texts one behind the other, in windows that overlap by half."""
    import torch
    from torch.nn import functional

    ids, total = stream(texts, known)
    with torch.inference_mode():
        for start in range(0, max(len(ids) - 1 - T, 0) + T // 2, T // 2):
            window = torch.from_numpy(ids[start : start + T + 1])
            skip = T // 2 if start else 0
            hidden = model.ln_f(model.hidden(window[None, :-1]))[0, skip:]
            logits = functional.linear(hidden, model.wte.weight)
            total += float(
                functional.cross_entropy(logits, window[1 + skip :], reduction="sum")
            ) / math.log(2)
    return total


def train_trigram(train: list[str], held_out: dict[str, list[str]], options: Any) -> dict[str, Any]:
    """A Witten-Bell character trigram on the same texts."""
    start = time.perf_counter()
    known = characters(train)
    ids = stream(train, known)[0].tolist()
    orders: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(3)]
    for i in range(1, len(ids)):
        for order, counts in enumerate(orders):
            counts[tuple(ids[max(0, i - order) : i])][ids[i]] += 1
    totals = [
        {context: (sum(found.values()), len(found)) for context, found in counts.items()}
        for counts in orders
    ]

    def bits(texts: list[str]) -> float:
        total = 0.0
        for text in texts:
            symbols, extra = stream([text], known)
            row = symbols.tolist()
            total += extra
            for i in range(1, len(row)):
                probability = 1 / len(known)
                for order, counts in enumerate(orders):
                    context = tuple(row[max(0, i - order) : i])
                    if context in totals[order]:
                        seen, kinds = totals[order][context]
                        probability = (counts[context][row[i]] + kinds * probability) / (
                            seen + kinds
                        )
                total -= math.log2(probability)
        return total

    return {
        **scores(held_out, bits),
        "seconds": time.perf_counter() - start,
        "vocabulary": len(known),
    }


SIDES = {"cgpt": train_cgpt, "torch": train_torch, "trigram": train_trigram}


def measure(side: str, arguments: Sequence[str]) -> dict[str, Any]:
    """One side in a process of its own, so that no library's threads meet another's."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("GOMP_SPINCOUNT", None)
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--only", side],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=True,
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each side")
    parser.add_argument("--steps", type=int, default=0, help="of each side, instead of minutes")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"{options.data}: no such folder; name one with pretraining_*.json files")
    if options.threads:
        os.environ.update(OMP_NUM_THREADS=str(options.threads))
    if options.only:
        print(json.dumps(SIDES[options.only](*split_texts(options.data), options)))
        return
    result = {side: measure(side, sys.argv[1:]) for side in options.sides}
    if options.json:
        print(json.dumps(result))
        return
    for side, found in result.items():
        print(side)
        for name, value in found.items():
            print(
                f"  {name:20} {value:12.5g}"
                if isinstance(value, (int, float))
                else f"  {name:20} {value:>12}"
            )


if __name__ == "__main__":
    main()
