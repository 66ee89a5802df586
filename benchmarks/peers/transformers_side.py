"""transformers: `generate` of GPT2LMHeadModel."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.peers.weights import IN_TRANSFORMERS, Stored, make
from cgpt.bench.measure import Decoded, Skip, decoding
from cgpt.bench.shapes import NEW, PROMPT, Shape, random_prompts


def decode(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: greedy decoding."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    if weights == "int8":
        raise Skip("PyTorch is not measured with int8 weights")
    form = Shape(**shape)
    config = form.config()
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_inner=config.n_ff,
            eos_token_id=None,
            bos_token_id=None,
        )
    ).eval()
    Stored(folder).fill_torch(model, IN_TRANSFORMERS, "transformer.", "h", turned=True)
    model = model.to(getattr(torch, weights))
    torch.set_num_threads(threads)
    prompts = torch.from_numpy(random_prompts(form, batch)).long()
    mask = torch.ones_like(prompts)

    def generate() -> np.ndarray:
        with torch.inference_mode():
            found = model.generate(
                prompts, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0
            )
        return np.asarray(found[:, PROMPT:])

    return decoding(generate, seconds)


TASKS = {"make": make, "decode": decode}
