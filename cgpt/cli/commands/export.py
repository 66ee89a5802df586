"""`cgpt export`: a model as another file."""

from __future__ import annotations

import os

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, option
from cgpt.cli.output_paths import Target
from cgpt.cli.ui.save_dialog import save_model
from cgpt.cli.ui.terminal import notify
from cgpt.errors import ConfigError
from cgpt.locale import t
from cgpt.runtime.memory import human_size


@click.command("export", cls=Command)
@click.argument("model")
@click.argument("out", metavar="OUT.{bin,json}", callback=flags.model_path)
@option("--weights-only", is_flag=True, help="weights without the optimizer")
@flags.form_of_weights(default="float32")
@flags.overwrite
def export(model: str, out: str, weights_only: bool, weights: str, overwrite: bool) -> int:
    from cgpt.checkpoint.saving import save_model_binary
    from cgpt.llm import load_model_auto

    rounded = weights != "float32"
    if rounded and not out.lower().endswith(".bin"):
        raise ConfigError(
            "{path}: JSON holds float32 weights only, found --weights {form}; name a .bin",
            path=out,
            form=weights,
        )
    Target(out, overwrite=overwrite)
    llm = load_model_auto(model, training=not (weights_only or rounded), weights="float32")
    if rounded:
        save_model_binary(llm, out, optimizer=False, weights=weights)
    else:
        save_model(llm, out, optimizer=not weights_only)
    notify(t("exported: {path} ({size})", path=out, size=human_size(os.path.getsize(out))))
    return 0
