"""Block: what a GPT is a stack of; with recompute it makes its activations twice."""

from __future__ import annotations

import math

from cgpt.config import GPTConfig
from cgpt.nn.activations import GELU
from cgpt.nn.arena import Floats
from cgpt.nn.arrays import Ints
from cgpt.nn.attention import CausalAttention
from cgpt.nn.layer import Layer, Step
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.residual import Residual
from cgpt.nn.workspace import Workspace


class Block(Layer):
    """One transformer block: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, index: int) -> None:
        C, F = config.n_embd, config.n_ff
        # Scaled so that the stream's variance does not grow with depth (GPT-2, section 2.3).
        out = 0.02 / math.sqrt(2 * config.n_layer)
        self.attn = Residual(
            C,
            2 * index + 1,
            ln=LayerNorm(C),
            c_attn=Linear(C, 3 * C),
            heads=CausalAttention(C, config.n_head, index),
            c_proj=Linear(C, C, std=out),
        )
        self.mlp = Residual(
            C,
            2 * index + 2,
            ln=LayerNorm(C),
            c_fc=Linear(C, F),
            gelu=GELU(F),
            c_proj=Linear(F, C, std=out),
        )
        self.mlp.always = True

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        workspace.block = self.name if workspace.recompute else ""
        super().plan(workspace)
        workspace.block = ""

    def forward(self, x: Floats, step: Step, rows: Ints | None = None) -> Floats:
        """y (N, C); of the last block, whose rows no other will see, (R, C) for rows (R,)."""
        self.x = x
        return self.mlp.forward(self.attn.forward(x, step, rows), step)

    def again(self, step: Step) -> None:
        """Make what backward reads again, after other blocks have used the same buffers."""
        self.mlp.enter(self.attn.forward(self.x, step), step)

    def backward(self, dy: Floats, step: Step) -> Floats:
        return self.attn.backward(self.mlp.backward(dy, step), step)
