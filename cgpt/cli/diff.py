"""`cgpt diff`: what differs between two model files."""

from __future__ import annotations

from typing import Any

import click

from cgpt.cli import options
from cgpt.cli.app import Command
from cgpt.cli.messages import t
from cgpt.cli.models import one_line, print_json, table


@click.command("diff", cls=Command)
@click.argument("a")
@click.argument("b")
@options.as_json
def diff(a: str, b: str, as_json: bool) -> int:
    """Compare two models; exit code 1 where they differ."""
    from cgpt.checkpoint import compare_models

    found = compare_models(a, b)
    if as_json:
        print_json(found)
    else:
        for line in lines(found):
            click.echo(line)
    return 0 if found["same"] else 1


def lines(found: dict[str, Any]) -> list[str]:
    """For people: the parts that differ, then a line a tensor."""
    if found["same"]:
        return [t("diff_same", n=found["equal"])]
    shown = []
    for part in ("config", "vocabulary", "training_state", "optimizer", "metadata"):
        if found[part]:
            shown.append(f"{t(f'info_{part}')}:")
            for name, value in found[part].items():
                pair = value if isinstance(value, list) else [value]
                shown.append(f"  {name}: " + " -> ".join(_short(one) for one in pair))
    if found["tensors"]:
        rows = [{key: "" if value is None else value for key, value in row.items()}
                for row in found["tensors"]]
        shown += [f"{t('diff_tensors', n=len(rows), equal=found['equal'])}:", *table(rows, 2)]
    return shown


def _short(value: Any) -> str:
    text = one_line(value)
    return text if len(text) <= 60 else text[:57] + "..."
