"""`cgpt diff`: what differs between two model files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command
from cgpt.cli.ui.description import LABELS, one_line, table
from cgpt.cli.ui.layout import output_width, wrap
from cgpt.cli.ui.streams import echo, print_json
from cgpt.locale import t


@click.command("diff", cls=Command, help="The exit code is 1 where they differ.")
@click.argument("a")
@click.argument("b")
@flags.as_json
def diff(a: str, b: str, as_json: bool) -> int:
    from cgpt.checkpoint.compare import compare_models

    found = compare_models(a, b)
    if as_json:
        print_json(found)
    else:
        for line in lines(found, output_width()):
            echo(line)
    return 0 if found["same"] else 1


def lines(found: dict[str, Any], width: int) -> list[str]:
    """For people: the parts that differ, then a line a tensor."""
    if found["same"]:
        return [t("the models are the same ({n} tensors)", n=found["equal"])]
    shown = []
    for part in ("config", "vocabulary", "training_state", "optimizer", "metadata"):
        if found[part]:
            shown.append(f"{t(LABELS[part])}:")
            for name, value in found[part].items():
                pair = value if isinstance(value, list) else [value]
                for text in _differences(name, pair):
                    shown += ["  " + line for line in wrap(text, width - 2)]
    if found["tensors"]:
        rows = [
            {key: "" if value is None else value for key, value in row.items()}
            for row in found["tensors"]
        ]
        if all(row["a"] == row["b"] for row in rows):  # one shape then says it
            rows = [
                {
                    "kind": row["kind"],
                    "name": row["name"],
                    "shape": row["a"],
                    **{key: row[key] for key in row if key not in ("a", "b")},
                }
                for row in rows
            ]
        shown.append(
            f"{t('{n} tensors differ, {equal} are the same', n=len(rows), equal=found['equal'])}:"
        )
        shown += table(rows, width, 2)
    return shown


def _differences(name: str, pair: list[Any]) -> Iterator[str]:
    """A line a difference; of two objects only the fields that are not the same."""
    if len(pair) == 2 and all(isinstance(one, dict) for one in pair):
        a, b = pair
        for key in dict.fromkeys([*a, *b]):
            if a.get(key) != b.get(key):
                yield from _differences(f"{name}.{key}", [a.get(key), b.get(key)])
    else:
        yield f"{name}: " + " -> ".join(_short(one) for one in pair)


def _short(value: Any) -> str:
    text = f"{{{', '.join(value)}}}" if isinstance(value, dict) else one_line(value)
    return text if len(text) <= 60 else text[:57] + "..."
