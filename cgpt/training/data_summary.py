"""What the data of a training holds, as values: files, counts, rows that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cgpt.config import GPTConfig
from cgpt.errors import CgptError

if TYPE_CHECKING:
    from cgpt.corpus.invalid_rows import InvalidRow
    from cgpt.corpus.sources import Source
    from cgpt.tokenizers.tokenizer import Tokenizer


TOTALS = (
    "documents",
    "dialogues",
    "characters",
    "tokens",
    "dropped",
    "duplicates",
    "invalid",
    "too_long",
    "bytes",
)
FIRST = 20  # rows that are shown where nobody asked for all of them


def context_of(tokenizer: str) -> int:
    """Tokens of the context of the model whose vocabulary it is, else of the default model."""
    from cgpt.checkpoint.info import describe

    try:
        if tokenizer.lower().endswith((".bin", ".json")):
            return int(describe(tokenizer)["config"]["block_size"])
    except (CgptError, KeyError, TypeError):
        pass  # a vocabulary by itself
    return GPTConfig.preset("small").block_size


def data_summary(source: Source, tokenizer: Tokenizer, context: int, rule: str) -> dict[str, Any]:
    """What was read: each file, all together, and what an epoch takes of it.

    context  tokens of it;  rule  of what is longer, of whose dialogues the answers carry loss
    """
    from cgpt.config import TrainConfig
    from cgpt.training.epochs import too_long

    found = too_long(
        source.documents(tokenizer), context, TrainConfig(too_long=rule, loss_on="answers"), "data"
    )
    tokens, long = (source.tokens_by_file(tokenizer), source.long_by_file(tokenizer, context))
    files = [
        {**asdict(file), "tokens": count, "weight": weight, "too_long": longer}
        for file, count, weight, longer in zip(
            source.files, tokens, source.weights(), long, strict=True
        )
    ]
    totals = {key: sum(file[key] for file in files) for key in TOTALS}
    return {
        "files": files,
        **totals,
        **invalid_summary(source.invalid.rows, source.invalid.counts),
        "lengths": asdict(found),
        "changes": total_changes(file.changes for file in source.files),
        "epoch_tokens": source.documents(tokenizer).n_tokens,
        "vocabulary": len(tokenizer),
        "tokenizer": tokenizer.kind,
        "fingerprint": source.fingerprint,
        "cache": str(source.entry) if source.entry else "",
        "cached": source.cached,
        "mended": list(source.repaired),
    }


def total_changes(files: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of the changes of several files."""
    found: dict[str, int] = {}
    for changes in files:
        for name, count in changes.items():
            found[name] = found.get(name, 0) + count
    return found


def invalid_summary(rows: Sequence[InvalidRow], counts: Mapping[str, int]) -> dict[str, Any]:
    """Rows that cannot be used as `--json` has them."""
    return {
        "invalid": sum(counts.values()),
        "invalid_by_kind": dict(counts),
        "invalid_rows": [row.to_dict() for row in rows],
    }


def phase_summary(source: Source) -> dict[str, Any]:
    """What a training read for a phase, as its `--json` has it."""
    return {
        "documents": source.n_documents,
        "dialogues": source.n_dialogues,
        "duplicates": sum(file.duplicates for file in source.files),
        "changes": total_changes(file.changes for file in source.files),
        **invalid_summary(source.invalid.rows[:FIRST], source.invalid.counts),
    }
