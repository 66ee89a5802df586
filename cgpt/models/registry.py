"""The model families, by the name that files have for them: a line for each."""

from __future__ import annotations

from dataclasses import dataclass

from cgpt.config import GPTConfig
from cgpt.errors import ConfigError
from cgpt.models.base import Model
from cgpt.models.gpt2 import GPT
from cgpt.models.rustgpt import RustGPT, RustGPTConfig


@dataclass(frozen=True)
class Family:
    """A model family: its name in files, its configuration and its graph."""

    name: str
    config: type[GPTConfig]
    model: type[Model]


FAMILIES = (Family("gpt2", GPTConfig, GPT), Family("rustgpt", RustGPTConfig, RustGPT))


def family_of(config: GPTConfig) -> Family:
    """The family of a configuration. Raises ConfigError where none has its type."""
    for family in FAMILIES:
        if type(config) is family.config:
            return family
    raise ConfigError(
        "models: {type} is the configuration of no family", type=type(config).__name__
    )


def family_named(name: object) -> Family | None:
    """The family of a name, None where there is none."""
    return next((family for family in FAMILIES if family.name == name), None)
