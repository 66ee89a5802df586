"""Flags: those of the options that cgpt/config/ declares, and groups that commands share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from cgpt.cli.app import Decorator, Function, Number, OneOf, ParamType, option
from cgpt.cli.ui.streams import as_utf8, read_stdin
from cgpt.config import (
    CHECKPOINTS,
    MAX_BIAS,
    MAX_MIX,
    MAX_THREADS,
    SAMPLE_EVERY,
    STRATEGIES,
    WEIGHT_DTYPES,
    GPTConfig,
    RunConfig,
    SamplingConfig,
    TrainConfig,
)
from cgpt.config.declaration import Option, Options, options_of
from cgpt.locale import t

PICTURES = (".png", ".svg", ".pdf")
COUNT = Number(0, 1 << 62, whole=True)
POSITIVE = Number(1, 1 << 31, whole=True)


def all_of(*options: Decorator) -> Decorator:
    """One decorator that adds the options in this order."""

    def add(function: Function) -> Function:
        for one in reversed(options):
            function = one(function)
        return function

    return add


class Bias(ParamType[tuple[int, float]]):
    """ID=F: a token id and what is added to its logit."""

    name = "bias"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        token, _, bias = str(value).partition("=")
        if not token.strip().isdecimal():
            self.fail(t("'{value}' is not ID=F, such as 270=-5", value=value), param, ctx)
        return int(token), float(Number(-MAX_BIAS, MAX_BIAS).convert(bias, param, ctx))


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
            self.fail(t("it holds bytes that are not UTF-8"), param, ctx)
        if not text and not self.empty:
            self.fail(t("the text is empty"), param, ctx)
        return text

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


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
            self.fail(t("'{value}' is not PATH=F, such as data/a.txt=0.5", value=value), param, ctx)
        return path, float(Number(0, MAX_MIX).convert(weight, param, ctx))


CONFIGS: tuple[type[Options], ...] = (RunConfig, GPTConfig, TrainConfig, SamplingConfig)
# The order on a help page, where it is not that of the declarations; what is not named comes last.
ORDER = (
    *("grad_accum", "lr", "warmup", "val_fraction", "eval_every", "patience", "dropout"),
    *("label_smoothing", "ema", "optimizer", "embedding_lr", "schedule", "schedule_steps"),
    *("decay_share", "min_lr_ratio", "vocab_size", "recompute"),
    *("lora_rank", "lora_alpha", "lora_layers"),
    *("keep_duplicates", "too_long"),
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "no_repeat_ngram", "logit_bias", "stop", "max_new_tokens"),
    *("seed", "speculate", "beam", "length_penalty"),
)
# The types of values that are given again and again: Click's type of one of them.
REPEATED: dict[str, ParamType[Any] | None] = {
    "tuple[str, ...]": None,
    "Sequence[str]": Text(),
    "tuple[tuple[str, float], ...]": Mix(),
    "Mapping[int, float] | Sequence[tuple[int, float]]": Bias(),
}


def flag(config: type[Options], name: str, called: str = "", **attrs: Any) -> Decorator:
    """The flag of a declared option. None where it is not given; a default comes by `attrs`.

    called  another name, with its dashes
    """
    return _flag(options_of(config)[name], attrs, called)


def flags(
    group: str, *, defaults: bool = False, configs: Sequence[type[Options]] = CONFIGS
) -> dict[str, Decorator]:
    """The flags of all options of this group that have a help, by name.

    defaults  whether one that is not given has the default of its declaration
    """
    declared = [one for config in configs for one in options_of(config).values()]
    found = [one for one in declared if one.help and one.group == group]
    found.sort(key=lambda one: ORDER.index(one.name) if one.name in ORDER else len(ORDER))
    plain = ("int", "float", "str")
    return {
        one.name: _flag(one, {"default": one.default} if defaults and one.type in plain else {})
        for one in found
    }


def _flag(one: Option, attrs: dict[str, Any], called: str = "") -> Decorator:
    if one.type == "bool":
        attrs = {"is_flag": True, **attrs}
    elif one.choices:
        attrs = {"type": OneOf(one.choices), **attrs}
    elif one.type in ("int", "float"):
        attrs = {"type": _number(one), **attrs}
    else:
        repeated = {"multiple": True, "type": REPEATED[one.type]} if one.type in REPEATED else {}
        attrs = {**repeated, "metavar": one.metavar or None, **attrs}
    return option(called or "--" + one.name.replace("_", "-"), **{"help": one.help, **attrs})


def _number(one: Option) -> Number:
    """The range of what is typed in; a bound that nobody reaches is left to the configuration."""
    low = one.minimum if one.flag_minimum is None else one.flag_minimum
    high = one.maximum if one.flag_maximum is None else one.flag_maximum
    if high is None or (one.flag_maximum is None and high >= 1 << 31):
        high = math.inf
    return Number(
        -math.inf if low is None else low,
        high,
        whole=one.type == "int",
        open_low=one.open_below,
        open_high=one.open_above and one.flag_maximum is None,
    )


def model_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback: a path whose suffix says the format."""
    if value is not None and not value.lower().endswith((".bin", ".json")):
        raise click.BadParameter(
            t("'{value}' must end in .bin or .json", value=value), ctx=ctx, param=param
        )
    return value


def picture_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback: a path whose suffix is that of a picture."""
    if value is not None and not value.lower().endswith(PICTURES):
        raise click.BadParameter(
            t("'{value}' must end in .png, .svg or .pdf", value=value), ctx=ctx, param=param
        )
    return value


def _note_json(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Where errors are caught it is known then that they are wanted as JSON too."""
    ctx.ensure_object(dict)["json"] = value
    return value


def _threads(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and not ctx.resilient_parsing:
        from cgpt import kernels

        kernels.set_num_threads(value)
    return value


threads = option(
    "--threads",
    type=Number(1, MAX_THREADS, whole=True),
    expose_value=False,
    callback=_threads,
    help="threads that compute",
)
parallel = option(
    "--parallel",
    type=OneOf(("none", "mpi")),
    help="train together with the other processes that mpiexec started",
)
overwrite = option("--overwrite", is_flag=True, help="replace files that exist, without a question")
as_json = option(
    "--json", "as_json", is_flag=True, callback=_note_json, help="print one JSON object on stdout"
)
form_of_weights = partial(
    option,
    "--weights",
    type=OneOf(WEIGHT_DTYPES),
    help="form of the weights; float16 and int8 are smaller and faster, and their "
    "files go without the optimizer",
)
weights = form_of_weights()
data = partial(
    option,
    "--data",
    multiple=True,
    help="training data: files or folders, several; dialogues are for fine-tuning, "
    "the rest for pre-training",
)
out = partial(option, "--out", metavar="PATH", help="where the model goes")
save_pretrained = option(
    "--save-pretrained",
    metavar="PATH",
    callback=model_path,
    help="also save the model after pre-training",
)
output = option(
    "-o", "--output", metavar="FILE", callback=picture_path, help="picture: .png, .svg or .pdf"
)
font = option(
    "--font",
    metavar="FILE",
    help="font file of the picture (default: one with Chinese letters is looked for)",
)
text = click.argument("text", required=False, metavar="[TEXT]", type=Text(empty=True))


def text_or_stdin(given: str | None) -> str:
    """The text that was given, or that of a pipe without its last line end."""
    found = read_stdin().rstrip("\r\n") if given is None else given
    if given is None and not found:
        raise click.UsageError(t("missing {name}", name="TEXT"), ctx=click.get_current_context())
    return found


seed = flag(SamplingConfig, "seed")
shape = all_of(*flags("shape").values())  # a preset and what differs from it
sampling = all_of(*flags("sampling", defaults=True).values())

checkpoints = all_of(
    option(
        "--checkpoint-dir",
        metavar="DIR",
        default=CHECKPOINTS,
        help="folder of the checkpoints on the way",
    ),
    option(
        "--save-every",
        type=COUNT,
        default=0,
        help="checkpoint every N steps, 0 never; with --strategy 0 means every epoch",
    ),
    option(
        "--strategy",
        type=OneOf(STRATEGIES),
        help="which checkpoints are saved on the way (last where only --save-every is given)",
    ),
    option("--keep", type=POSITIVE, default=3, help="how many best and periodic ones are kept"),
    option(
        "--save-minutes",
        type=Number(0),
        default=10.0,
        help="save checkpoint_last.bin every F minutes, 0 never",
    ),
)

viewing = all_of(
    option("--log", metavar="FILE.jsonl", help="write one JSON line a step (for cgpt plot)"),
    option(
        "--sample-every",
        type=COUNT,
        note=str(SAMPLE_EVERY),
        help="let the model write something every N steps, 0 never; changes no bit",
    ),
    option(
        "--sample-prompt",
        type=Text(),
        metavar="TEXT",
        help="what it continues (or answers, in fine-tuning); default: a document's "
        "beginning, the first question of the data",
    ),
)

budget = all_of(*flags("budget").values())

phases = all_of(
    flag(TrainConfig, "epochs", "--pretrain-epochs", help="pre-training epochs, 0 skips it"),
    flag(TrainConfig, "epochs", "--finetune-epochs", help="fine-tuning epochs, 0 skips it"),
)

recipe = all_of(
    option("--batch-size", type=POSITIVE, help="full-context sequences in a batch"),
    *flags("recipe").values(),
    threads,
)

cache = option(
    "--cache",
    metavar="DIR",
    help="folder of the tokens of large corpora (by default in the user's cache folder)",
)
rows = all_of(
    *flags("rows").values(),
    option(
        "--as-text",
        is_flag=True,
        help="strings are texts, even where they look like a dialogue (in training, those "
        "of the files for pre-training)",
    ),
)
_duplicates, *_corpus = flags("corpus").values()
corpus = all_of(_duplicates, rows, *_corpus, cache)
fine_tuning = all_of(*flags("finetune").values())


def sampling_config(
    values: dict[str, Any], config: type[SamplingConfig] = SamplingConfig
) -> SamplingConfig:
    """The sampling options taken out of a command's values."""
    return config(**{name: values.pop(name) for name in options_of(config)})
