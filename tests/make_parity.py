"""Writes tests/data/gpt2_parity.npz: a random GPT-2 of transformers and what it computes.

Run by hand where torch and transformers are installed: python tests/make_parity.py
Computed in float64 and stored in float32, so that the fixture has no rounding of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peers

from cgpt.config import GPTConfig

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=24, n_ff=96, vocab_size=61, block_size=20)
LR, WEIGHT_DECAY, CLIP = 1e-3, 0.1, 0.5


def batch(config: GPTConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """ids and targets (3, T); a fifth of the targets is ignored."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, config.vocab_size, (3, config.block_size))
    targets = rng.integers(0, config.vocab_size, ids.shape)
    targets[rng.random(ids.shape) < 0.2] = -1
    return ids.astype(np.int32), targets.astype(np.int32)


def main() -> None:
    import torch

    ids, targets = batch(CONFIG, seed=5)
    model = peers.random_gpt2(CONFIG, seed=7, dtype="float64")
    arrays = {f"weight/{name}": value for name, value in peers.weights_of(model).items()}
    with torch.no_grad():
        arrays["logits"] = model(torch.from_numpy(ids.astype(np.int64))).logits.numpy()
    loss = peers.loss_of(model, ids, targets)
    loss.backward()
    arrays.update({f"grad/{n}": value for n, value in peers.gradients_of(model).items()})
    arrays["losses"] = np.array(peers.ten_steps(model, ids, targets, LR, WEIGHT_DECAY, CLIP))
    arrays.update({f"after/{name}": value for name, value in peers.weights_of(model).items()})
    arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    path = Path(__file__).parent / "data" / "gpt2_parity.npz"
    np.savez_compressed(path, ids=ids, targets=targets, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
