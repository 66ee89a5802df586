"""Fused operations: neighbours whose work is done on what is still in the cache.

Each function of a pass takes the place of a plain layer's forward or backward and gives the same
bits; where it does is found by FUSIONS, one after another, in the operations alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from cgpt import kernels as K
from cgpt.nn.activations import GELU
from cgpt.nn.arrays import Floats
from cgpt.nn.graph import Operation, Value
from cgpt.nn.layer import Step
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.residual import Sum


def fuse_gelu(operations: list[Operation]) -> list[Operation]:
    """A GELU between two Linear layers: the one before writes both its x and its y, the one after
    multiplies dx by the slope and recomputes y on the way, so y need not stay."""
    found, uses, i = list(operations), _uses(operations), 0
    while i + 2 < len(found):
        before, gelu, after = found[i : i + 3]
        if (
            isinstance(before.layer, Linear)
            and isinstance(gelu.layer, GELU)
            and isinstance(after.layer, Linear)
            and all(
                b.inputs == (a.y,) and uses[a.y] == 1 for a, b in ((before, gelu), (gelu, after))
            )
        ):
            found[i : i + 3] = (
                replace(
                    before, forward=partial(linear_gelu, before.layer), outputs=(before.y, gelu.y)
                ),
                replace(
                    after,
                    backward=partial(gelu_linear_backward, after.layer),
                    x=before.y,
                    kept=(before.y,),
                    remade=(gelu.y,),
                ),
            )
        i += 1
    return found


def linear_gelu(linear: Linear, step: Step, x: Floats, y: Floats, activated: Floats) -> None:
    """y = x W^T + b and activated = gelu(y)."""
    bias = None if linear.bias is None else linear.bias.data
    K.linear_forward(x, linear.weight.data, bias, y, None, activated)


def gelu_linear_backward(
    linear: Linear, step: Step, dy: Floats, x: Floats, activated: Floats, dx: Floats
) -> None:
    """dx = dy W gelu'(x); activated = gelu(x), from which the gradients of W and b are made."""
    K.linear_backward_input(dy, linear.weight.data, dx, x, activated)
    linear.add_gradients(step, dy, activated)


def fuse_sum(operations: list[Operation]) -> list[Operation]:
    """A Linear whose y is added to the residual stream adds the stream to it instead."""
    found, uses, i = list(operations), _uses(operations), 0
    while i + 1 < len(found):
        linear, both = found[i : i + 2]
        if (
            isinstance(linear.layer, Linear)
            and isinstance(both.layer, Sum)
            and linear.y is both.inputs[1]
            and uses[linear.y] == 1
        ):
            stream = both.inputs[0]
            found[i : i + 2] = [
                replace(
                    linear,
                    forward=partial(linear_sum, linear.layer),
                    inputs=(*linear.inputs, stream),
                    outputs=both.outputs,
                    y=both.y,
                    skips=(stream,),
                )
            ]
        i += 1
    return found


def linear_sum(linear: Linear, step: Step, x: Floats, stream: Floats, y: Floats) -> None:
    """y = x W^T + b + stream."""
    bias = None if linear.bias is None else linear.bias.data
    K.linear_forward(x, linear.weight.data, bias, y, stream)


def fuse_norm(operations: list[Operation]) -> list[Operation]:
    """A LayerNorm adds dx to the gradient of the stream that it reads; its y, which a Linear reads
    in both passes, is one multiply-add from mean and rstd: it is recomputed and does not stay."""
    reread = {value for one in operations if isinstance(one.layer, Linear) for value in one.kept}
    return [
        replace(
            one,
            add_backward=partial(layernorm_add_backward, one.layer),
            recompute=partial(layernorm_recompute, one.layer) if one.y in reread else None,
        )
        if isinstance(one.layer, LayerNorm)
        else one
        for one in operations
    ]


def layernorm_add_backward(
    norm: LayerNorm, step: Step, dy: Floats, x: Floats, mean: Floats, rstd: Floats, dx: Floats
) -> None:
    """As the plain backward, but dx is added to."""
    weight, mean, rstd = norm.weight, mean.reshape(-1), rstd.reshape(-1)
    K.layernorm_backward(dy, x, weight.data, mean, rstd, dx, weight.grad, norm.bias.grad, True)


def layernorm_recompute(
    norm: LayerNorm, step: Step, x: Floats, mean: Floats, rstd: Floats, y: Floats
) -> None:
    """The y of the forward pass, bit for bit."""
    weight, bias = norm.weight.data, norm.bias.data
    K.layernorm_recompute(x, weight, bias, mean.reshape(-1), rstd.reshape(-1), y)


FUSIONS = (fuse_gelu, fuse_sum, fuse_norm)


def _uses(operations: list[Operation]) -> Counter[Value]:
    """How many operations read each value in the forward pass."""
    return Counter(value for one in operations for value in one.inputs)
