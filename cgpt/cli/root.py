"""The `cgpt` command itself: without a subcommand it is the guided run."""

from __future__ import annotations

from typing import Any

import click

from cgpt.cli import flags
from cgpt.cli.app import LazyGroup, Option, option
from cgpt.cli.ui.streams import echo
from cgpt.config import RunConfig, TrainConfig
from cgpt.locale import N_, t
from cgpt.version import __version__

# What each command does, in the order of `cgpt --help`.
SUMMARIES = {
    "train": N_(
        "Train a new model: pre-training, then fine-tuning on dialogues; or begin with --init."
    ),
    "resume": N_("Go on exactly where a checkpoint stopped."),
    "chat": N_("Talk to a model."),
    "generate": N_("Continue a text."),
    "eval": N_("Measure loss, perplexity, bits per character and per byte on files."),
    "export": N_("Save as .bin or .json, by suffix."),
    "merge": N_("Merge a LoRA adapter into its model and save the result as OUT."),
    "import": N_("Read a model from elsewhere and save it as OUT.bin."),
    "info": N_("Show a model's configuration, layers, parameters, records and training state."),
    "plot": N_("Draw the losses of runs: logs that --log wrote, or model files."),
    "inspect": N_(
        "Token by token what a model expected: probability, rank, "
        "alternatives; -o draws its attention."
    ),
    "diff": N_("Compare two model files: configuration, vocabulary, training state, every tensor."),
    "tokenizer": N_("Vocabularies: learn one, encode with one, look into one."),
    "data": N_(
        "Read files as a training would and show documents, dialogues, "
        "characters, tokens of each, and what was left out; without training."
    ),
    "bench": N_("Measure this machine (default: kernels, train, decode, save)."),
}


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        echo(f"cgpt {__version__}")
        ctx.exit()


@click.group(
    "cgpt",
    cls=LazyGroup,
    summaries=SUMMARIES,
    module="cgpt.cli.commands.{}",
    invoke_without_command=True,
    help="Train, save, load and talk to small Chinese GPT models on the CPU.\n"
    "Without a command it guides you through training, saving, loading and chat.\n"
    "Every option also reads CGPT_<OPTION>, such as CGPT_MAX_STEPS=100.",
)
@flags.data(metavar="PATH")
@flags.shape
@flags.seed
@flags.flag(TrainConfig, "max_steps")
@flags.phases
@flags.flag(RunConfig, "skip_invalid")
@flags.threads
@option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="show the version and exit",
)
@click.pass_context
def cgpt(ctx: click.Context, /, **values: Any) -> int:
    if ctx.invoked_subcommand is not None:
        refuse_guided_options(ctx, ctx.invoked_subcommand)
        return 0
    from cgpt.cli.guided_run import GuidedRun
    from cgpt.cli.ui.terminal import Terminal

    chosen = {name: value for name, value in values.items() if value not in (None, ())}
    return GuidedRun(Terminal(), **chosen).run()


def refuse_guided_options(ctx: click.Context, command: str) -> None:
    """An option of the guided run before a command would do nothing: say so."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        typed = source is click.core.ParameterSource.COMMANDLINE
        if typed and isinstance(param, Option) and param.expose_value:
            raise click.UsageError(
                t(
                    "option '{name}' is for the guided run; for a command write it after "
                    "'{command}'",
                    name=param.flag,
                    command=command,
                ),
                ctx=ctx,
            )
