"""How weights are stored in a file: as float32, as float16, or as int8 in groups with a scale."""

from __future__ import annotations

from dataclasses import dataclass

from cgpt.config import WEIGHT_DTYPES
from cgpt.errors import ConfigError, shown
from cgpt.nn.arena import Entry
from cgpt.nn.quantized import GROUPS, weight_dtype
from cgpt.validation import plain


@dataclass(frozen=True)
class Storage:
    """The form of a file's matrices; `group` is the length of a group of int8.

    Raises ConfigError for an unknown form or group.
    """

    weights: str = "float32"
    group: int = 64

    def __post_init__(self) -> None:
        for name in ("weights", "group"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if not isinstance(self.weights, str) or self.weights not in WEIGHT_DTYPES:
            raise ConfigError(
                f"save: unknown form of weights {shown(self.weights)}; "
                f"known: {', '.join(WEIGHT_DTYPES)}"
            )
        if type(self.group) is not int or self.group not in GROUPS:
            raise ConfigError(
                f"save: int8 weights have groups of 32 or 64, found {shown(self.group)}"
            )

    def weight_dtype(self, entry: Entry) -> str:
        """The form in which this tensor is stored."""
        return weight_dtype(entry, self.weights)
