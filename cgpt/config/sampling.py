"""How answers are sampled: SamplingConfig. A sampling option is declared here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgpt.config.declaration import SHARE, Options, documented, option
from cgpt.errors import ConfigError, shown
from cgpt.validation import check_float, check_int

MAX_BIAS = 1e6  # of a logit, up or down


_TOKENS: dict[str, Any] = {"minimum": 0, "maximum": 1 << 31}  # a count of them, in sampling


def _bias_pairs(owner: str, name: str, value: Any) -> tuple[tuple[int, float], ...]:
    """Pairs of token id and bias, by id. Raises ConfigError for anything else."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs
    ):
        raise ConfigError(
            "SamplingConfig: logit_bias must be {{token id: number}}, found {value}",
            value=shown(value, 100),
        )
    pairs = [
        (check_int(owner, name, token, 0), check_float(owner, name, bias, -MAX_BIAS, MAX_BIAS))
        for token, bias in pairs
    ]
    if len({token for token, _ in pairs}) < len(pairs):
        raise ConfigError("SamplingConfig: logit_bias names a token id twice; name it once")
    return tuple(sorted((token, float(bias)) for token, bias in pairs))


def _stop_texts(owner: str, name: str, value: Any) -> tuple[str, ...]:
    """Texts that are not empty; None for none. Raises ConfigError for anything else."""
    texts = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(texts, (list, tuple)) or not all(
        isinstance(text, str) and text for text in texts
    ):
        raise ConfigError(
            "SamplingConfig: stop must be a list of texts that are not empty, found {value}",
            value=shown(value, 100),
        )
    return tuple(texts)


@documented
@dataclass(frozen=True)
class SamplingConfig(Options):
    """How the next token is chosen; cgpt/generation/sampling.py has the order in which options act.

    The defaults here are those of everything that generates text: LLM.generate, stream, chat and
    beam_search, ChatSession, `cgpt chat` and `cgpt generate`. One thing differs: LLM.generate and
    LLM.stream have temperature 0, so that a plain continuation is the same each time.
    (GPT.generate and GPT.stream, which know tokens only, have what their signature says.)
    Penalties and no_repeat_ngram leave tokens that end the answer alone.
    Raises ConfigError naming the field, the value found and the range expected.
    """

    group = "sampling"
    temperature: float = option(
        0.8,
        minimum=0.0,
        flag_maximum=1000,
        help="temperature, 0 takes the most likely token",
        doc="divides the logits; 0 takes the likeliest token (greedy)",
    )
    top_k: int = option(0, **_TOKENS, help="sample from the K most likely, 0 for all")
    top_p: float = option(
        0.9,
        **SHARE,
        open_below=True,
        help="sample inside this much probability",
        doc="only the likeliest tokens that together have this probability; 1 for all",
    )
    repetition_penalty: float = option(
        1.0,
        minimum=1e-3,
        maximum=1e3,
        aliases=("repeat_penalty", "penalty_repeat"),
        help="divides or multiplies logits of tokens in the context, 1 for none",
        doc="logits of tokens in the context are divided (positive) or multiplied (negative) by "
        "this; 1 for none",
    )
    max_new_tokens: int = option(
        256,
        **_TOKENS,
        flag_minimum=1,
        aliases=("max_tokens", "max_completion_tokens", "max_length", "n_predict", "num_predict"),
        help="most new tokens",
    )
    seed: int | None = option(
        None,
        minimum=0,
        flag_maximum=(1 << 63) - 1,
        aliases=("random_seed", "random_state"),
        help="seed of all that is random",
        doc="the same seed gives the same tokens; None for a fresh one",
    )
    beam: int = option(
        1,
        minimum=1,
        maximum=256,
        aliases=("num_beams", "n_beams", "beam_size"),
        help="width of beam search, 1 for none",
        doc="hypotheses of a beam search; 1 samples. A beam search is not random: it has no use "
        "for temperature, top_k, top_p, min_p and seed",
    )
    min_p: float = option(
        0.0, **SHARE, help="only tokens at least F times as likely as the likeliest, 0 for all"
    )
    presence_penalty: float = option(
        0.0,
        minimum=-1e3,
        maximum=1e3,
        help="subtracted from logits of tokens in the context, 0 for none",
    )
    frequency_penalty: float = option(
        0.0,
        minimum=-1e3,
        maximum=1e3,
        help="the same, times the number of occurrences, 0 for none",
        doc="as presence_penalty, times the number of occurrences",
    )
    no_repeat_ngram: int = option(
        0,
        **_TOKENS,
        aliases=("no_repeat_ngram_size",),
        help="no N tokens in a row occur twice, 0 never",
    )
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]] = option(
        (),
        check=_bias_pairs,
        metavar="ID=F",
        help="add F to the logit of token ID; repeatable (generate --json shows ids)",
        doc="{token id: what is added to its logit}; kept as pairs",
    )
    stop: Sequence[str] = option(
        (),
        check=_stop_texts,
        metavar="TEXT",
        aliases=("stop_sequences", "stop_strings", "stop_words"),
        help="end before TEXT would appear; repeatable",
        doc="texts that end the answer where they would begin; no part of one is shown",
    )
    length_penalty: float = option(
        1.0,
        minimum=-10.0,
        maximum=10.0,
        help="a beam's score is divided by its length to the power F",
        doc="a beam's score is its log-probability / length ** this: 1 is the mean, 0 the sum "
        "(favours short ones), above 1 favours long ones",
    )
    speculate: int = option(
        0,
        minimum=0,
        maximum=64,
        help="guess up to N tokens a step and check them at once, same result, 0 never",
        doc="up to so many tokens a step are guessed from the context and checked in one pass; "
        "neither the tokens nor their probabilities change. 0 for none",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam > 1 and self.speculate:
            raise ConfigError(
                "SamplingConfig: speculate={n} guesses for one continuation and cannot go "
                "with beam={beam}; set one of them to its default",
                n=self.speculate,
                beam=self.beam,
            )
