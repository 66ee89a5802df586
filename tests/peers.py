"""The same model in PyTorch, through transformers; used by tests marked `peer` and by fixtures."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgpt.config import GPTConfig

# Their attribute -> our parameter name. Their Conv1D keeps matrices as (fan_in, fan_out).
_LAYERS = {
    "ln_1": "attn.ln",
    "attn.c_attn": "attn.c_attn",
    "attn.c_proj": "attn.c_proj",
    "ln_2": "mlp.ln",
    "mlp.c_fc": "mlp.c_fc",
    "mlp.c_proj": "mlp.c_proj",
}


def our_name(theirs: str) -> str:
    """cgpt's name of a transformers GPT-2 parameter."""
    name = theirs.removeprefix("transformer.")
    if not name.startswith("h."):
        return name
    _, index, rest = name.split(".", 2)
    layer, kind = rest.rsplit(".", 1)
    return f"h.{index}.{_LAYERS[layer]}.{kind}"


def ours(tensor: Any, name: str) -> np.ndarray:
    """A tensor of theirs in our orientation."""
    array = tensor.detach().cpu().numpy()
    return array.T.copy() if ".c_" in name and name.endswith(".weight") else array.copy()


def random_gpt2(config: GPTConfig, seed: int, dtype: str = "float32") -> Any:
    """A transformers GPT-2 of this shape with random weights, none of them zero or one."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_inner=config.n_ff,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(getattr(torch, dtype)).eval()


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """All parameters by our names, in our orientation."""
    return {
        our_name(name): ours(parameter, our_name(name))
        for name, parameter in model.named_parameters()
    }


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    """All gradients by our names, in our orientation."""
    return {
        our_name(name): ours(parameter.grad, our_name(name))
        for name, parameter in model.named_parameters()
    }


def loss_of(model: Any, ids: np.ndarray, targets: np.ndarray) -> Any:
    """Mean cross-entropy over targets that are not -1."""
    import torch

    logits = model(torch.from_numpy(ids.astype(np.int64))).logits
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        torch.from_numpy(targets.astype(np.int64).reshape(-1)),
        ignore_index=-1,
    )


def ten_steps(
    model: Any, ids: np.ndarray, targets: np.ndarray, lr: float, weight_decay: float, clip: float
) -> list[float]:
    """Losses of ten AdamW steps; decay on matrices only, gradients clipped by global norm."""
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=lr,
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
