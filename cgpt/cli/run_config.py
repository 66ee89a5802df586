"""From options and the file of --config to a RunConfig."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import click

from cgpt.cli.app import Option, nearest
from cgpt.config import GPTConfig, RunConfig, TrainConfig
from cgpt.config.declaration import Options, options_of
from cgpt.errors import ConfigError, Phrase, shown
from cgpt.training.config_file import FINGERPRINT, OF_THE_MODEL, load_toml, with_fields
from cgpt.training.recipe import default_recipe, split_by_kind, with_own_warmup

_META = "cgpt.run_config"  # where the context keeps what is no option


def read_config(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of --config: the file's values stand between the environment and the defaults."""
    if value:
        known = {
            one.flag.lstrip("-").replace("-", "_"): one
            for one in ctx.command.params
            if isinstance(one, Option) and one.name not in ("help", "lang", "config", None)
        }
        found: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        of_the_run = {*(one.name for one in fields(RunConfig)), FINGERPRINT}
        for key, entry in load_toml(value).items():
            name = key.replace("-", "_")
            if name in of_the_run and (name not in known or isinstance(entry, dict)):
                rest[name] = entry
                continue
            if name not in known:
                near = nearest(name, list(known))
                guess = Phrase("; did you mean '{name}'?", name=near) if near else ""
                raise ConfigError(
                    "{path}: unknown key '{key}'{guess}; known: {known}",
                    path=value,
                    key=key,
                    guess=guess,
                    known=sorted({*known, *of_the_run}),
                )
            if isinstance(entry, (dict, list)) and not (
                isinstance(entry, list) and known[name].multiple
            ):
                raise ConfigError(
                    "{path}: '{key}' takes one value, found {value}; give one",
                    path=value,
                    key=key,
                    value=shown(entry, 80),
                )
            single = known[name].multiple and not isinstance(entry, list)
            found[known[name].name or name] = [entry] if single else entry
        ctx.default_map = {**(ctx.default_map or {}), **found}
        ctx.meta[_META] = rest
    return value


def rest_of_config() -> dict[str, Any]:
    """What the file of --config holds beside options: fields of the run, tables, fingerprint."""
    ctx = click.get_current_context(silent=True)
    return dict(ctx.meta.get(_META, {})) if ctx is not None else {}


ATTENTION = ("h.*.attn.*",)  # parameters that --freeze-attn leaves as they are
FALLING = ("cosine", "linear", "wsd")
SCHEDULES_OF = {"decay_share": ("wsd",), "min_lr_ratio": FALLING, "schedule_steps": FALLING}


def check_init(values: dict[str, Any]) -> None:
    """Raises ConfigError for an option of the model beside the model that --init names."""
    for name in OF_THE_MODEL if values.get("init") else ():
        if values.get(name) is not None:
            raise ConfigError(
                "--init {path} brings its own shape and vocabulary; leave out --{name}",
                path=values["init"],
                name=name.replace("_", "-"),
            )


def given(values: dict[str, Any], config: type[Options], *groups: str) -> dict[str, Any]:
    """The options of these groups that have a value from flags, the environment or a file."""
    return {
        name: values[name]
        for name, one in options_of(config).items()
        if one.group in groups and values.get(name) not in (None, ()) and values[name] is not False
    }


def run_config(values: dict[str, Any], fields: dict[str, Any] | None = None) -> RunConfig:
    """The recipe with the options given; None leaves a field as the recipe has it.

    fields  of the RunConfig, from a file; options come on top of them
    Raises CheckpointError where the model of --init cannot be read.
    """
    from cgpt.checkpoint.info import describe

    check_init(values)
    init: str | None = values.get("init")
    shape: dict[str, int] | None = describe(init)["config"] if init else None
    pretrain, chat, validation = (
        tuple(values.get(name) or ()) for name in ("pretrain", "chat", "validation")
    )
    as_text = bool(values.get("as_text"))
    if values.get("data"):
        more = split_by_kind(values["data"], as_text)
        pretrain, chat = pretrain + more[0], chat + more[1]
    if pretrain or chat:
        from cgpt.training.recipe import default_run

        config = replace(default_run(values.get("preset") or "small"), pretrain=pretrain, chat=chat)
    else:
        config = default_recipe(values.get("preset"), as_text)
    changes = {
        **given(values, RunConfig, "model", "rows", "corpus", "recipe"),
        **given(values, GPTConfig, "shape", "recipe"),
    }
    config = with_fields(with_own_warmup(config), {**(fields or {}), "validation": validation})
    if as_text:  # --chat is for dialogues, whatever they are written as
        named = {*(values.get("chat") or ())}
        changes["plain_text"] = tuple(
            path for path in (*config.pretrain, *validation) if path not in named
        )
    config = replace(config, **changes)
    both = given(values, TrainConfig, "recipe", "budget", "corpus")
    if values.get("batch_size"):
        both["batch_tokens"] = values["batch_size"] * (
            shape["block_size"] if shape else config.shape().block_size
        )

    def phase(train: Any, epochs: int | None, **more: Any) -> Any:
        if epochs is not None:
            more["epochs"] = epochs
        return replace(train, **both, **more)

    names = (*(ATTENTION if values.get("freeze_attn") else ()), *(values.get("freeze") or ()))
    tuned = given(values, TrainConfig, "finetune")
    if names:
        tuned["freeze"] = names
    config = replace(
        config,
        pretrain_train=phase(config.pretrain_train, values.get("pretrain_epochs")),
        finetune_train=phase(config.finetune_train, values.get("finetune_epochs"), **tuned),
    )
    _check_schedules(config, both)
    return config


def _check_schedules(config: RunConfig, given: dict[str, Any]) -> None:
    """Raises ConfigError for an option that no schedule of the run looks at."""
    found = (config.pretrain_train.schedule, config.finetune_train.schedule)
    for name, schedules in SCHEDULES_OF.items():
        if name in given and not set(schedules) & set(found):
            raise ConfigError(
                "--{name} is of the schedules {schedules}, found {value}; leave it out, or "
                "name one of them by --schedule",
                name=name.replace("_", "-"),
                schedules=list(schedules),
                value=found[-1],
            )
