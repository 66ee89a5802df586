"""The graphs that files can hold, by name, each with its configuration and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from cgpt.config import GPTConfig
from cgpt.models.base import GPT
from cgpt.models.rustgpt import RustGPT, RustGPTConfig
from cgpt.tokenizers.rustgpt import RustTokenizer
from cgpt.tokenizers.tokenizer import FIRST_WORD, Tokenizer


@dataclass(frozen=True)
class Family:
    """What belongs together.

    name       the graph's, as files say it
    unscored   words at the beginning of a vocabulary that have no score
    stays      whether float16 and int8 weights are computed with as they are stored
    """

    name: str
    config: type[GPTConfig]
    graph: type[GPT]
    tokenizer: type[Tokenizer]
    unscored: int
    stays: bool


FAMILIES = {
    family.name: family
    for family in (
        Family("gpt2", GPTConfig, GPT, Tokenizer, FIRST_WORD, stays=True),
        Family("rustgpt", RustGPTConfig, RustGPT, RustTokenizer, 0, stays=False),
    )
}


def family_of(config: GPTConfig) -> Family:
    """The family of a configuration."""
    return next(family for family in FAMILIES.values() if type(config) is family.config)
