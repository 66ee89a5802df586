"""The tokenizer in MB of UTF-8 a second, and how long a vocabulary takes to learn; one thread.

    python -m benchmarks.peers.tokenizer [--data PATH...] [--vocab-size 8192] [--repeats 5] [--json]

The bars: `encode` of words at 20 MB a second of processor time; a vocabulary of a 10 MB corpus in
60 s. Peers where they are installed: jieba and rjieba cut the same text into words (and find no
ids), Hugging Face `tokenizers` encodes with byte pairs that it learnt from the same text. Sides
take turns; what is printed is the median, with the least and the most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

from cgpt.corpus.files import packaged_data
from cgpt.corpus.reader import read_corpus
from cgpt.tokenizers.tokenizer import KINDS, Tokenizer

SLOW_BYTES = 300_000  # as much text is enough for a side of half a megabyte a second

Encode = Callable[[str], object]


def size_of(texts: Sequence[str]) -> int:
    """Bytes of UTF-8."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def learn(texts: list[str], vocab_size: int) -> tuple[dict[str, Tokenizer], dict[str, float]]:
    """A vocabulary of each kind, and the seconds of processor time that it took."""
    found, seconds = {}, {}
    for kind in KINDS:
        began = time.process_time()
        found[kind] = Tokenizer.train(texts, vocab_size, kind)
        seconds[kind] = time.process_time() - began
    return found, seconds


def peers(texts: list[str], vocab_size: int) -> dict[str, Encode]:
    """What is installed beside cgpt, ready to encode."""
    found: dict[str, Encode] = {}
    if find_spec("jieba"):
        import jieba

        jieba.setLogLevel(60)
        jieba.initialize()
        found["jieba cut"] = jieba.lcut
    if find_spec("rjieba"):
        import rjieba

        rjieba.cut("加载词典")
        found["rjieba cut"] = rjieba.cut
    if find_spec("tokenizers"):
        from tokenizers import Tokenizer as Theirs
        from tokenizers import models, pre_tokenizers, trainers

        theirs = Theirs(models.BPE())
        theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        theirs.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=vocab_size,
                show_progress=False,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
        )
        found["Hugging Face tokenizers"] = theirs.encode
    return found


def measure(sides: dict[str, Encode], texts: list[str], repeats: int) -> dict[str, Any]:
    """MB of text a second of processor time, the sides in turn."""
    few = texts[:: max(1, size_of(texts) // SLOW_BYTES)]
    given = {name: few if name == "jieba cut" else texts for name in sides}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, encode in sides.items():
            began = time.process_time()
            for text in given[name]:
                encode(text)
            rates[name].append(size_of(given[name]) / 1e6 / (time.process_time() - began))
    return {
        name: {"median": statistics.median(found), "least": min(found), "most": max(found)}
        for name, found in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[], metavar="PATH")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    texts = read_corpus(options.data or packaged_data()).texts()
    ours, seconds = learn(texts, options.vocab_size)
    sides: dict[str, Encode] = {f"cgpt {kind} encode": one.encode for kind, one in ours.items()}
    sides.update((f"cgpt {kind} encode_bytes", one.encode_bytes) for kind, one in ours.items())
    sides.update(peers(texts, options.vocab_size))
    result = {
        "bytes": size_of(texts),
        "texts": len(texts),
        "vocab_size": options.vocab_size,
        "learn_seconds": seconds,
        "mb_per_second": measure(sides, texts, options.repeats),
        "bytes_per_token": {
            kind: size_of(texts) / sum(len(one.encode(text)) for text in texts)
            for kind, one in ours.items()
        },
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['bytes'] / 1e6:.2f} MB in {len(texts)} texts, {options.vocab_size} tokens")
    for kind, one in seconds.items():
        print(
            f"{'learn ' + kind:28} {one:8.2f} s, {result['bytes_per_token'][kind]:.2f} bytes "
            "a token"
        )
    for name, rate in result["mb_per_second"].items():
        print(f"{name:28} {rate['median']:8.2f} MB/s  ({rate['least']:.2f} to {rate['most']:.2f})")


if __name__ == "__main__":
    sys.exit(main())
