"""Decoding beside peers with the same random weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from benchmarks.peers.compare import compared
from cgpt.bench import decode
from cgpt.bench.measure import Measurement, Skip
from cgpt.bench.shapes import NEW, SHAPES
from cgpt.bench.table import Settings
from cgpt.bench.workers import Worker


def bench_decode(run: Settings) -> Iterator[Measurement]:
    """New tokens a second, of all rows together; memory; how much of the bandwidth is used; how
    many of the first tokens are cgpt's."""
    with tempfile.TemporaryDirectory(dir=decode.bench_folder()) as folder:
        decode.make_model(folder, run)
        run = make_files(folder, run)
        found = decode.decode_rounds(folder, run)
    yield from compared(decode.results(found, run))
    tokens = {side: v[0]["tokens"] for side, v in found.values.items() if side != "machine"}
    for side, theirs in tokens.items():
        if side != "cgpt":
            pairs = zip(tokens["cgpt"], theirs, strict=True)
            same = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            name, unit = "first tokens as cgpt's", f"of {NEW}"
            yield Measurement(name, unit, [float(same)], side, run.config)


def make_files(folder: str, run: Settings) -> Settings:
    """Write the model for every peer; the settings less the peers that cannot be written for."""
    details = {"shape": vars(SHAPES[run.config]), "folder": folder, "weights": run.weights}
    peers, made = dict(run.peers), dict[str, bool]()
    for name, side in run.peers.items():
        if side.module not in made:
            with Worker(name, side, run.threads) as maker:
                try:
                    maker.prepare("make", details)
                    made[side.module] = True
                except Skip as reason:
                    run.on_skip(name, reason)
                    made[side.module] = False
        if not made[side.module]:
            del peers[name]
    return replace(run, peers=peers)
