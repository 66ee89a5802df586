"""The configurations of models, training, sampling and runs: frozen, validated once; presets.

Every option is declared here and nowhere else (see cgpt/options.py). The order of the fields is
that of files; the order of flags on a help page is in cgpt/cli/options.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cgpt.errors import ConfigError, Phrase, shown
from cgpt.options import Options, documented, option, options_of
from cgpt.validation import check_choice, check_float, check_int, expect, path_list, path_text

CHECKPOINTS, EXPORTS = "checkpoints", "exports"  # folders of a run's models

SAMPLE_EVERY = 100  # steps of training between two texts that the model writes meanwhile

# Shapes by name. vocab_size is the most the tokenizer may learn; a small corpus gives fewer.
PRESETS: dict[str, dict[str, int]] = {
    "tiny": dict(n_layer=2, n_head=2, n_embd=64, n_ff=256, vocab_size=1024, block_size=128),
    "small": dict(n_layer=2, n_head=8, n_embd=256, n_ff=1024, vocab_size=3000, block_size=256),
    "base": dict(n_layer=4, n_head=8, n_embd=512, n_ff=768, vocab_size=3000, block_size=256),
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768, n_ff=3072, vocab_size=50257, block_size=1024),
}

OPTIMIZERS = ("adamw", "muon")
# Tuned up to this width, see docs/learning.md: the rate, and that of the embeddings beside it.
LEARNING_RATES = {"adamw": 2e-3, "muon": 3e-3}
EMBEDDING_RATES = {"adamw": 1.0, "muon": 3.0}
TUNED_WIDTH = 256
MOST_WARMUP = 50
EARLIER_WARMUP = 50  # of a phase begun by a version that did not record it and had no choice
KINDS = ("words", "chars", "bpe")  # of a vocabulary
WEIGHT_DTYPES = ("float32", "float16", "int8")  # of a model's matrices, in memory and in files
SCHEDULES = ("cosine", "linear", "constant", "wsd")
STRATEGIES = ("best", "last", "periodic", "best+last", "best+periodic")  # of CheckpointManager
TOO_LONG = ("cut", "drop", "error")  # what to do with documents longer than the context
WINDOWS = "windows"  # what was done before dialogues were cut between turns
LOSS_ON = ("all", "answers")  # which tokens of a dialogue carry loss

# Generous limits that keep every size product far inside 63 bits.
MAX_VOCAB_SIZE = 1 << 24
MAX_BLOCK_SIZE = 1 << 20
MAX_THREADS = 1024  # more would exhaust the system before it helped
MAX_BIAS = 1e6  # of a logit, up or down
MAX_MIX = 1000  # how often an epoch takes a file
_COUNT: dict[str, Any] = {"minimum": 0, "maximum": (1 << 63) - 1}
_POSITIVE: dict[str, Any] = {**_COUNT, "minimum": 1}
_TOKENS: dict[str, Any] = {"minimum": 0, "maximum": 1 << 31}  # a count of them, in sampling
_SHARE: dict[str, Any] = {"minimum": 0.0, "maximum": 1.0}
_BELOW_1: dict[str, Any] = {**_SHARE, "open_above": True}
_ABOVE_0: dict[str, Any] = {"minimum": 0.0, "open_below": True}


@documented
@dataclass(frozen=True)
class GPTConfig(Options):
    """Shape of a GPT-2 graph. Raises ConfigError naming the field, the value and the range."""

    group = "shape"
    n_layer: int = option(
        2,
        minimum=1,
        maximum=1024,
        help="transformer layers (by default the preset's, as the next four)",
        doc="L: transformer blocks",
    )
    n_head: int = option(
        8,
        minimum=1,
        maximum=1024,
        help="attention heads; must divide --n-embd",
        doc="H: attention heads; must divide n_embd",
    )
    n_embd: int = option(
        256,
        minimum=1,
        maximum=65536,
        help="width of the model",
        doc="C: width of the residual stream",
    )
    n_ff: int = option(
        0,
        minimum=0,
        maximum=1 << 18,
        help="width of the MLP, 0 for 4 times --n-embd",
        doc="F: width of the MLP, 0 for 4 * n_embd",
    )
    vocab_size: int = option(
        3000,
        minimum=1,
        maximum=MAX_VOCAB_SIZE,
        flag_minimum=262,
        group="recipe",
        help="most entries of the vocabulary",
        doc="V: rows of the (tied) token embedding",
    )
    block_size: int = option(
        128,
        minimum=1,
        maximum=MAX_BLOCK_SIZE,
        help="tokens of the context",
        doc="T: longest context, rows of the position embedding",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_ff == 0:
            object.__setattr__(self, "n_ff", 4 * self.n_embd)
        if self.n_embd % self.n_head:
            raise ConfigError(
                "GPTConfig: n_head must divide n_embd, found n_head={n_head} and "
                "n_embd={n_embd} (remainder {rest}); choose another pair",
                n_head=self.n_head,
                n_embd=self.n_embd,
                rest=self.n_embd % self.n_head,
            )

    @classmethod
    def preset(cls, name: str, **changes: int) -> GPTConfig:
        """The named shape ("tiny", "small", "base", "gpt2") with fields changed by keyword."""
        return cls.from_dict({**PRESETS[_preset(name)], **changes})


def _preset(name: Any) -> str:
    return check_choice("GPTConfig", "preset", name, PRESETS)


# The fields that shape the graph.
SHAPE = tuple(name for name, one in options_of(GPTConfig).items() if one.group == "shape")


@documented
@dataclass(frozen=True)
class TrainConfig(Options):
    """How one phase is trained. Raises ConfigError naming the field, the value and the range."""

    group = "recipe"
    epochs: int = option(10, **_COUNT, doc="passes over the documents; 0 trains nothing")
    batch_tokens: int = option(4096, **_POSITIVE, doc="most tokens of one packed micro-batch")
    grad_accum: int = option(1, **_POSITIVE, help="batches added up in a step")
    lr: float | None = option(
        None,
        **_ABOVE_0,
        flag_maximum=1,
        help="peak learning rate (of a new training that of the optimizer at the model's width)",
        doc="peak learning rate, None for `default_lr`; warmed up over `warmup` steps, then down to"
        " lr * min_lr_ratio at the phase's last step as `schedule` says",
    )
    min_lr_ratio: float = option(
        0.1, **_SHARE, help="share of the peak that the learning rate falls to"
    )
    warmup: int | None = option(
        None,
        **_COUNT,
        help="steps of learning-rate warm-up (own data: by default a tenth of all, at least 1 and "
        "at most 50)",
        doc="steps of warm-up, None for `default_warmup` of the steps in which the rate rises and "
        "falls, or as the phase was begun",
    )
    weight_decay: float = option(0.1, minimum=0.0, doc="AdamW's weight decay, of the matrices")
    beta1: float = option(0.9, **_BELOW_1, doc="decay of AdamW's first moment")
    beta2: float = option(0.95, **_BELOW_1, doc="decay of AdamW's second moment")
    eps: float = option(1e-8, **_ABOVE_0, doc="AdamW's epsilon")
    clip: float = option(
        1.0, minimum=0.0, doc="global gradient norm is scaled down to this; 0 never clips"
    )
    dropout: float = option(0.0, **_BELOW_1, help="dropout probability")
    val_fraction: float = option(0.0, **_BELOW_1, help="share of the documents held out")
    patience: int = option(
        0,
        **_COUNT,
        help="evaluations without a lower held-out loss before it stops, 0 never",
        doc="evaluations without improvement before the phase stops; 0 never stops early. It needs "
        "held-out documents, which also restore the best weights",
    )
    seed: int = option(0, **_COUNT, doc="seed of shuffling and dropout")
    max_steps: int = option(
        0,
        **_COUNT,
        group="budget",
        help="most steps of a phase (in all, where it is resumed), 0 for no bound",
    )
    max_minutes: float = option(
        0.0,
        minimum=0.0,
        group="budget",
        help="most minutes of a phase (in all, where it is resumed), 0 for no bound",
        doc="most minutes of the phase, 0 for no bound; neither budget changes the schedule, so a "
        "phase can go on after it as if there had been none",
    )
    freeze: tuple[str, ...] = option(
        (),
        group="finetune",
        metavar="PATTERN",
        help="parameters left as they are while fine-tuning, such as 'h.0.*'; repeatable",
        doc="parameter-name patterns (fnmatch) that are not trained",
    )
    join_dialogues: int = option(
        1,
        **_POSITIVE,
        doc="dialogues joined at random into one document, up to this many (1 never joins)",
    )
    recompute: bool = option(
        False,
        help="less memory: compute activations again in the backward pass, a tenth to a fifth "
        "slower",
        doc="keep only the blocks' outputs and compute the rest again in the backward pass: about "
        "a third less memory for activations of a small model, far less for a deep one, the same "
        "bits",
    )
    optimizer: str | None = option(
        None,
        choices=OPTIMIZERS,
        help="muon for the matrices of the layers and AdamW for the rest (the default); adamw for "
        "all (that of LoRA)",
        doc='"muon": orthogonal updates of the blocks\' matrices with `momentum`, AdamW for the '
        'rest; "adamw": AdamW for all; None: the one with which the phase was begun, of a new one '
        "muon, or adamw where lora_rank is given",
    )
    momentum: float = option(0.95, **_BELOW_1, doc="Muon's momentum")
    embedding_lr: float | None = option(
        None,
        **_ABOVE_0,
        flag_maximum=1e6,
        help="learning rate of the embeddings as a multiple of the others' (by default 3 with "
        "muon, 1 with adamw)",
        doc="learning rate of the embeddings as a multiple of lr; None for 3 with muon and 1 with "
        "adamw, or as the phase was begun",
    )
    schedule: str = option(
        "cosine",
        choices=SCHEDULES,
        help="how the learning rate falls; wsd stays, then falls linearly",
        doc='"cosine", "linear", "constant" (which stays at lr) or "wsd": warm-up, stay at lr, '
        "fall linearly over the last part `decay_share` of the steps",
    )
    schedule_steps: int = option(
        0, **_COUNT, help="steps in which the learning rate falls, 0 for those of all epochs"
    )
    decay_share: float = option(
        0.2, **_SHARE, open_below=True, help="share of the steps of wsd in which it falls"
    )
    label_smoothing: float = option(
        0.0,
        **_BELOW_1,
        help="share of each target spread over the vocabulary, 0 for none",
        doc="share of a target's probability that is spread over all tokens; the losses of "
        "training are then of that, the held-out ones are not",
    )
    ema: float = option(
        0.0,
        **_BELOW_1,
        help="keep a moving average of the weights, such as 0.999; 0 for none",
        doc="the moving average of the weights keeps this much of itself a step; it is what is "
        "evaluated and what the phase ends with. 0 keeps none",
    )
    too_long: str = option(
        "cut",
        choices=TOO_LONG,
        recorded=(WINDOWS,),
        group="corpus",
        help="texts and dialogues longer than the context: cut them, leave them out, or end with "
        "an error (by default cut)",
        doc='what becomes of documents longer than the context: "cut" cuts texts anywhere and '
        'dialogues between turns (see cgpt/corpus/splitting.py), "drop" leaves them out, "error" '
        'refuses them; "windows" cuts dialogues anywhere too, as in runs of before there was a '
        "choice",
    )
    loss_on: str | None = option(
        None,
        choices=LOSS_ON,
        doc='which tokens of dialogues carry loss: "all", "answers" (with their <eos>), None for '
        "all in pre-training and the answers in fine-tuning; of texts all do",
    )
    lora_rank: int = option(
        0,
        **_COUNT,
        group="finetune",
        help="fine-tune a LoRA adapter of rank N only, 0 for none; --out holds it alone",
        doc="rank of the two matrices by which each matrix of `lora_layers` is changed, lora_alpha "
        "/ lora_rank times their product, while all weights stay; AdamW trains them. 0 trains the "
        "weights themselves",
    )
    lora_alpha: float = option(
        16.0,
        **_ABOVE_0,
        flag_maximum=1e6,
        group="finetune",
        help="the adapter is multiplied by F / rank (16)",
        doc="the adapter is multiplied by lora_alpha / lora_rank",
    )
    lora_layers: tuple[str, ...] = option(
        ("h.*",),
        group="finetune",
        metavar="PATTERN",
        help="matrices that are adapted, repeatable ('h.*')",
        doc="patterns (fnmatch) of the matrices that are adapted",
    )
    eval_every: int = option(
        0, **_COUNT, help="steps between two evaluations, 0 for one after each epoch"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "TrainConfig"
        if self.lora_rank and self.optimizer not in (None, "adamw"):
            raise ConfigError(
                "{owner}: lora_rank={rank} is trained by adamw, found optimizer {value}; "
                "leave one of the two out",
                owner=owner,
                rank=self.lora_rank,
                value=shown(self.optimizer),
            )
        if self.lora_rank and self.freeze:
            raise ConfigError(
                "{owner}: lora_rank={rank} leaves all weights as they are, so there is "
                "nothing to freeze; choose by lora_layers",
                owner=owner,
                rank=self.lora_rank,
            )

    def require_validation(self, phase: str, own: bool) -> None:
        """Raises ConfigError where evaluations have nothing to look at, or two things.

        own  whether there are validation documents beside those that are trained on
        """
        if own and self.val_fraction:
            raise ConfigError(
                "{phase}: found validation documents and val_fraction={fraction}; give one "
                "of the two",
                phase=Phrase(phase),
                fraction=self.val_fraction,
            )
        for name, value in (("patience", self.patience), ("eval_every", self.eval_every)):
            if value and not own and not self.val_fraction:
                raise ConfigError(
                    "{phase}: {name}={value} needs held-out documents to look at; set "
                    "val_fraction above 0 or give validation documents",
                    phase=Phrase(phase),
                    name=name,
                    value=value,
                )

    def learns_all(self, phase: str) -> bool:
        """Whether every token of a dialogue carries loss in "pretrain" or "finetune"."""
        return (self.loss_on or ("all" if phase == "pretrain" else "answers")) == "all"

    def resolved(
        self, width: int, begun: Mapping[str, Any] | None = None, steps: int = 0
    ) -> TrainConfig:
        """The same with an optimizer, learning rates and, given the steps, a warm-up.

        width  n_embd of the model
        begun  optimizer, embedding_lr and warmup with which the phase was begun, where it was
        steps  in which the rate rises and falls; 0 where that is not known yet
        """
        width = check_int("TrainConfig.resolved", "width", width, 1)
        if begun is not None:
            expect("TrainConfig.resolved", begun, Mapping, "settings by name")
        steps = check_int("TrainConfig.resolved", "steps", steps, 0, (1 << 63) - 1)
        begun = begun or {}
        optimizer = self.optimizer or (
            "adamw" if self.lora_rank else begun.get("optimizer", "muon")
        )
        embeddings = self.embedding_lr or begun.get("embedding_lr", EMBEDDING_RATES[optimizer])
        warmup = self.warmup
        if warmup is None and steps:
            warmup = begun.get("warmup", default_warmup(steps))
        return replace(
            self,
            optimizer=optimizer,
            embedding_lr=embeddings,
            warmup=warmup,
            lr=self.lr or default_lr(optimizer, width),
        )


def default_warmup(steps: int) -> int:
    """Steps of warm-up in a schedule of so many: a tenth, at least 1, at most 50, never all."""
    return min(max(1, steps // 10), MOST_WARMUP, max(0, steps - 1))


def default_lr(optimizer: str, width: int) -> float:
    """The peak learning rate for a model of this width (n_embd); wider ones learn more slowly.

    It falls with the width, as Adam's steps have to. Source: Yang et al. 2022, arXiv:2203.03466,
    table 8.
    """
    return LEARNING_RATES[optimizer] * min(1.0, TUNED_WIDTH / width)


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


def _mix_pairs(owner: str, name: str, mix: Any) -> tuple[tuple[str, float], ...]:
    """Pairs of a path and a weight, also of a mapping. Raises ConfigError for anything else."""
    try:
        pairs = tuple(
            (os.fspath(path), float(weight))
            for path, weight in (mix.items() if isinstance(mix, Mapping) else mix)
        )
    except (TypeError, ValueError):
        raise ConfigError(
            "RunConfig: mix must be pairs of a path and a weight, found {value}",
            value=shown(mix, 200),
        ) from None
    for path, weight in pairs:
        if not 0 <= weight <= MAX_MIX:
            raise ConfigError(
                "RunConfig: the weight of {path} in mix must be between 0 and 1000, found {value}",
                path=path,
                value=shown(weight),
            )
    return pairs


def _paths(owner: str, name: str, value: Any) -> tuple[str, ...]:
    return tuple(path_list(f"{owner}: {name}", value))


def _path(owner: str, name: str, value: Any) -> str:
    return path_text(f"{owner}: {name}", value)


def _vocabulary(owner: str, name: str, value: Any) -> str:
    """A kind of vocabulary or the path of one. Raises ConfigError for anything else."""
    if not isinstance(value, str) or not (
        value in KINDS or value.lower().endswith((".json", ".bin"))
    ):
        raise ConfigError(
            "RunConfig: tokenizer must be {known}, or a .json or .bin file that holds a "
            "vocabulary, found {value}",
            known=list(KINDS),
            value=shown(value),
        )
    return value


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
        **_SHARE,
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
        0.0, **_SHARE, help="only tokens at least F times as likely as the likeliest, 0 for all"
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


@documented
@dataclass(frozen=True)
class RunConfig(Options):
    """What a run trains, and how.

    n_layer, n_head, n_embd, n_ff and block_size change the preset's where they are not None, as
    does vocab_size. pretrain_train and finetune_train say how the phases are trained; their seed
    becomes `seed`. Raises ConfigError naming the field that is wrong.
    """

    pretrain: tuple[str, ...] = option(
        (),
        check=_paths,
        metavar="PATH...",
        help="texts: files or folders, several",
        doc="files or folders of pre-training, as given; () skips the phase",
    )
    chat: tuple[str, ...] = option(
        (),
        check=_paths,
        metavar="PATH...",
        help="dialogues: files or folders, several",
        doc="files or folders of fine-tuning, as given; () skips the phase",
    )
    validation: tuple[str, ...] = option(
        (),
        check=_paths,
        metavar="PATH...",
        help="documents to evaluate on and not to train on: files or folders, several",
        doc="files or folders of documents that both phases are evaluated on and not trained on: "
        "each on those of the kinds (texts, dialogues) that it trains on",
    )
    init: str = option(
        "",
        check=_path,
        group="model",
        metavar="MODEL",
        help="begin with the weights and vocabulary of this model",
        doc='file of a model whose weights, shape and vocabulary the run begins with; "" for fresh '
        "ones, as preset, vocab_size and tokenizer say",
    )
    preset: str = option(
        "small",
        choices=tuple(PRESETS),
        check=lambda owner, name, value: _preset(value),
        group="shape",
        help="size of the model",
    )
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    n_ff: int | None = None
    block_size: int | None = None
    vocab_size: int | None = None
    tokenizer: str = option(
        "words",
        check=_vocabulary,
        group="model",
        metavar="words|chars|bpe|FILE",
        help="kind of vocabulary (words by default), or a .json or .bin that holds one",
    )
    keep_duplicates: bool = option(
        False,
        group="corpus",
        help="keep exact duplicates (left out by default)",
        doc="whether exact duplicates among a phase's documents are trained on too",
    )
    skip_invalid: bool = option(
        False,
        group="rows",
        help="leave out rows that cannot be used (by default they are listed, and that is the end)",
        doc="whether rows that cannot be used are left out instead of refused",
    )
    plain_text: tuple[str, ...] = option(
        (),
        check=_paths,
        doc="files or folders whose strings are texts even where they look like dialogues",
    )
    suffixes: tuple[str, ...] = option(
        (), doc="those of the files that folders are read for; () for all that are known"
    )
    mix: tuple[tuple[str, float], ...] = option(
        (),
        check=_mix_pairs,
        group="corpus",
        metavar="PATH=F",
        help="take the data at PATH F times an epoch (a fraction takes a part, another one each "
        "epoch); repeatable",
        doc="(path, weight): how often an epoch takes what lies there, once where it is not named; "
        "of a fraction another part each epoch",
    )
    seed: int = option(
        0,
        **_COUNT,
        group="recipe",
        help="seed of all that is random",
        doc="of the weights, and of the shuffling and dropout of both phases",
    )
    pretrain_train: TrainConfig = field(default_factory=TrainConfig)
    finetune_train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pretrain_train", "finetune_train"):
            value = getattr(self, name)
            if isinstance(value, dict):
                value = TrainConfig.from_dict(value)
            if not isinstance(value, TrainConfig):
                raise ConfigError(
                    "RunConfig: {name} must be a TrainConfig, found {value}",
                    name=name,
                    value=shown(value),
                )
            object.__setattr__(self, name, replace(value, seed=self.seed))
        self.shape()
        for name in ("pretrain", "finetune"):
            files, train = self.phase(name)
            if files and train.epochs:
                train.require_validation(name, bool(self.validation))
        for name in SHAPE if self.init else ():
            if getattr(self, name) is not None:
                raise ConfigError(
                    "RunConfig: init names a model, which has its own shape, found "
                    "{name}={value}; leave one of the two out",
                    name=name,
                    value=getattr(self, name),
                )

    def shape(self) -> GPTConfig:
        """The model's shape, with the most tokens that its vocabulary may have."""
        changes = {name: getattr(self, name) for name in (*SHAPE, "vocab_size")}
        return GPTConfig.preset(
            self.preset, **{name: value for name, value in changes.items() if value is not None}
        )

    def phase(self, name: str) -> tuple[tuple[str, ...], TrainConfig]:
        """(paths, TrainConfig) of "pretrain" or "finetune"."""
        return (
            (self.pretrain, self.pretrain_train)
            if name == "pretrain"
            else (self.chat, self.finetune_train)
        )

    def data(self, name: str) -> tuple[str, ...]:
        """The paths of "pretrain", "finetune" or "validation"."""
        return self.validation if name == "validation" else self.phase(name)[0]

    def resolved(self, width: int) -> RunConfig:
        """The same with all that is named that the phases leave open.

        width  n_embd of the model
        """
        phases = {"pretrain": self.pretrain_train, "finetune": self.finetune_train}
        return self.with_phases(
            {
                name: replace(
                    train.resolved(width), loss_on="all" if train.learns_all(name) else "answers"
                )
                for name, train in phases.items()
            }
        )

    def with_phases(self, phases: Mapping[str, TrainConfig]) -> RunConfig:
        """The same run with other settings for the phases that are named."""
        return replace(
            self,
            pretrain_train=phases.get("pretrain", self.pretrain_train),
            finetune_train=phases.get("finetune", self.finetune_train),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready."""
        values = asdict(self)
        for value in (values, values["pretrain_train"], values["finetune_train"]):
            value.update((key, list(one)) for key, one in value.items() if isinstance(one, tuple))
        return values
