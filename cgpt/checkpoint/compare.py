"""What differs between two models, tensor by tensor and to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgpt.checkpoint.adapter import trained_arena
from cgpt.checkpoint.loading import Loadable, load
from cgpt.language_model import LanguageModel
from cgpt.nn.arena import ParameterArena
from cgpt.nn.arrays import Floats


def compare_models(a: Loadable, b: Loadable) -> dict[str, Any]:
    """What differs between two models, whatever `load` takes; see `compare`.

    Rounded weights are compared as the float32 that they stand for. Raises CheckpointError as
    `load` does.
    """
    return compare(load(a), load(b))


def compare(a: LanguageModel, b: LanguageModel) -> dict[str, Any]:
    """What differs, JSON-ready.

    same      whether nothing does
    config, vocabulary, training_state, optimizer, metadata
              {member: [of a, of b]} of the members that differ; of the vocabulary the sizes, and
              how many ids have other words or other scores
    tensors   of those that differ: kind ("weights", "adapter", "m", "v", "best", "average"), name,
              shapes of a and b (None where it is missing) and, where the shapes are the same,
              elements with other bits, largest difference, and rms difference over the rms of a
    equal     how many tensors are the same
    """
    parts = {
        "config": _members(a.config.to_dict(), b.config.to_dict()),
        "vocabulary": _vocabulary(a, b),
        "training_state": _members(a.training_state.to_dict(), b.training_state.to_dict()),
        "optimizer": _members(
            a.optimizer.to_dict() if a.optimizer else {},
            b.optimizer.to_dict() if b.optimizer else {},
        ),
        "metadata": _members(a.metadata, b.metadata),
    }
    first, second = _tensors(a), _tensors(b)
    rows = [
        _tensor(*key, first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])
    ]
    differing = [row for row in rows if row is not None]
    return {
        "same": not (differing or any(parts.values())),
        **parts,
        "tensors": differing,
        "equal": len(rows) - len(differing),
    }


def _members(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [a.get(name), b.get(name)]
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name) or (name in a) != (name in b)
    }


def _vocabulary(a: LanguageModel, b: LanguageModel) -> dict[str, Any]:
    words = [one.tokenizer.words for one in (a, b)]
    scores = [one.tokenizer.to_state()["scores"] for one in (a, b)]
    found: dict[str, Any] = {}
    if len(words[0]) != len(words[1]):
        found["sizes"] = [len(one) for one in words]
    for name, (left, right) in (("words", words), ("scores", scores)):
        if other := sum(one != two for one, two in zip(left, right, strict=False)):
            found[name] = other
    return found


def _tensors(llm: LanguageModel) -> dict[tuple[str, str], Floats]:
    """Every tensor that is saved, by kind and name."""
    weights, arena = llm.trainable.arena, trained_arena(llm)
    arrays: list[tuple[str, ParameterArena, Floats | None]] = [
        ("weights", weights, weights.data),
        ("best", arena, llm.best_weights),
        ("average", arena, llm.average),
    ]
    if arena is not weights:
        arrays.append(("adapter", arena, arena.data))
    if llm.optimizer is not None:
        arrays += zip("mv", (arena, arena), arena.require_moments(), strict=True)
    return {
        (kind, entry.name): one.view(entry.name, array)
        for kind, one, array in arrays
        if array is not None
        for entry in one.entries
    }


def _tensor(kind: str, name: str, a: Floats | None, b: Floats | None) -> dict[str, Any] | None:
    """The line of one tensor, or None where it is the same in both."""
    row: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "a": None if a is None else list(a.shape),
        "b": None if b is None else list(b.shape),
    }
    if a is None or b is None or a.shape != b.shape:
        return row
    changed = int(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)))
    if not changed:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        apart = b.astype(np.float64) - a
        size = float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))
        rms = float(np.sqrt(np.mean(np.square(apart))))
    return {
        **row,
        "changed": changed,
        "elements": a.size,
        "largest": float(np.abs(apart).max()),
        "relative": rms / size if size else float("inf"),
    }
