"""Groups of options that several commands share; the help texts lie in help_text.py."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli.app import Decorator, Function, Number, OneOf, ParamType, option
from cgpt.cli.messages import t
from cgpt.cli.ui.samples import EVERY
from cgpt.cli.ui.save_dialog import CHECKPOINTS
from cgpt.cli.ui.streams import as_utf8, read_stdin
from cgpt.cli.view_text import FORMATS
from cgpt.config import (
    FORMS,
    MAX_NEW_TOKENS,
    MOST,
    OPTIMIZERS,
    PRESETS,
    SCHEDULES,
    SHAPE,
    TEMPERATURE,
    TOO_LONG,
    TOP_P,
)

if TYPE_CHECKING:
    from cgpt.generation.sampling import SamplingConfig

STRATEGIES = ("best", "last", "periodic", "best+last", "best+periodic")
COUNT = Number(0, 1 << 62, whole=True)
POSITIVE = Number(1, 1 << 31, whole=True)
RATE = Number(0, 1, open_low=True)
VOCAB_SIZE = Number(262, 1 << 24, whole=True)


def _group(*options: Decorator) -> Decorator:
    """One decorator that adds the options in this order."""

    def add(function: Function) -> Function:
        for one in reversed(options):
            function = one(function)
        return function

    return add


def model_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback: a path whose suffix says the format."""
    if value is not None and not value.lower().endswith((".bin", ".json")):
        raise click.BadParameter(t("bad_suffix", value=value), ctx=ctx, param=param)
    return value


def picture_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback: a path whose suffix is that of a picture."""
    if value is not None and not value.lower().endswith(FORMATS):
        raise click.BadParameter(t("bad_picture", value=value), ctx=ctx, param=param)
    return value


def _threads(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and not ctx.resilient_parsing:
        from cgpt import kernels

        kernels.set_num_threads(value)
    return value


threads = option(
    "--threads",
    type=Number(1, 1024, whole=True),
    metavar="N",
    expose_value=False,
    callback=_threads,
)
parallel = option("--parallel", type=OneOf(("none", "mpi")), metavar="none|mpi")
overwrite = option("--overwrite", is_flag=True)
as_json = option("--json", "as_json", is_flag=True)
seed = option("--seed", type=Number(0, (1 << 63) - 1, whole=True), metavar="N")
weights = option("--weights", type=OneOf(FORMS), metavar="|".join(FORMS))
# A preset and what differs from it; 0 for n_ff is four times n_embd.
shape = _group(
    option("--preset", type=OneOf(tuple(PRESETS)), metavar="|".join(PRESETS)),
    *(
        option(
            f"--{name.replace('_', '-')}",
            type=Number(name != "n_ff", MOST[name], whole=True),
            metavar="N",
        )
        for name in SHAPE
    ),
)


class Bias(ParamType[tuple[int, float]]):
    """ID=F: a token id and what is added to its logit."""

    name = "bias"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        token, _, bias = str(value).partition("=")
        if not token.strip().isdecimal():
            self.fail(t("not_bias", value=value), param, ctx)
        return int(token), float(Number(-1e6, 1e6).convert(bias, param, ctx))


class Text(ParamType[str]):
    """A text as it is, UTF-8; an environment variable holds one, spaces and all.

    empty  whether "" is one
    """

    name = "text"

    def __init__(self, *, empty: bool = False) -> None:
        self.empty = empty

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = as_utf8(str(value))
        if text is None:
            self.fail(t("text_not_utf8"), param, ctx)
        if not text and not self.empty:
            self.fail(t("empty_text"), param, ctx)
        return text

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


text = click.argument("text", required=False, metavar="[TEXT]", type=Text(empty=True))


def text_or_stdin(given: str | None) -> str:
    """The text that was given, or that of a pipe without its last line end."""
    found = read_stdin().rstrip("\r\n") if given is None else given
    if given is None and not found:
        raise click.UsageError(t("missing_argument", name="TEXT"), ctx=click.get_current_context())
    return found


sampling = _group(
    option(
        "--temperature",
        type=Number(0, 1000),
        default=TEMPERATURE,
        metavar="F",
        note=f"{TEMPERATURE:g}",
    ),
    option(
        "--top-p", type=Number(0, 1, open_low=True), default=TOP_P, metavar="F", note=f"{TOP_P:g}"
    ),
    option("--top-k", type=COUNT, default=0, metavar="N", note="0"),
    option("--min-p", type=Number(0, 1), default=0.0, metavar="F", note="0"),
    option("--repetition-penalty", type=Number(0.001, 1000), default=1.0, metavar="F", note="1"),
    option("--presence-penalty", type=Number(-1000, 1000), default=0.0, metavar="F", note="0"),
    option("--frequency-penalty", type=Number(-1000, 1000), default=0.0, metavar="F", note="0"),
    option("--no-repeat-ngram", type=COUNT, default=0, metavar="N", note="0"),
    option("--logit-bias", type=Bias(), multiple=True, metavar="ID=F"),
    option("--stop", type=Text(), multiple=True, metavar="TEXT"),
    option(
        "--max-new-tokens",
        type=Number(1, 1 << 31, whole=True),
        default=MAX_NEW_TOKENS,
        metavar="N",
        note=str(MAX_NEW_TOKENS),
    ),
    seed,
    option("--speculate", type=Number(0, 64, whole=True), default=0, metavar="N", note="0"),
    option("--beam", type=Number(1, 256, whole=True), default=1, metavar="N", note="1"),
    option("--length-penalty", type=Number(-10, 10), default=1.0, metavar="F", note="1"),
)

checkpoints = _group(
    option("--checkpoint-dir", metavar="DIR", default=CHECKPOINTS, note=CHECKPOINTS),
    option("--save-every", type=COUNT, metavar="N", default=0, note="0"),
    option("--strategy", type=OneOf(STRATEGIES), metavar="|".join(STRATEGIES)),
    option("--keep", type=POSITIVE, metavar="N", default=3, note="3"),
    option("--save-minutes", type=Number(0), metavar="F", default=10.0, note="10"),
)

viewing = _group(
    option("--log", metavar="FILE.jsonl"),
    option("--sample-every", type=COUNT, metavar="N", default=EVERY, note=str(EVERY)),
    option("--sample-prompt", type=Text(), metavar="TEXT"),
)

budget = _group(
    option("--max-steps", type=COUNT, metavar="N"),
    option("--max-minutes", type=Number(0), metavar="F"),
)

phases = _group(
    option("--pretrain-epochs", type=COUNT, metavar="N"),
    option("--finetune-epochs", type=COUNT, metavar="N"),
)

recipe = _group(
    option("--batch-size", type=POSITIVE, metavar="N"),
    option("--grad-accum", type=POSITIVE, metavar="N"),
    option("--lr", type=RATE, metavar="F"),
    option("--warmup", type=COUNT, metavar="N"),
    option("--val-fraction", type=Number(0, 1, open_high=True), metavar="F"),
    option("--eval-every", type=COUNT, metavar="N"),
    option("--patience", type=COUNT, metavar="N"),
    option("--dropout", type=Number(0, 1, open_high=True), metavar="F"),
    option("--label-smoothing", type=Number(0, 1, open_high=True), metavar="F"),
    option("--ema", type=Number(0, 1, open_high=True), metavar="F"),
    option("--optimizer", type=OneOf(OPTIMIZERS), metavar="|".join(OPTIMIZERS)),
    option("--embedding-lr", type=Number(0, 1e6, open_low=True), metavar="F"),
    option("--schedule", type=OneOf(SCHEDULES), metavar="|".join(SCHEDULES)),
    option("--schedule-steps", type=COUNT, metavar="N"),
    option("--decay-share", type=Number(0, 1, open_low=True), metavar="F"),
    option("--min-lr-ratio", type=Number(0, 1), metavar="F"),
    option("--vocab-size", type=VOCAB_SIZE, metavar="N"),
    option("--recompute", is_flag=True),
    seed,
    threads,
)


class Mix(ParamType[tuple[str, float]]):
    """PATH=F: a file or folder of the data and how often an epoch takes it.

    A file of settings may also give [PATH, F].
    """

    name = "mix"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        path, _, weight = str(value).rpartition("=")
        if isinstance(value, (list, tuple)) and len(value) == 2:
            path, weight = map(str, value)
        if not path:
            self.fail(t("not_mix", value=value), param, ctx)
        return path, float(Number(0, 1000).convert(weight, param, ctx))


cache = option("--cache", metavar="DIR")
rows = _group(option("--skip-invalid", is_flag=True), option("--as-text", is_flag=True))
corpus = _group(
    option("--keep-duplicates", is_flag=True),
    rows,
    option("--too-long", type=OneOf(TOO_LONG), metavar="|".join(TOO_LONG)),
    option("--mix", type=Mix(), multiple=True, metavar="PATH=F"),
    cache,
)

lora = _group(
    option("--lora-rank", type=COUNT, metavar="N"),
    option("--lora-alpha", type=Number(0, 1e6, open_low=True), metavar="F"),
    option("--lora-layers", metavar="PATTERN", multiple=True),
)


def sampling_config(values: dict[str, Any]) -> SamplingConfig:
    """The sampling options taken out of a command's values."""
    from cgpt.generation.sampling import SamplingConfig

    return SamplingConfig(**{one.name: values.pop(one.name) for one in fields(SamplingConfig)})
