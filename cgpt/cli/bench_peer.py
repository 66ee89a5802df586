"""The same GPT in PyTorch, in a process of its own that measures when it is told to.

`python -m cgpt.cli.bench_peer SHAPE THREADS` reads lines "prepare train", "prepare decode" and
"measure" on stdin and answers each with one JSON line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import IO, Any, cast

from cgpt.cli.bench import NEW, PROMPT, SHAPES, Shape, random_batch, repeated
from cgpt.errors import CgptError, ConfigError


class TorchPeer:
    """The other process; a context manager. Raises ConfigError where torch is not installed."""

    name = "torch"

    def __init__(self, shape: str, threads: int) -> None:
        if find_spec("torch") is None:
            raise ConfigError("bench: the peer torch is not installed; pip install 'cgpt[peers]'")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cgpt.cli.bench_peer", shape, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> TorchPeer:
        return self

    def __exit__(self, *error: object) -> None:
        cast(IO[str], self.process.stdin).close()
        self.process.wait()

    def _ask(self, line: str) -> Any:
        stdin, stdout = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        try:
            stdin.write(line + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise CgptError("bench: the peer torch ended with an error (shown above)")
        return json.loads(answer)

    def prepare(self, what: str) -> None:
        """Build the model and warm up."""
        self._ask(f"prepare {what}")

    def measure(self) -> float:
        """One repeat, in the unit of the measurement."""
        return float(self._ask("measure"))


def build(shape: Shape) -> Any:
    """nn.Module: GPT-2 graph of that shape with a tied head, weights N(0, 0.02)."""
    import torch
    from torch import nn
    from torch.nn import functional

    config = shape.config()
    C, H = config.n_embd, config.n_head

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.c_fc, self.c_out = nn.Linear(C, config.n_ff), nn.Linear(config.n_ff, C)

        def forward(self, x: Any, cache: Any = None, start: int = 0) -> Any:
            B, T, _ = x.shape
            q, k, v = (part.view(B, T, H, C // H).transpose(1, 2)
                       for part in self.c_attn(self.ln_1(x)).split(C, dim=2))
            if cache is not None:
                cache[0][:, :, start:start + T], cache[1][:, :, start:start + T] = k, v
                k, v = cache[0][:, :, :start + T], cache[1][:, :, :start + T]
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
            x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, C))
            return x + self.c_out(functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = nn.Embedding(config.vocab_size, C)
            self.wpe = nn.Embedding(config.block_size, C)
            self.blocks = nn.ModuleList(Block() for _ in range(config.n_layer))
            self.ln_f = nn.LayerNorm(C)
            for name, weight in self.named_parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(weight)

        def forward(self, ids: Any, cache: Any = None, start: int = 0) -> Any:
            x = self.wte(ids) + self.wpe(torch.arange(start, start + ids.shape[1]))
            for i, block in enumerate(self.blocks):
                x = block(x, None if cache is None else cache[i], start)
            return functional.linear(self.ln_f(x), self.wte.weight)

    torch.manual_seed(0)
    return Model()


def train_rate(shape: Shape) -> Callable[[], float]:
    """Tokens a second of whole training steps, eager."""
    import torch
    from torch.nn import functional

    model = build(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8,
                                  weight_decay=0.1)
    ids, targets = (torch.from_numpy(part).long() for part in random_batch(shape))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(ids)
        functional.cross_entropy(logits.view(-1, shape.vocab_size), targets.view(-1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step()
    measure, _ = repeated(step)
    return lambda: shape.B * shape.T / measure()


def decode_rate(shape: Shape) -> Callable[[], float]:
    """New tokens a second with a preallocated key-value cache, greedy."""
    import torch

    model, config = build(shape).eval(), shape.config()
    size = (1, config.n_head, config.block_size, config.n_embd // config.n_head)

    def generate() -> None:
        with torch.inference_mode():
            cache = [(torch.empty(size), torch.empty(size)) for _ in range(config.n_layer)]
            ids, start = torch.arange(PROMPT)[None], 0
            for _ in range(NEW):
                logits = model(ids, cache, start)
                start += ids.shape[1]
                ids = logits[:, -1:].argmax(-1)

    measure, _ = repeated(generate)
    return lambda: NEW / measure()


def serve(shape: str, threads: int) -> None:
    """Answer lines until stdin ends."""
    import torch

    torch.set_num_threads(threads)
    measure: Callable[[], float] | None = None
    for line in sys.stdin:
        words = line.split()
        if words[0] == "prepare":
            measure = (train_rate if words[1] == "train" else decode_rate)(SHAPES[shape])
            print("true", flush=True)
        elif measure is not None:
            print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
