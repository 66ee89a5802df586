"""The `cgpt` command itself: without a subcommand it is the guided run."""

from __future__ import annotations

from typing import Any

import click

from cgpt.cli import options
from cgpt.cli.app import LazyGroup, Option, option
from cgpt.cli.messages import t
from cgpt.cli.streams import echo

MODULES = {"train": "cgpt.cli.training", "resume": "cgpt.cli.training",
           "chat": "cgpt.cli.talk", "generate": "cgpt.cli.talk", "eval": "cgpt.cli.evaluating",
           "export": "cgpt.cli.models", "merge": "cgpt.cli.adapting",
           "import": "cgpt.cli.models", "info": "cgpt.cli.models",
           "plot": "cgpt.cli.plotting", "inspect": "cgpt.cli.looking",
           "diff": "cgpt.cli.diff", "tokenizer": "cgpt.cli.tokenizer_commands",
           "data": "cgpt.cli.data_command",
           "bench": "cgpt.cli.bench_command"}


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import cgpt

        echo(f"cgpt {cgpt.__version__}")
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
    from cgpt.cli.terminal import Terminal

    chosen = {name: value for name, value in values.items() if value not in (None, ())}
    return GuidedRun(Terminal(), GuidedOptions(**chosen)).run()


def refuse_guided_options(ctx: click.Context, command: str) -> None:
    """An option of the guided run before a command would do nothing: say so."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        typed = source is click.core.ParameterSource.COMMANDLINE
        if typed and isinstance(param, Option) and param.expose_value:
            raise click.UsageError(t("guided_option", name=param.flag, command=command), ctx=ctx)
