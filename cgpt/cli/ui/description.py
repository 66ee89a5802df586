"""Nested values as lines for a screen: two columns, and tables."""

from __future__ import annotations

from typing import Any

from cgpt.cli.ui.layout import WIDE, columns, folded
from cgpt.cli.ui.terminal import plain_number
from cgpt.locale import N_, t

DETAILS = ("crc32", "offset", "elements")  # columns that a narrow screen goes without, in order
# what `cgpt info` and `cgpt diff` call the fields of their JSON
LABELS = {
    "path": N_("path"),
    "format": N_("format"),
    "version": N_("version"),
    "bytes": N_("bytes", "info"),
    "graph": N_("graph"),
    "parameters": N_("parameters", "info"),
    "words": N_("words", "info"),
    "best_weights": N_("best_weights"),
    "verified": N_("verified"),
    "config": N_("config"),
    "layers": N_("layers"),
    "optimizer": N_("optimizer"),
    "run_id": N_("run_id"),
    "training_state": N_("training_state"),
    "metadata": N_("metadata"),
    "records": N_("records"),
    "python": N_("python"),
    "platform": N_("platform"),
    "instruction_set": N_("instruction_set"),
    "instruction_sets": N_("instruction_sets"),
    "openmp": N_("openmp"),
    "threads": N_("threads"),
    "cpus": N_("cpus"),
    "usable_cpus": N_("usable_cpus"),
    "cpu_quota": N_("cpu_quota"),
    "vocabulary": N_("vocabulary"),
}
# names of columns of tables
HEADS = {
    "needs_layer": N_("--head needs --layer"),
    "kind": N_("kind"),
    "name": N_("name"),
    "type": N_("type"),
    "parameters": N_("parameters", "column"),
    "dtype": N_("dtype"),
    "shape": N_("shape"),
    "offset": N_("offset"),
    "bytes": N_("bytes", "column"),
    "crc32": N_("crc32"),
    "changed": N_("changed"),
    "elements": N_("elements"),
    "largest": N_("largest"),
    "relative": N_("relative"),
}


def description(found: dict[str, Any], width: int = WIDE, indent: int = 0) -> list[str]:
    """A nested description as indented lines; lists of objects become straight columns.

    width  cells that a line may take
    """
    lines: list[str] = []
    pad = " " * indent
    plain = {key: value for key, value in found.items() if not nested(value)}
    if isinstance(plain.get("seconds"), float):
        plain["seconds"] = t("{n} s", n=f"{plain['seconds']:.1f}")
    lines += columns([(key, one_line(value)) for key, value in plain.items()], width, indent)
    for key, value in found.items():
        if isinstance(value, dict) and nested(value):
            lines += [f"{pad}{key}:", *description(value, width, indent + 2)]
        elif isinstance(value, list) and nested(value):
            lines += [f"{pad}{key}:", *table(value, width, indent + 2)]
    return lines


def nested(value: Any) -> bool:
    """A non-empty object or a list of objects."""
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], dict)


def table(rows: list[dict[str, Any]], width: int, indent: int) -> list[str]:
    """Objects with like keys in straight columns; a narrow screen goes without DETAILS."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for left_out in (*DETAILS, None):
        names = [t(HEADS[key]) if key in HEADS else key for key in keys]
        cells = [names] + [[short(row.get(key, "")) for key in keys] for row in rows]
        lines = folded(cells, width, indent)
        if len(lines) == len(cells):
            break
        keys = [key for key in keys if key != left_out]
    return lines


def short(value: Any) -> str:
    """As one_line; of a long list of names the first one and how many there are."""
    if isinstance(value, list) and len(value) > 4 and isinstance(value[0], str):
        return f"{value[0]} ... ({len(value)})"
    return one_line(value)


def one_line(value: Any) -> str:
    """A value as text; lists comma-joined, floats of five digits without exponent."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return t("yes") if value else t("no")
    if isinstance(value, float):
        near = float(f"{value:.5g}") if abs(value) < 1e4 else round(value, 0)
        return plain_number(near) if abs(value) < 1e15 else str(value)
    if isinstance(value, (list, tuple)):
        if len(value) > 12:
            return f"[{len(value)}]"
        return ", ".join(map(one_line, value))
    return str(value)
