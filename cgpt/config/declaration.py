"""Options: each is declared once, as a dataclass field that `option` makes in a class of `Options`.

    top_k: int = option(0, minimum=0, help="sample from the K most likely, 0 for all")

The annotation is its type, `| None` included. What a value must be, its flag on the command line
(cgpt/cli/flags.py), its environment variable, its key in TOML and JSON and its line in the
docstring of the class follow from the declaration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import Field, asdict, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from cgpt.errors import ConfigError, shown
from cgpt.validation import (
    check_bool,
    check_choice,
    check_float,
    check_int,
    check_names,
    plain,
    unknown_name,
)

MAX_THREADS = 1024  # more would exhaust the system before it helped
COUNT: dict[str, Any] = {"minimum": 0, "maximum": (1 << 63) - 1}
POSITIVE: dict[str, Any] = {**COUNT, "minimum": 1}
SHARE: dict[str, Any] = {"minimum": 0.0, "maximum": 1.0}
BELOW_1: dict[str, Any] = {**SHARE, "open_above": True}
ABOVE_0: dict[str, Any] = {"minimum": 0.0, "open_below": True}

Value = TypeVar("Value")
Config = TypeVar("Config", bound="Options")


class Option:
    """One option, as it is declared.

    name, type, default  of the field; type as annotated, without "| None"
    optional      whether None is a value
    minimum, maximum  bounds of a number, None for none (of an int 0 is the least); `open_below` and
                  `open_above` where the bound itself is outside
    choices       all values of a text; `recorded` further ones, which only files have
    check         called as check(owner, name, value), returns the value to keep or raises
                  ConfigError; replaces the check that follows from the type
    help          one line for the command line
    doc           the same for Python, where there is more to say
    group         of flags on a help page, by default that of the class; without `help` it has none
    metavar       what stands for the value on the command line, where the type does not say it
    flag_minimum, flag_maximum  narrower bounds for what is typed in, where others are likely slips
    aliases       what other libraries call it
    """

    optional = open_below = open_above = False
    minimum: float | None = None
    maximum: float | None = None
    flag_minimum: float | None = None
    flag_maximum: float | None = None
    choices: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    check: Callable[[str, str, Any], Any] | None = None
    help = doc = group = metavar = name = type = ""

    def __init__(self, default: Any, **declared: Any) -> None:
        unknown = [key for key in declared if not hasattr(type(self), key)]
        if unknown:
            raise TypeError(f"an option has no {', '.join(unknown)}")
        self.default = default
        vars(self).update(declared)

    def checked(self, owner: str, value: Any) -> Any:
        """The value as it is kept. Raises ConfigError naming the option where it cannot be."""
        if value is None and self.optional:
            return None
        if self.check is not None:
            return self.check(owner, self.name, value)
        if self.choices:
            return check_choice(owner, self.name, value, (*self.choices, *self.recorded))
        if self.type == "int":
            most = None if self.maximum is None else int(self.maximum)
            return check_int(owner, self.name, value, int(self.minimum or 0), most)
        if self.type == "float":
            return check_float(
                owner,
                self.name,
                value,
                -float("inf") if self.minimum is None else self.minimum,
                float("inf") if self.maximum is None else self.maximum,
                open_below=self.open_below,
                open_above=self.open_above,
            )
        return _CHECKS[self.type](owner, self.name, value)


_CHECKS: dict[str, Callable[[str, str, Any], Any]] = {
    "bool": check_bool,
    "tuple[str, ...]": check_names,
}


def option(default: Value, **declared: Any) -> Value:
    """A field of an `Options` class; the keywords are those of Option."""
    found: Value = field(default=default, metadata={"option": Option(default, **declared)})
    return found


def options_of(config: type[Options]) -> Mapping[str, Option]:
    """The options of a class by name, in the order in which they are declared."""
    return _options_of(cast(Any, config))


def check_option(config: type[Options], name: str, owner: str, value: Any) -> Any:
    """The value of an option that is given elsewhere. Raises ConfigError in the owner's name."""
    return options_of(config)[name].checked(owner, value)


@cache
def _options_of(config: type[Any]) -> dict[str, Option]:
    return {one.name: _named(one, config) for one in fields(config) if "option" in one.metadata}


def _named(one: Field[Any], config: type[Options]) -> Option:
    found: Option = copy(one.metadata["option"])
    kind = str(one.type)
    found.name, found.type = one.name, kind.removesuffix(" | None")
    found.optional = kind != found.type
    found.group = found.group or config.group
    if not (found.check or found.choices or found.type in ("int", "float", *_CHECKS)):
        raise TypeError(f"{one.name}: an option of the type {kind} needs choices or a check")
    return found


class Options:
    """Base of frozen dataclasses of options: values are checked and made plain when one is made,
    and go through a dictionary and back; unknown names are refused with the nearest.

    group  of the command line's flags to which its options belong where they say no other
    Raises ConfigError naming the option, the value found and the range expected.
    """

    group: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for one in fields(cast(Any, self)):
            object.__setattr__(self, one.name, plain(getattr(self, one.name)))
        for name, declared in options_of(type(self)).items():
            value = declared.checked(type(self).__name__, getattr(self, name))
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready."""
        return asdict(cast(Any, self))

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Build from a mapping. Raises ConfigError naming an unknown field or a bad value."""
        if not isinstance(values, Mapping):
            raise ConfigError(
                "{owner}: expected the fields by name, found {value}",
                owner=cls.__name__,
                value=shown(values),
            )
        _check_fields(cls, values)
        return cls(**values)

    if not TYPE_CHECKING:  # type checkers know the fields themselves

        def __new__(cls, *values: Any, **named: Any) -> Any:
            """Raises ConfigError, before __init__ would raise TypeError, for an unknown name."""
            _check_fields(cls, named)
            return super().__new__(cls)


def _check_fields(cls: type[Options], named: Mapping[str, Any]) -> None:
    known = sorted(one.name for one in fields(cast(Any, cls)))
    for name in named:
        if name not in known:
            raise unknown_name(cls.__name__, "field", name, known)


def documented(config: type[Config]) -> type[Config]:
    """Decorator: adds a line for each declared option to the docstring."""
    rows = [
        f"    {one.name:<16} {re.sub('--[a-z-]+', _as_name, one.doc or one.help)}"
        for one in options_of(config).values()
    ]
    config.__doc__ = "\n".join([(config.__doc__ or "").rstrip(), "", *rows])
    return config


def _as_name(flag: re.Match[str]) -> str:
    return flag[0][2:].replace("-", "_")
