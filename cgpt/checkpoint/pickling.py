"""Models as bytes in memory, and the copies that pickle, copy and processes make of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgpt.checkpoint import binary_writer
from cgpt.checkpoint.adapter import adapter_of, trained_arena
from cgpt.checkpoint.loading import load
from cgpt.fileio.open_file import BYTES
from cgpt.language_model import LanguageModel
from cgpt.models.quantized import QuantizedModel


def to_bytes(
    llm: LanguageModel, *, optimizer: bool = True, weights: str | None = None, group: int = 64
) -> bytes:
    """See LLM.to_bytes."""
    packed = binary_writer.packed_model(
        llm, BYTES, optimizer=optimizer, weights=weights, group=group, alone=True
    )
    return b"".join(packed.parts())


def reduced(llm: LanguageModel) -> tuple[bytes, dict[str, Any]]:
    """All of a model as bytes of a file, and what a file does not hold."""
    state: dict[str, Any] = {"base": llm.base}
    if isinstance(llm.gpt, QuantizedModel):
        return to_bytes(llm, optimizer=False), {**state, "training": False}
    arena, lora = trained_arena(llm), adapter_of(llm)
    state.update(
        training=bool(llm.trainable.arena.data.flags.writeable), recompute=llm.trainable.recompute
    )
    if lora is not None:
        state["adapter"] = lora.base, lora.base_seen
    if not llm.trainable.arena.clean and arena.grad is not None:  # which says it for an adapter too
        state["gradient"] = arena.grad
    return to_bytes(llm), state


def restored(data: bytes, state: dict[str, Any]) -> LanguageModel:
    """The model that `reduced` took apart, which shares nothing with it."""
    llm = load(data, training=state["training"])
    llm.base = state["base"]
    if "recompute" in state:
        llm.trainable.recompute = state["recompute"]
    lora = adapter_of(llm)
    if lora is not None:
        lora.base, lora.base_seen = state["adapter"]
    if "gradient" in state:
        llm.trainable.gradients()
        arena = trained_arena(llm)
        np.copyto(arena.require_grad(), state["gradient"])
        llm.trainable.arena.clean = arena.clean = False
    return llm
