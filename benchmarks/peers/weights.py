"""One set of random weights in a plain file that every side can read.

FOLDER/weights.f32 is the arena of a cgpt model; FOLDER/weights.json says where each parameter lies.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cgpt.models.gpt2 import GPT

VALUES, TABLE = "weights.f32", "weights.json"

# The name of one of our parameters in torch_side.py and in transformers, less `.weight`, `.bias`.
IN_TORCH = {
    "attn.ln": "ln_1",
    "attn.c_attn": "c_attn",
    "attn.c_proj": "c_proj",
    "mlp.ln": "ln_2",
    "mlp.c_fc": "c_fc",
    "mlp.c_proj": "c_out",
}
IN_TRANSFORMERS = {
    "attn.ln": "ln_1",
    "attn.c_attn": "attn.c_attn",
    "attn.c_proj": "attn.c_proj",
    "mlp.ln": "ln_2",
    "mlp.c_fc": "mlp.c_fc",
    "mlp.c_proj": "mlp.c_proj",
}


def random_model(shape: dict[str, int]) -> GPT:
    """The same model for every side, none of its weights 0 or 1 throughout."""
    from cgpt.bench.tasks import randomised

    return randomised(shape)


def make(shape: dict[str, int], folder: str, weights: str) -> Callable[[], None]:
    """Task: write both files."""
    store(random_model(shape), Path(folder))
    return lambda: None


def store(gpt: GPT, folder: Path) -> None:
    """Write both files."""
    gpt.arena.data.tofile(folder / VALUES)
    table = {entry.name: [entry.offset, list(entry.shape)] for entry in gpt.arena.entries}
    (folder / TABLE).write_text(json.dumps(table), "utf-8")


class Stored:
    """The parameters in a folder, read one at a time."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / VALUES
        self.table = json.loads((Path(folder) / TABLE).read_text("utf-8"))

    def array(self, name: str) -> np.ndarray:
        """A parameter, matrices as (fan_out, fan_in)."""
        offset, shape = self.table[name]
        return np.fromfile(self.path, np.float32, int(np.prod(shape)), offset=4 * offset).reshape(
            shape
        )

    def fill(self, name: str, target: np.ndarray) -> None:
        """Read a parameter into a C-contiguous float32 array of its shape."""
        offset, shape = self.table[name]
        with open(self.path, "rb") as file:
            file.seek(4 * offset)
            file.readinto(target.reshape(shape).data.cast("B"))

    def fill_torch(
        self, model: Any, names: dict[str, str], prefix: str, blocks: str, turned: bool = False
    ) -> None:
        """Fill a PyTorch module whose blocks are `{blocks}.{i}.` and names[...].

        turned  where it keeps the blocks' matrices as (fan_in, fan_out)
        """
        targets = dict(model.named_parameters())
        for name in self.table:
            layer, _, kind = name.rpartition(".")
            block = layer.startswith("h.")
            if block:
                _, i, part = layer.split(".", 2)
                layer = f"{blocks}.{i}.{names[part]}"
            target = targets[f"{prefix}{layer}.{kind}"].data.numpy()
            if turned and block and target.ndim == 2:
                target[...] = self.array(name).T
            else:
                self.fill(name, target)
