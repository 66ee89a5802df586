"""The same GPT in PyTorch, written as its users would for speed.

Scaled dot-product attention with is_causal, gradients set to None, and of the fused AdamW and the
plain one whichever is faster here. `compiled` runs model and loss through torch.compile.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.products import operands
from benchmarks.peers.weights import IN_TORCH, Stored, make
from cgpt.bench.measure import Decoded, Skip, decoding, repeated, seconds_of
from cgpt.bench.shapes import NEW, SHAPES, Shape, random_batch, random_prompts
from cgpt.config import GPTConfig

DIALOGUES = 16  # of a padded batch


def block_of(config: GPTConfig) -> Any:
    """nn.Module: one transformer block; x (B, T, C), keys and values go into the cache."""
    from torch import nn
    from torch.nn import functional

    C, H, F = config.n_embd, config.n_head, config.n_ff

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.c_fc, self.c_out = nn.Linear(C, F), nn.Linear(F, C)

        def forward(self, x: Any, cache: Any = None, start: int = 0) -> Any:
            B, T, _ = x.shape
            q, k, v = (
                part.view(B, T, H, C // H).transpose(1, 2)
                for part in self.c_attn(self.ln_1(x)).split(C, dim=2)
            )
            if cache is not None:
                cache[0][:, :, start : start + T], cache[1][:, :, start : start + T] = k, v
                k, v = cache[0][:, :, : start + T], cache[1][:, :, : start + T]
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
            x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, C))
            return x + self.c_out(functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))

    return Block()


def build(config: GPTConfig) -> Any:
    """nn.Module: GPT-2 graph of that shape with a tied head, weights N(0, 0.02).

    model(ids, targets)              mean cross-entropy; a target of -1 is ignored
    model.logits(ids, cache, start)  (B, V) after the last of ids (B, T), whose keys and values
                                     go into the cache behind `start`
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = nn.Embedding(config.vocab_size, config.n_embd)
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
            self.blocks = nn.ModuleList(block_of(config) for _ in range(config.n_layer))
            self.ln_f = nn.LayerNorm(config.n_embd)
            for name, weight in self.named_parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(weight)

        def hidden(self, ids: Any, cache: Any = None, start: int = 0) -> Any:
            x = self.wte(ids) + self.wpe(torch.arange(start, start + ids.shape[1]))
            for i, block in enumerate(self.blocks):
                x = block(x, None if cache is None else cache[i], start)
            return x

        def logits(self, ids: Any, cache: Any, start: int) -> Any:
            x = self.hidden(ids, cache, start)[:, -1]
            return functional.linear(self.ln_f(x), self.wte.weight)

        def forward(self, ids: Any, targets: Any) -> Any:
            logits = functional.linear(self.ln_f(self.hidden(ids)), self.wte.weight)
            return functional.cross_entropy(
                logits.view(-1, config.vocab_size), targets.view(-1), ignore_index=-1
            )

    torch.manual_seed(0)
    return Model()


def optimizer_of(model: Any) -> Any:
    """AdamW over the gradients that the model has: the fused one where it is the faster."""
    import torch

    def make(fused: bool) -> Any:
        return torch.optim.AdamW(
            model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=fused
        )

    times = {}
    for fused in (False, True):
        optimizer = make(fused)
        optimizer.step()
        times[fused] = min(seconds_of(optimizer.step) for _ in range(3))
        del optimizer
    return make(times[True] < times[False])


def training_step(model: Any, compiled: bool, batch: tuple[Any, Any]) -> Callable[..., Any]:
    """A function that makes one whole step: of `batch`, or of the (ids, targets) it is given."""
    import torch

    loss = torch.compile(model) if compiled else model
    try:
        loss(*batch).backward()
    except Exception as error:
        if not compiled:
            raise
        reason = " ".join(str(error).split())[:200]
        raise Skip(f"torch.compile failed ({reason})") from error
    optimizer = optimizer_of(model)

    def step(ids: Any = batch[0], targets: Any = batch[1]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(ids, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def train(shape: dict[str, int], seconds: float, compiled: bool = False) -> Callable[[], float]:
    """Task: tokens a second of whole training steps."""
    import torch

    form = Shape(**shape)
    ids, targets = (torch.from_numpy(part).long() for part in random_batch(form))
    measure = repeated(training_step(build(form.config()), compiled, (ids, targets)), seconds)
    return lambda: form.tokens / measure()


def decode(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: greedy decoding with a preallocated key-value cache."""
    import torch

    if weights == "int8":
        raise Skip("PyTorch is not measured with int8 weights")
    form, kind = Shape(**shape), getattr(torch, weights)
    config = form.config()
    model = build(config).eval()
    Stored(folder).fill_torch(model, IN_TORCH, "", "blocks")
    model = model.to(kind)
    torch.set_num_threads(threads)
    size = (batch, config.n_head, config.block_size, config.n_embd // config.n_head)
    prompts = torch.from_numpy(random_prompts(form, batch)).long()

    def generate() -> np.ndarray:
        with torch.inference_mode():
            cache = [
                (torch.empty(size, dtype=kind), torch.empty(size, dtype=kind))
                for _ in range(config.n_layer)
            ]
            ids, start, found = prompts, 0, []
            for _ in range(NEW):
                found.append(model.logits(ids, cache, start).argmax(-1, keepdim=True))
                start, ids = start + ids.shape[1], found[-1]
            return np.asarray(torch.cat(found, dim=1))

    return decoding(generate, seconds)


def padded_batches(folder: Path) -> Iterator[tuple[Any, Any]]:
    """(ids, targets) of 16 dialogues each in random order, padded to the longest: 0 and -1."""
    import torch

    stored = np.load(folder / "samples.npz")
    ends = np.cumsum(stored["lengths"])
    order = np.random.default_rng(0).permutation(len(ends))
    ids, targets = stored["ids"], stored["targets"]
    for first in range(0, len(order), DIALOGUES):
        rows = [(ends[i] - stored["lengths"][i], ends[i]) for i in order[first : first + DIALOGUES]]
        longest = max(end - start for start, end in rows)
        batch = np.zeros((2, len(rows), longest), np.int64)
        batch[1] = -1
        for row, (start, end) in enumerate(rows):
            batch[0, row, : end - start], batch[1, row, : end - start] = (
                ids[start:end],
                targets[start:end],
            )
        yield torch.from_numpy(batch[0]), torch.from_numpy(batch[1])


def padded(folder: str) -> Callable[[], dict[str, Any]]:
    """Task: an epoch over padded batches: {"seconds", "steps", "tokens", "counted"}."""
    place = Path(folder)
    config = GPTConfig.from_dict(json.loads((place / "config.json").read_text("utf-8")))
    batches = list(padded_batches(place))
    step = training_step(build(config), False, batches[0])
    step()
    totals = {
        "steps": len(batches),
        "tokens": sum(ids.numel() for ids, _ in batches),
        "counted": sum(int((targets >= 0).sum()) for _, targets in batches),
    }

    def epoch() -> dict[str, Any]:
        return {"seconds": seconds_of(lambda: [step(*batch) for batch in batches]), **totals}

    return epoch


def product(name: str, rows: int, depth: int, columns: int, seconds: float) -> Callable[[], float]:
    """Task: GFLOP/s of one product of a linear layer."""
    import torch

    x, weight, y = (torch.from_numpy(part) for part in operands(rows, depth, columns))
    actions = {
        "forward": lambda: torch.matmul(x, weight.T, out=y),
        "backward_input": lambda: torch.matmul(y, weight, out=x),
        "backward_weight": lambda: weight.addmm_(y.T, x),
    }
    measure = repeated(actions[name], seconds)
    return lambda: 2e-9 * rows * depth * columns / measure()


def first_step(compiled: bool = False) -> None:
    """One training step at S with the default AdamW, as a program of a user makes it."""
    import torch

    shape = SHAPES["S"]
    model = build(shape.config())
    loss = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    ids, targets = (torch.from_numpy(part).long() for part in random_batch(shape))
    loss(ids, targets).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


TASKS = {"make": make, "train": train, "decode": decode, "padded": padded, "product": product}

if __name__ == "__main__":
    first_step(compiled="compiled" in sys.argv)
