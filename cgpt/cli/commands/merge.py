"""Training that begins with a model that is there, LoRA, and `cgpt merge`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import options
from cgpt.cli.app import Command
from cgpt.cli.messages import t
from cgpt.cli.targets import Target
from cgpt.cli.ui.save_dialog import save_model
from cgpt.cli.ui.terminal import as_argument, tell
from cgpt.errors import ConfigError
from cgpt.runtime.memory import human_size

if TYPE_CHECKING:
    from cgpt.config import RunConfig
    from cgpt.training.run import TrainingRun

ADAPTER = ("lora_alpha", "lora_layers")


def check_options(config: RunConfig, values: dict[str, Any]) -> None:
    """Raises ConfigError for options that would do nothing beside the others."""
    for name in ADAPTER if not config.finetune_train.lora_rank else ():
        if values.get(name):
            raise ConfigError(
                f"--{name.replace('_', '-')} is of a LoRA adapter, which has no rank "
                "here; give one by --lora-rank"
            )
    if (
        config.finetune_train.lora_rank
        and values.get("embedding_lr")
        and not (config.pretrain and config.pretrain_train.epochs)
    ):
        raise ConfigError("LoRA leaves the embeddings as they are; leave out --embedding-lr")
    if config.finetune_train.lora_rank and not (config.chat and config.finetune_train.epochs):
        raise ConfigError(
            "LoRA trains on dialogues while fine-tuning, of which there is none; "
            "name files by --chat"
        )


def base_of(run: TrainingRun, save_pretrained: str | None) -> str:
    """The file with the model that the run's adapter needs; "" where its own carries that along."""
    from cgpt.optim.lora import Lora

    if isinstance(run.llm.optimizer, Lora):
        return run.llm.optimizer.base
    if not run.config.finetune_train.lora_rank or "finetune" not in run.phases:
        return ""
    return (save_pretrained or "") if "pretrain" in run.phases else run.llm.base


def check_base(run: TrainingRun, values: dict[str, Any]) -> None:
    """Raises ConfigError where an adapter would be written over the model that it belongs to."""
    base = base_of(run, values["save_pretrained"])
    if not base:
        return
    folder, name = os.path.split(os.path.realpath(base))
    if os.path.realpath(values["out"]) == os.path.join(folder, name):
        raise ConfigError(
            f"--out {values['out']} is the model that the adapter needs; name another file"
        )
    if os.path.realpath(values["checkpoint_dir"]) == folder and name.startswith("checkpoint_"):
        raise ConfigError(
            f"--checkpoint-dir {values['checkpoint_dir']} holds {name}, the model "
            "that the adapter needs, and would replace it; name another folder"
        )


def say_how_to_merge(
    run: TrainingRun, out: str, say: Callable[[str], object], say_command: Callable[[str], object]
) -> None:
    """What a saved adapter needs, and the command that makes one model of both."""
    from cgpt.checkpoint.loading import is_intact
    from cgpt.optim.lora import Lora

    lora = run.llm.optimizer
    if not isinstance(lora, Lora) or not out.lower().endswith(".bin"):
        return
    if is_intact(lora):
        base = os.path.relpath(lora.base)
        say(t("adapter_needs", path=out, base=base))
        command = f"cgpt merge {as_argument(base)} {as_argument(out)} OUT.bin"
    else:
        say(t("adapter_carries", path=out))
        command = f"cgpt export {as_argument(out)} OUT.bin --weights-only"
    say_command(t("merge_with", command=command))


@click.command("merge", cls=Command)
@click.argument("model")
@click.argument("adapter")
@click.argument("out", metavar="OUT.{bin,json}", callback=options.model_path)
@options.overwrite
def merge(model: str, adapter: str, out: str, overwrite: bool) -> int:
    """Merge a LoRA adapter into its model."""
    from cgpt.llm import load_with_adapter

    Target(out, overwrite=overwrite)
    save_model(load_with_adapter(model, adapter, training=False), out)
    tell(t("exported", path=out, size=human_size(os.path.getsize(out))))
    return 0
