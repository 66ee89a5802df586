"""Nested values as lines for a screen: two columns, and tables."""

from __future__ import annotations

from typing import Any

from cgpt.cli.messages import N_, t
from cgpt.cli.ui.layout import WIDE, columns, folded
from cgpt.cli.ui.terminal import plain_number

DETAILS = ("crc32", "offset", "elements")  # columns that a narrow screen goes without, in order
# what `cgpt info` and `cgpt diff` call the fields of their JSON
LABELS = {
    "path": N_("info_path"),
    "format": N_("info_format"),
    "version": N_("info_version"),
    "bytes": N_("info_bytes"),
    "graph": N_("info_graph"),
    "parameters": N_("info_parameters"),
    "words": N_("info_words"),
    "best_weights": N_("info_best_weights"),
    "verified": N_("info_verified"),
    "config": N_("info_config"),
    "layers": N_("info_layers"),
    "optimizer": N_("info_optimizer"),
    "run_id": N_("info_run_id"),
    "training_state": N_("info_training_state"),
    "metadata": N_("info_metadata"),
    "records": N_("info_records"),
    "python": N_("info_python"),
    "platform": N_("info_platform"),
    "instruction_set": N_("info_instruction_set"),
    "instruction_sets": N_("info_instruction_sets"),
    "openmp": N_("info_openmp"),
    "threads": N_("info_threads"),
    "cpus": N_("info_cpus"),
    "usable_cpus": N_("info_usable_cpus"),
    "cpu_quota": N_("info_cpu_quota"),
    "vocabulary": N_("info_vocabulary"),
}
# names of columns of tables
HEADS = {
    "needs_layer": N_("head_needs_layer"),
    "kind": N_("head_kind"),
    "name": N_("head_name"),
    "type": N_("head_type"),
    "parameters": N_("head_parameters"),
    "dtype": N_("head_dtype"),
    "shape": N_("head_shape"),
    "offset": N_("head_offset"),
    "bytes": N_("head_bytes"),
    "crc32": N_("head_crc32"),
    "changed": N_("head_changed"),
    "elements": N_("head_elements"),
    "largest": N_("head_largest"),
    "relative": N_("head_relative"),
}


def description(found: dict[str, Any], width: int = WIDE, indent: int = 0) -> list[str]:
    """A nested description as indented lines; lists of objects become straight columns.

    width  cells that a line may take
    """
    lines: list[str] = []
    pad = " " * indent
    plain = {key: value for key, value in found.items() if not nested(value)}
    if isinstance(plain.get("seconds"), float):
        plain["seconds"] = t("seconds", n=f"{plain['seconds']:.1f}")
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
