"""Training that begins with a model that is there, LoRA, and `cgpt merge`."""

from __future__ import annotations

import os

import click

from cgpt.cli import flags
from cgpt.cli.app import Command
from cgpt.cli.output_paths import Target
from cgpt.cli.ui.save_dialog import save_model
from cgpt.cli.ui.terminal import notify
from cgpt.locale import t
from cgpt.runtime.memory import human_size


@click.command("merge", cls=Command)
@click.argument("model")
@click.argument("adapter")
@click.argument("out", metavar="OUT.{bin,json}", callback=flags.model_path)
@flags.overwrite
def merge(model: str, adapter: str, out: str, overwrite: bool) -> int:
    from cgpt.llm import load_with_adapter

    Target(out, overwrite=overwrite)
    save_model(load_with_adapter(model, adapter, training=False), out)
    notify(t("exported: {path} ({size})", path=out, size=human_size(os.path.getsize(out))))
    return 0
