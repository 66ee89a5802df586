"""A run as a TOML file: read by `train --config`, written by `info --toml`.

preset = "small"            # keys are names of options ...
data_fingerprint = "..."    # ... but this one, which the data must have
[pretrain_train]            # and two tables: the fields of TrainConfig of each phase
epochs = 8
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import click

from cgpt.cli.app import Option, nearest
from cgpt.config import SHAPE, RunConfig, TrainConfig
from cgpt.errors import ConfigError, DataError

TABLES = ("pretrain_train", "finetune_train")
OF_THE_MODEL = ("preset", *SHAPE, "vocab_size", "tokenizer")  # what --init brings itself
FINGERPRINT = "data_fingerprint"
_META = "cgpt.config_file"  # where the context keeps what is no option


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
                guess = f"; did you mean '{near}'?" if near else ""
                raise ConfigError(
                    f"{value}: unknown key '{key}'{guess}; "
                    f"known: {', '.join(sorted({*known, *of_the_run}))}"
                )
            if isinstance(entry, (dict, list)) and not (
                isinstance(entry, list) and known[name].multiple
            ):
                raise ConfigError(
                    f"{value}: '{key}' takes one value, found {entry!r:.80}; give one"
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


def with_fields(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """The config with these fields; of the two phases only those that their tables name.

    A file with a fingerprint of the data repeats a run: its tables are whole, what they lack has
    the default of a TrainConfig.

    Raises ConfigError for a field that there is not, or a value that cannot be.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name in TABLES and isinstance(value, dict):
            base = TrainConfig() if FINGERPRINT in values else getattr(config, name)
            value = TrainConfig.from_dict({**base.to_dict(), **value})
        if name != FINGERPRINT:
            changes[name] = value
    return replace(config, **changes)


def check_fingerprint(wanted: object, found: str) -> None:
    """Raises DataError where the data is not that of the run to be repeated."""
    if wanted is not None and wanted != found:
        raise DataError(
            f"the data is not that of the run to be repeated: found {found}, expected "
            f"{wanted}; put the old files back, or remove {FINGERPRINT} from the file"
        )


def repeated(values: dict[str, Any], phases: dict[str, Any]) -> dict[str, Any]:
    """The fields of a RunConfig as they repeat a run to the bit.

    phases  how its phases ended, as kept in a model's metadata: one that its minutes ended is
            repeated by its steps
    """
    result = dict(values)
    for name in OF_THE_MODEL if result.get("init") else ("init",):
        result.pop(name, None)
    for phase, name in zip(("pretrain", "finetune"), TABLES, strict=True):
        table = {key: one for key, one in result.get(name, {}).items() if key != "seed"}
        ended = phases.get(phase, {})
        if table.get("max_minutes") and ended.get("stopped") == "budget":
            table.update(max_steps=ended["steps"], max_minutes=0.0)
        result[name] = table
    return result


def load_toml(path: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError where it cannot be read."""
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib  # type: ignore[no-redef,import-not-found,unused-ignore]
        except ImportError:
            raise ConfigError(
                f"{path}: reading TOML needs Python 3.11, or on this Python the "
                "package tomli: pip install tomli"
            ) from None
    try:
        with open(path, "rb") as file:
            return dict(tomllib.load(file))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); check path and permissions"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); mend the file") from error


def to_toml(values: dict[str, Any], comments: dict[str, str]) -> str:
    """A TOML text of plain values, lists and tables of them; None is left out.

    comments  lines put before everything, as "# key: value"
    """
    import tomli_w

    def without_none(table: dict[str, Any]) -> dict[str, Any]:
        return {
            key: without_none(one) if isinstance(one, dict) else one
            for key, one in table.items()
            if one is not None
        }

    head = "".join(f"# {key}: {text}\n" for key, text in comments.items())
    return head + tomli_w.dumps(without_none(values))
