"""`cgpt import`: a model of another program."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cgpt.cli import flags
from cgpt.cli.app import Command
from cgpt.cli.output_paths import Target
from cgpt.cli.ui.save_dialog import save_model
from cgpt.cli.ui.terminal import notify
from cgpt.errors import CheckpointError
from cgpt.locale import t
from cgpt.runtime.memory import human_size


@click.command(
    "import",
    cls=Command,
    help="Known: cgpt's .bin and .json, and the JSON exports of RustGPT-Chinese.",
)
@click.argument("source")
@click.argument("out", metavar="OUT.bin", callback=flags.model_path)
@flags.overwrite
def import_(source: str, out: str, overwrite: bool) -> int:
    from cgpt.llm import load

    if Path(source).is_dir():
        raise CheckpointError(
            "{path}: a folder, expected a model file; this version imports cgpt's own .bin "
            "and .json and the JSON exports of RustGPT-Chinese (GPT-2 folders have another "
            "vocabulary)",
            code="foreign",
            path=source,
        )
    Target(out, overwrite=overwrite)
    llm = load(source)
    if "imported_from" in llm.metadata:
        notify(
            t(
                "model of RustGPT-Chinese: {graph}, {words} words",
                graph=", ".join(layer.type for layer in llm.gpt.layer_records()),
                words=len(llm.tokenizer),
            )
        )
        notify(
            t(
                "Adam's state is imported too (step {n}); further training goes on from it",
                n=llm.optimizer.step_count,
            )
            if llm.optimizer
            else t("no optimizer state that could go on; further training starts afresh")
        )
    save_model(llm, out)
    notify(t("exported: {path} ({size})", path=out, size=human_size(os.path.getsize(out))))
    return 0
