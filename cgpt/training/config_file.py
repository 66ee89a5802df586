"""A run as a TOML file: read by `train --config`, written by `info --toml`.

preset = "small"            # keys are names of options ...
data_fingerprint = "..."    # ... but this one, which the data must have
[pretrain_train]            # and two tables: the fields of TrainConfig of each phase
epochs = 8
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import Any

from cgpt.config import SHAPE, RunConfig, TrainConfig
from cgpt.errors import ConfigError, DataError, Phrase, Templated, as_reason, foreign_text
from cgpt.locale import N_

TABLES = ("pretrain_train", "finetune_train")
OF_THE_MODEL = ("preset", *SHAPE, "vocab_size", "tokenizer")  # what --init brings itself
FINGERPRINT = "data_fingerprint"


def with_fields(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """The config with these fields; of the two phases only those that their tables name.

    A file with a fingerprint of the data repeats a run: its tables are whole, what they lack has
    the default of a TrainConfig.

    Raises ConfigError for an unknown field, or a value out of range.
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
            "the data is not that of the run to be repeated: found {fingerprint}, expected "
            "{wanted}; put the old files back, or remove {key} from the file",
            fingerprint=found,
            wanted=wanted,
            key=FINGERPRINT,
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
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return dict(tomllib.load(file))
    except OSError as error:
        raise ConfigError(
            "{path}: cannot be read ({reason}); check path and permissions",
            path=path,
            reason=as_reason(error),
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "{path}: not valid TOML ({reason}); mend the file",
            path=path,
            reason=_toml_reason(error),
        ) from error


def _toml_reason(error: ValueError) -> Templated:
    """What the parser says, and where: until Python 3.14 its error is one text."""
    found = re.fullmatch(
        r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.S
    )
    if not found:
        return as_reason(error)
    reason = foreign_text(
        found[1],
        N_("Illegal character {value}"),
        N_("Cannot declare {value} twice"),
        N_("Duplicate inline table key {value}"),
    )
    if not found[2]:
        return Phrase("{reason} (at end of document)", reason=reason)
    return Phrase(
        "{reason} (at line {line}, column {column})", reason=reason, line=found[2], column=found[3]
    )


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
