"""The `cgpt` command itself: without a subcommand it is the guided run."""

from __future__ import annotations

from typing import Any

import click

from cgpt.cli import options
from cgpt.cli.app import LazyGroup, Option, function_name, option
from cgpt.cli.messages import t
from cgpt.cli.ui.streams import echo
from cgpt.version import __version__

NAMES = (
    "train resume chat generate eval export merge import info "
    "plot inspect diff tokenizer data bench"
)
# Each is the function of its name in the module of its name.
MODULES = {name: f"cgpt.cli.commands.{function_name(name)}" for name in NAMES.split()}


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        echo(f"cgpt {__version__}")
        ctx.exit()


@click.group("cgpt", cls=LazyGroup, modules=MODULES, invoke_without_command=True)
@option("--data", metavar="PATH", multiple=True)
@options.shape
@options.seed
@option("--max-steps", type=options.COUNT, metavar="N")
@options.phases
@option("--skip-invalid", is_flag=True)
@options.threads
@option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version)
@click.pass_context
def cgpt(ctx: click.Context, /, **values: Any) -> int:
    """The guided run, or what comes before a command."""
    if ctx.invoked_subcommand is not None:
        refuse_guided_options(ctx, ctx.invoked_subcommand)
        return 0
    from cgpt.cli.guided import GuidedOptions, GuidedRun
    from cgpt.cli.ui.terminal import Terminal

    chosen = {name: value for name, value in values.items() if value not in (None, ())}
    return GuidedRun(Terminal(), GuidedOptions(**chosen)).run()


def refuse_guided_options(ctx: click.Context, command: str) -> None:
    """An option of the guided run before a command would do nothing: say so."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        typed = source is click.core.ParameterSource.COMMANDLINE
        if typed and isinstance(param, Option) and param.expose_value:
            raise click.UsageError(t("guided_option", name=param.flag, command=command), ctx=ctx)
