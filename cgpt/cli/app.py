"""click with our own face: lazy commands, two languages, CJK-straight help, CGPT_<FLAG>.

A command module is imported when its command runs, not before, so that `cgpt --help` is quick.
"""

from __future__ import annotations

import importlib
import keyword
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from cgpt.cli.ui.layout import columns, screen_width, text_width, wrap
from cgpt.cli.ui.streams import echo
from cgpt.locale import N_, set_language, t

Function = TypeVar("Function", bound=Callable[..., Any])


class Decorator(Protocol):
    """What adds options to the function of a command and returns the function."""

    def __call__(self, function: Function, /) -> Function: ...


if TYPE_CHECKING:
    from click import ParamType as ParamType
else:

    class ParamType(click.ParamType):
        """click.ParamType, which takes a type argument in newer versions of click only."""

        def __class_getitem__(cls, result: Any) -> type[ParamType]:
            return cls


class Number(ParamType[float]):
    """A finite number inside a range; `whole` for integers.

    An `open_low` or `open_high` end is itself outside the range.
    """

    name = "number"

    def __init__(
        self,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        whole: bool = False,
        open_low: bool = False,
        open_high: bool = False,
    ) -> None:
        self.low, self.high, self.whole = low, high, whole
        self.open_low, self.open_high = open_low, open_high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float:
        number: int | float
        wrong = (
            N_("'{value}' is not a whole number")
            if self.whole
            else N_("'{value}' is not a finite number")
        )
        if isinstance(value, bool) or (self.whole and isinstance(value, float)):
            self.fail(t(wrong, value=value), param, ctx)
        try:
            number = int(value) if self.whole else float(value)
        except (TypeError, ValueError):
            self.fail(t(wrong, value=value), param, ctx)
        if not self.whole and not math.isfinite(number):
            self.fail(t("'{value}' is not a finite number", value=value), param, ctx)
        below = number <= self.low if self.open_low else number < self.low
        above = number >= self.high if self.open_high else number > self.high
        if below or above:
            self.fail(t("{value} is not in {range}", value=value, range=self._range()), param, ctx)
        return number

    def _range(self) -> str:
        from cgpt.cli.ui.terminal import plain_number

        if self.high >= 1 << 31:  # nobody needs to read such a bound
            return f"{'>' if self.open_low else '>='} {plain_number(self.low)}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{left}{plain_number(self.low)}, {plain_number(self.high)}{right}"


class OneOf(ParamType[str]):
    """One of a few words; case does not matter where `fold`."""

    name = "choice"

    def __init__(self, choices: Sequence[str], *, fold: bool = False) -> None:
        self.choices, self.fold = tuple(choices), fold

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        for choice in self.choices:
            if value == choice or (self.fold and str(value).lower() == choice.lower()):
                return choice
        self.fail(
            t("'{value}' is not one of {choices}", value=value, choices=", ".join(self.choices)),
            param,
            ctx,
        )


class Switch(click.types.BoolParamType):
    """A flag, which an environment variable gives as a word."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """The word as a truth value."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(
                t(
                    "'{value}' is not one of {choices}",
                    value=value,
                    choices="1, 0, true, false, yes, no, on, off",
                ),
                param,
                ctx,
            )


class Option(click.Option):
    """An option that also reads CGPT_<FLAG> and shows its help in the language of this run.

    note  what the help says is the default, where `default` does not
    """

    def __init__(
        self, param_decls: Sequence[str] | None = None, *, note: str | None = None, **attrs: Any
    ) -> None:
        kind, default = attrs.get("type"), attrs.get("default")
        if isinstance(kind, Number):
            attrs.setdefault("metavar", "N" if kind.whole else "F")
        elif isinstance(kind, OneOf):
            attrs.setdefault("metavar", "|".join(kind.choices))
        if note is None and default is not None:
            note = default if isinstance(default, str) else f"{default:g}"
        super().__init__(param_decls, **attrs)
        self.flag = flag = max(self.opts, key=len)
        self.note = note
        if self.is_flag:
            self.type = Switch()
        if self.envvar is None and flag != "--help":
            self.envvar = "CGPT_" + flag.lstrip("-").replace("-", "_").upper()

    def help_row(self) -> tuple[str, str]:
        """(flags and what they take, help with the default) for the two columns of --help."""
        names = ", ".join(self.opts)
        left = names if self.is_flag or not self.metavar else f"{names} {self.metavar}"
        text = t(self.help or "")
        if self.note:
            text += f" [{t('default: {value}', value=self.note)}]"
        return left, text


def option(*names: str, **attrs: Any) -> Decorator:
    """click.option with the class above."""
    return click.option(*names, cls=Option, **attrs)


def _show_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        echo(ctx.get_help())
        ctx.exit()


def _take_language(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value:
        try:
            set_language(value)
        except ValueError:
            reason = t("'{value}' is not one of {choices}", value=value, choices="zh, en")
            raise click.BadParameter(reason, ctx=ctx, param=param) from None


class _Face:
    """Usage, options and parse shared by commands and the group."""

    name: str | None
    params: list[click.Parameter]
    spread: tuple[str, ...] = ()

    def common_params(self) -> list[click.Parameter]:
        """--lang and --help, which every command has."""
        return [
            Option(
                ["--lang"],
                metavar="zh|en",
                is_eager=True,
                expose_value=False,
                callback=_take_language,
                help="language of the interface",
            ),
            Option(
                ["-h", "--help"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_help,
                help="show this help and exit",
            ),
        ]

    def get_help(self, ctx: click.Context) -> str:
        """Whole help page in the language of this run."""
        width = screen_width()
        arguments = [
            p.metavar or str(p.name).upper() for p in self.params if isinstance(p, click.Argument)
        ]
        group = isinstance(self, click.Group)
        usage = [ctx.command_path, "[OPTIONS]", *arguments, *(["[COMMAND ...]"] if group else [])]
        label = t("usage: ")
        indent = text_width(label)
        first, *more = wrap(" ".join(usage), width - indent)
        lines = [label + first, *(" " * (indent + 2) + line for line in more), ""]
        above = ctx.parent.command if ctx.parent else None
        summary = above.summaries[ctx.info_name or ""] if isinstance(above, LazyGroup) else ""
        for text in filter(None, (summary, getattr(self, "help", None))):
            lines += ["  " + line for line in wrap(t(text), width - 2)]
        rows = [p.help_row() for p in self.params if isinstance(p, Option) and not p.hidden]
        lines += ["", t("Options:"), *columns(rows, width)]
        if isinstance(self, LazyGroup):
            rows = [(name, t(summary)) for name, summary in self.summaries.items()]
            lines += ["", t("Commands:"), *columns(rows, width)]
        return "\n".join(lines)


class Command(_Face, click.Command):
    """A command; `spread` names flags that take several values: `--chat a b --out c`."""

    def __init__(self, name: str | None, spread: tuple[str, ...] = (), **attrs: Any) -> None:
        super().__init__(name, add_help_option=False, **attrs)
        self.spread = spread
        self.params += self.common_params()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, spread_values(args, self.spread))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # whose --help is named
            raise


class LazyGroup(_Face, click.Group):
    """A group of commands, each imported when it runs.

    summaries  name -> what it does, the first line of its help
    module     that holds the function of that name; {} in it is replaced by the function's name
    """

    def __init__(
        self, name: str | None, summaries: dict[str, str], module: str, **attrs: Any
    ) -> None:
        super().__init__(name, add_help_option=False, no_args_is_help=False, **attrs)
        self.summaries, self.module = summaries, module
        self.params += self.common_params()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.summaries)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.summaries:
            return None
        module = importlib.import_module(self.module.format(function_name(name)))
        command: click.Command = getattr(module, function_name(name))
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command, by the name that was typed and not by the one of its help."""
        if args and args[0] not in self.summaries:
            near = nearest(args[0], list(self.summaries))
            guess = t("; did you mean '{name}'?", name=near) if near else ""
            raise click.UsageError(t("no such command '{name}'", name=args[0]) + guess, ctx=ctx)
        _, command, rest = super().resolve_command(ctx, args)
        return args[0], command, rest


def function_name(command: str) -> str:
    """The name of a command's function and module: its own, and no keyword of Python."""
    return f"{command}_" if keyword.iskeyword(command) else command


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name that `name` may have been meant to be, or nothing."""
    import difflib

    return "".join(difflib.get_close_matches(name, known, n=1))


def spread_values(args: Sequence[str], flags: Sequence[str]) -> list[str]:
    """`--chat a b` becomes `--chat a --chat b` for the flags named, until the next flag."""
    result: list[str] = []
    flag, fresh = "", False
    for arg in args:
        if arg.startswith("-") and arg != "-":
            flag, fresh = (arg, True) if arg in flags else ("", False)
            result.append(arg)
        elif flag and not fresh:
            result += [flag, arg]
        else:
            result.append(arg)
            fresh = False
    return result


def usage_sentence(error: click.UsageError) -> str:
    """What was wrong with the command line, in the language of this run."""
    if isinstance(error, click.NoSuchOption):
        near = list(error.possibilities or ())
        guess = t("; did you mean '{name}'?", name=near[0]) if near else ""
        return t("no such option '{name}'", name=error.option_name) + guess
    if isinstance(error, click.MissingParameter):
        return t("missing {name}", name=_name_of(error))
    if isinstance(error, click.BadParameter):
        if isinstance(error.param, click.Argument) and "|" in (error.param.metavar or ""):
            return error.message  # it lists the choices itself
        return t("bad value for {name}: {reason}", name=_name_of(error), reason=error.message)
    if isinstance(error, click.BadOptionUsage):
        if "not take" in error.message:
            return t("option '{name}' takes no value", name=error.option_name)
        return t("option '{name}' needs a value", name=error.option_name)
    if error.message.startswith("Missing command"):
        return t("missing {name}", name="COMMAND")
    if error.message.startswith("Got unexpected extra argument"):
        return t(
            "unexpected argument: {name}", name=error.message.partition("(")[2].rstrip(").").strip()
        )
    return error.message


def _name_of(error: click.BadParameter) -> str:
    param = error.param
    if isinstance(param, Option):
        given = error.ctx and error.ctx.get_parameter_source(param.name or "")
        if given is click.core.ParameterSource.ENVIRONMENT:
            return str(param.envvar)
        return param.flag
    if isinstance(param, click.Argument):
        return param.metavar or str(param.name).upper()
    return str(error.param_hint or "")
