"""The parts of a model that both file formats hold, and the checks that both need.

Configuration, layers, training state, optimizer settings and metadata are JSON objects; the
vocabulary is a list of words and scores. `build_*` turn checked parts into objects of cgpt and
turn whatever those refuse into a CheckpointError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np

from cgpt.config import KINDS, GPTConfig
from cgpt.errors import CheckpointError, ConfigError, DataError
from cgpt.fileio.failures import damaged, not_saved, other_version
from cgpt.language_model import LanguageModel, TrainingState
from cgpt.models.base import LayerRecord, Model
from cgpt.models.quantized import form_in_use, with_weights
from cgpt.models.registry import FAMILIES, family_named, family_of
from cgpt.nn.arena import Entry, Floats
from cgpt.optim.adamw import AdamW
from cgpt.optim.lora import Lora
from cgpt.optim.moving_average import with_average
from cgpt.tokenizers.tokenizer import _LARGEST_SCORE, _LONGEST_STORED, FIRST_WORD, Tokenizer

ADAPTED = "+lora"  # behind the graph's name: an adapter instead of weights
_DEEPEST = 64  # nesting of a JSON part
_LONGEST = 1 << 24  # bytes of a JSON part
_ROOM = 40_000_000  # bytes that a part's Python objects may take, and more
# only in a file that is itself as large

_RUN_ID = re.compile("([0-9a-f]{16})?")
_HALVES = re.compile("[\ud800-\udfff]")

Progress = Callable[[int, int, LayerRecord], None]
Pairs = list[tuple[str, Any]]
Optimizer = TypeVar("Optimizer", bound=AdamW)


# JSON


def dump_metadata(path: object, value: Any) -> str:
    """What the user wants to keep, as `dump_json` and so that `parse_json` takes it."""
    text = dump_json(path, "metadata", value)
    check_part_size(path, "metadata", text.encode("ascii"))
    try:
        parse_json(path, "metadata", f'{{"metadata": {text}}}'.encode("ascii"))
    except CheckpointError:
        raise not_saved(
            path,
            "metadata that could not be read again",
            f"objects whose names are different strings, nested less than {_DEEPEST} deep",
            "change metadata",
        ) from None
    return text


def dump_json(path: object, what: str, value: Any) -> str:
    """Plain ASCII JSON. Raises CheckpointError (write) naming what JSON cannot hold."""
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise not_saved(
            path,
            f"{what} that JSON cannot hold ({error})",
            "strings, finite numbers, lists and objects",
            f"change {what}",
        ) from None


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"found {type(value).__name__}")


def parse_json(
    path: object,
    what: str,
    text: bytes | bytearray,
    make_object: Callable[[Pairs], Any] | None = None,
    *,
    encoding: str = "ascii",
    room: int = 0,
) -> Any:
    """Strict JSON: no NaN, no name twice in an object, bounded nesting, at most so many values.

    room  bytes that the file's own size allows the values besides
    Raises CheckpointError.
    """
    if parsed_size(text) > _ROOM + room:
        raise damaged(path, f"{what} with more values than a model has", "fewer")

    def build(pairs: Pairs) -> Any:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name that occurs twice in one object")
        return found if make_object is None else make_object(pairs)

    def refuse(constant: str) -> Any:
        raise ValueError(f"the constant {constant}")

    try:
        value = json.loads(text.decode(encoding), object_pairs_hook=build, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"{what} with {_described(error)}", "strict JSON") from None
    if _too_deep(value):
        raise damaged(path, f"{what} nested more than {_DEEPEST} deep", f"at most {_DEEPEST}")
    return value


def check_part_length(path: object, what: str, length: int) -> None:
    """Bound what a JSON part makes a reader hold in memory, before it is read."""
    if length > _LONGEST:
        raise damaged(path, f"{what} of {length} bytes", f"at most {_LONGEST}")


def check_part_size(path: object, what: str, text: bytes) -> None:
    """Refuse to save a part that is too long to be read again, or has too many values."""
    if len(text) > _LONGEST or parsed_size(text) > _ROOM:
        raise not_saved(
            path,
            f"{what} of {len(text)} bytes of JSON and {parsed_size(text)} in memory",
            f"at most {_LONGEST} and {_ROOM}",
            f"shorten {what}",
        )


def check_text_size(path: object, values: int, length: int) -> None:
    """Refuse to save a JSON file of `length` bytes with too many values but its numbers.

    values  the sum of `parsed_size` of its parts
    """
    if values > _ROOM + length:
        raise not_saved(
            path,
            f"parts of {values} bytes in memory beside the numbers",
            f"at most {_ROOM + length} in a file of this size",
            "make the model wider or the vocabulary smaller",
        )


def parsed_size(text: bytes | bytearray) -> int:
    """About the most bytes that the Python objects of a JSON text take while it is parsed."""
    count = text.count
    return (
        2 * len(text) + 100 * count(b"[") + 350 * count(b"{") + 250 * count(b":") + 60 * count(b",")
    )


def _described(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"'{error.msg}' at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return f"bytes that are no text ({error.reason})"
    return "too deep nesting" if isinstance(error, RecursionError) else str(error)[:200]


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def with_floats(llm: LanguageModel) -> LanguageModel:
    """The same model with float32 weights: those that rounded ones stand for."""
    if form_in_use(llm.gpt) == "float32":
        return llm
    return LanguageModel(
        llm.tokenizer,
        with_weights(llm.gpt, "float32"),
        training_state=llm.training_state,
        metadata=llm.metadata,
    )


def weights_to_save(llm: LanguageModel) -> Floats:
    """What a whole model's file holds as the weights: their average where training keeps one."""
    data = llm.gpt.arena.data
    if llm.average is None:
        return data
    if not isinstance(llm.optimizer, Lora):
        return llm.average
    return with_average(llm.average, llm.optimizer, data.copy)  # which is that of A and B


# Building


def build_config(path: object, graph: Any, values: Any) -> GPTConfig:
    """The configuration of a graph that this version knows."""
    family = family_named(graph)
    if family is None:
        known = " or ".join(f"'{one.name}'" for one in FAMILIES)
        raise other_version(path, f"the graph {graph!r:.60}", known)
    if not isinstance(values, dict):
        raise damaged(path, "a configuration that is no object", "an object")
    try:
        return family.config.from_dict(values)
    except (ConfigError, TypeError) as error:
        raise damaged(path, f"a configuration that cannot be ({error})", "a valid one") from None


def most_words(size: int) -> int:
    """Bounds the vocabulary of a file of `size` bytes before its words are taken apart.

    A tokenizer takes some 400 bytes a word, the file of a real model more than that.
    """
    return (_ROOM + size) // 400


def check_words(path: object, number: int, config: GPTConfig, size: int) -> None:
    """See that a file of `size` bytes has no more words than it can have."""
    most = min(config.vocab_size, most_words(size))
    if number > most:
        raise damaged(path, f"a vocabulary of {number} words", f"at most {most}")


def check_read_again(path: object, number: int, most: int) -> None:
    """Refuse to save a vocabulary that would be refused when it is read."""
    if number > most:
        raise not_saved(
            path,
            f"a vocabulary of {number} words",
            f"at most {most} in a file of this size",
            "make the model wider or the vocabulary smaller",
        )


@cache
def _reserved_words() -> list[str]:
    """The special tokens and bytes, in the order of their ids."""
    return Tokenizer([], []).words


def build_tokenizer(
    path: object, words: list[str], scores: list[float], config: GPTConfig, kind: Any = "words"
) -> Tokenizer:
    """words of every id, scores of those that have one in this family."""
    family, reserved = family_of(config), _reserved_words()
    if family.unscored and words[:FIRST_WORD] != reserved:
        raise damaged(
            path,
            "a vocabulary whose first words are not the special tokens and bytes",
            f"'{reserved[0]}' to '{reserved[-1]}'",
        )
    if len(words) > config.vocab_size:
        raise damaged(path, f"a vocabulary of {len(words)} words", f"at most {config.vocab_size}")
    words = words[family.unscored :]
    if isinstance(kind, str) and kind not in KINDS:
        raise other_version(path, f"a tokenizer of the kind {kind!r:.60}", ", ".join(KINDS))
    if family.unscored and kind == "words" and _plainly_right(words, scores):
        return Tokenizer(words, scores)
    try:
        return family.tokenizer.from_state({"words": words, "scores": scores, "kind": kind})
    except DataError as error:
        raise damaged(path, f"a vocabulary that cannot be ({error})", "a valid one") from None


def _plainly_right(words: list[Any], scores: list[Any]) -> bool:
    """Whether `Tokenizer.from_state` would refuse nothing, told without a look at each word.

    False says nothing.
    """
    if (
        set(map(type, words)) != {str}
        or set(map(type, scores)) != {float}
        or len(words) != len(scores)
    ):
        return False
    return (
        min(map(len, words)) > 0
        and max(map(len, words)) <= _LONGEST_STORED
        and len({*words, *_reserved_words()}) == len(words) + FIRST_WORD
        and not _HALVES.search("".join(words))
        and not math.isnan(sum(scores))
        and min(scores) >= -_LARGEST_SCORE
        and max(scores) <= _LARGEST_SCORE
    )


def build_training_state(path: object, values: Any, run: Any = None) -> TrainingState:
    """The training state of a JSON object, and of one that names the run; None for none."""
    run_id = "" if run is None else check_object(path, "run", run).get("id")
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise damaged(path, f"the run {run_id!r:.60}", "16 hexadecimal digits")
    try:
        state = TrainingState.from_dict(values)
    except (DataError, TypeError) as error:
        raise damaged(path, f"a training state that cannot be ({error})", "a valid one") from None
    state.run_id = run_id
    return state


def build_optimizer(
    path: object, gpt: Model, values: Any, restore: Callable[[Model, dict[str, Any]], Optimizer]
) -> Optimizer:
    """The optimizer that `restore` makes of its settings; its moments are still to be read."""
    try:
        betas = [float(beta) for beta in values["betas"]]
        numbers = [*betas, float(values["eps"]), float(values["weight_decay"])]
        steps = values["step_count"]
        if len(betas) != 2 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"numbers {numbers}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ValueError(f"step_count {steps!r:.60}")
        return restore(gpt, values)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise damaged(
            path,
            f"optimizer settings that cannot be ({error})",
            "betas, eps, weight_decay and step_count",
        ) from None


def check_object(path: object, what: str, value: Any) -> dict[str, Any]:
    """`value` where it is a JSON object."""
    if not isinstance(value, dict):
        raise damaged(path, f"{what} that is no JSON object", "an object")
    return value


def check_listed(path: object, found: Any) -> list[dict[str, Any]]:
    """A file's layers where each says its name, type and parameters, whatever these are."""
    if not isinstance(found, list):
        raise damaged(path, "layers that are no list of objects", "a list of objects")
    for number, one in enumerate(found, 1):
        values = [one.get(key) for key in ("name", "type")] if isinstance(one, dict) else [None]
        names = one.get("parameters") if isinstance(one, dict) else None
        if not isinstance(names, list) or not all(
            isinstance(text, str) for text in (*values, *names)
        ):
            raise damaged(path, f"layer {number} as {one!r:.200}", "name, type and parameters")
    return found


def check_layers(path: object, found: list[Any], gpt: Model) -> None:
    """Check that the layers of the file are those of the model, in order."""
    expected = gpt.layer_records()
    for number, layer in enumerate(expected, 1):
        one = found[number - 1] if number <= len(found) else None
        plain = {"name": layer.name, "type": layer.type, "parameters": list(layer.parameters)}
        if one != plain:
            raise damaged(path, f"layer {number} as {one!r:.200}", f"{plain!r:.200}")
    if len(found) != len(expected):
        raise damaged(path, f"{len(found)} layers", f"{len(expected)}")


def check_fits(path: object, config: GPTConfig, available: int) -> list[Entry]:
    """The layout of the configuration, once its weights can be in `available` bytes at all."""
    entries = family_of(config).model.layout(config)
    least = sum(entry.size for entry in entries if entry.role.decays)
    if least > available:
        raise damaged(
            path,
            f"a configuration of at least {least} parameters",
            f"at most {available}, which is all that the file can hold",
        )
    return entries
