"""The shape of a model: GPTConfig and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cgpt.config.declaration import Options, documented, option, options_of
from cgpt.errors import ConfigError, shown
from cgpt.validation import plain

# Shapes by name. vocab_size is the most the tokenizer may learn; a small corpus gives fewer.
PRESETS: dict[str, dict[str, int]] = {
    "tiny": dict(n_layer=2, n_head=2, n_embd=64, n_ff=256, vocab_size=1024, block_size=128),
    "small": dict(n_layer=2, n_head=8, n_embd=256, n_ff=1024, vocab_size=3000, block_size=256),
    "base": dict(n_layer=4, n_head=8, n_embd=512, n_ff=768, vocab_size=3000, block_size=256),
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768, n_ff=3072, vocab_size=50257, block_size=1024),
}


KINDS = ("words", "chars", "bpe")  # of a vocabulary


WEIGHT_DTYPES = ("float32", "float16", "int8")  # of a model's matrices, in memory and in files


# Generous limits that keep every size product far inside 63 bits.
MAX_VOCAB_SIZE = 1 << 24


MAX_BLOCK_SIZE = 1 << 20


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
    name = plain(name)
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(
            "GPTConfig: unknown preset {value}; known: {known}",
            value=shown(name),
            known=list(PRESETS),
        )
    return name


# The fields that shape the graph.
SHAPE = tuple(name for name, one in options_of(GPTConfig).items() if one.group == "shape")
