"""The peers: the module with the tasks of each, the package it needs, its environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cgpt.bench.workers import ONE_THREAD, Side

ROOT = Path(__file__).parents[2]
PATH = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
# glibc then neither maps large blocks one by one nor gives memory back: no page faults after the
# first step.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
ALONE = {"threads": 1}

_SIDES = {
    "cgpt": Side("cgpt_side"),
    "blas": Side("blas"),
    "blas-slices-1": Side("blas", environment=ONE_THREAD),
    "torch": Side("torch_side", "torch"),
    "torch-malloc": Side("torch_side", "torch", {}, KEEP_MEMORY),
    "torch-compile": Side("torch_side", "torch", {"compiled": True}),
    "transformers": Side("transformers_side", "transformers"),
    "llama-cpp": Side("llama_cpp_side", "llama_cpp"),
    "llama-cpp-1": Side("llama_cpp_side", "llama_cpp", ALONE, ONE_THREAD),
    # Its own threads and those of its MKL get in each other's way: with several, oneDNN. With
    # one, MKL has to be told so too, or it starts several.
    "ctranslate2": Side("ctranslate2_side", "ctranslate2", {}, {"CT2_USE_MKL": "0"}),
    "ctranslate2-1": Side("ctranslate2_side", "ctranslate2", ALONE, ONE_THREAD),
}
SIDES = {
    name: replace(
        side, module=f"benchmarks.peers.{side.module}", environment={**PATH, **side.environment}
    )
    for name, side in _SIDES.items()
}


def sides(names: Iterable[str]) -> dict[str, Side]:
    """The sides of these names; of a decoder also the one with a single thread, which is the
    faster one for small shapes."""
    return {name: SIDES[name] for one in names for name in (one, f"{one}-1") if name in SIDES}
