"""A process that ends with its first result: `python -m cgpt.bench.first SIDE [FOLDER]`.

cgpt, torch, torch-malloc, torch-compile  one training step at S
llama-cpp                                 one token after a prompt of 16, of FOLDER/model.gguf
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import sys

from cgpt.bench.shapes import SHAPES, random_batch


def train_cgpt() -> None:
    """One step, as a program of a user makes it."""
    from cgpt.models.gpt2 import GPT
    from cgpt.optim.adamw import AdamW

    shape = SHAPES["S"]
    gpt = GPT(shape.config(), seed=0)
    optimizer = AdamW(gpt)
    gpt.forward(*random_batch(shape))
    gpt.backward()
    optimizer.step(lr=1e-4, clip=1.0)


def train_torch(compiled: bool) -> None:
    """The same in PyTorch, with its default AdamW."""
    import torch

    from cgpt.bench.torch_side import build

    shape = SHAPES["S"]
    model = build(shape.config())
    loss = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    ids, targets = (torch.from_numpy(part).long() for part in random_batch(shape))
    loss(ids, targets).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def token_llama(folder: str) -> None:
    """One token of llama.cpp."""
    import os

    from cgpt.bench.decoders import first_token

    first_token(folder, int(os.environ["OMP_NUM_THREADS"]))


def main(side: str, *more: str) -> None:
    """Do the one thing."""
    if side == "cgpt":
        train_cgpt()
    elif side == "llama-cpp":
        token_llama(*more)
    else:
        train_torch(side == "torch-compile")


if __name__ == "__main__":
    main(*sys.argv[1:])
