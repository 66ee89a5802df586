"""`cgpt info`: what a model file holds, or what this installation is."""

from __future__ import annotations

import json
from typing import Any

import click

from cgpt.checkpoint.info import how_it_ended
from cgpt.cli import flags
from cgpt.cli.app import Command, option
from cgpt.cli.ui.description import LABELS, description
from cgpt.cli.ui.layout import output_width
from cgpt.cli.ui.progress import phase_name
from cgpt.cli.ui.streams import echo, print_json
from cgpt.cli.ui.terminal import notify
from cgpt.errors import DataError
from cgpt.locale import N_, t
from cgpt.plots.charts import sparkline
from cgpt.runtime.memory import human_size


@click.command("info", cls=Command, help="Without MODEL: version, instruction set, threads.")
@click.argument("model", required=False, metavar="[MODEL]")
@option("--verify", is_flag=True, help="check every byte")
@option(
    "--toml", is_flag=True, help="write the TOML that repeats the training (cgpt train --config)"
)
@flags.as_json
def info(model: str | None, verify: bool, toml: bool, as_json: bool) -> int:
    if toml:
        return print_recipe(model, as_json=as_json)
    if model is None:
        from cgpt.bench.machine import installation

        found = installation()
    else:
        from cgpt.checkpoint.info import describe

        found = describe(model, verify=verify)
        found["training_state"] = how_it_ended(
            found["training_state"], found["metadata"].get("phases")
        )
    if as_json:
        print_json(found)
        return 0
    if model is None:
        found["openmp"] = (
            t(N_("yes", "openmp"))
            if found["openmp"]
            else t("no (built without OpenMP, so there is one thread)")
        )
    else:
        found["bytes"] = f"{found['bytes']} ({human_size(found['bytes'])})"
        found["training_state"] = for_people(found["training_state"])
    width = output_width()
    for line in description({t(LABELS[key]): value for key, value in found.items()}, width):
        echo(line)
    if model is not None and verify:
        notify(t("verified: every byte is as written"))
    return 0


def for_people(state: dict[str, Any]) -> dict[str, Any]:
    """The state of `how_it_ended` as it is shown."""
    stopped = [
        f"{phase} ({one['by']}, step {one['step']}" + (f" of {one['of']})" if "of" in one else ")")
        for phase, one in state["stopped"].items()
    ]
    return {
        **state,
        "done": state["done"] or None,
        "stopped": stopped or None,
        "history": histories(state["history"]),
    }


def print_recipe(model: str | None, *, as_json: bool) -> int:
    """The TOML that repeats the training of a model, on stdout.

    Raises DataError where the model does not know its training.
    """
    from cgpt.checkpoint.info import describe
    from cgpt.training.config_file import FINGERPRINT, repeated, to_toml
    from cgpt.training.recipe import recorded

    if model is None or as_json:
        raise click.UsageError(
            t("--toml needs a MODEL and goes without --json"), ctx=click.get_current_context()
        )
    found = describe(model)
    state, about = found["training_state"], found["metadata"]
    if not state["run"]:
        raise DataError(
            "{path}: the file does not say how it was trained, so there is nothing to "
            "repeat; train with cgpt train or the guided run",
            path=model,
        )
    if about.get("continued"):
        raise DataError(
            "{path}: was trained further from the weights of an earlier model, which the "
            "file does not hold, so no configuration repeats it; ask the model that it was "
            "made from",
            path=model,
        )
    comments = {str(key): str(value) for key, value in about.get("made_with", {}).items()}
    for one in about.get("resumed", []):
        comments[f"resumed at {one['phase']} step {one['step']}"] = json.dumps(
            {key: value for key, value in one.items() if key not in ("phase", "step")}
        )
    values = {
        FINGERPRINT: state["data_fingerprint"],
        **repeated(recorded(state["run"]), about.get("phases", {})),
    }
    echo(to_toml(values, comments), end="")
    return 0


def histories(history: list[list[Any]]) -> dict[str, str]:
    """The losses of each phase as a sparkline between the first and the last of them."""
    found: dict[str, list[float]] = {}
    for phase, _, loss, _ in history:
        found.setdefault(phase, []).append(loss)
    return {
        phase_name(phase): f"{losses[0]:.4f} {sparkline(losses, 32)} {losses[-1]:.4f}"
        for phase, losses in found.items()
    }
