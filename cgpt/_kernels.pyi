"""Types of the compiled kernels (`_kernels.pyx` and `kernels/*.pxi`, where the details are).

Every instruction set has these names. Arrays are C-contiguous; the caller allocates what is
written; a wrong shape is a ValueError that names the array.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Floats: TypeAlias = NDArray[np.float32]
_Integers: TypeAlias = NDArray[np.int32]

def set_num_threads(n: int) -> None:
    """Threads that kernels use from now on, at least 1; without OpenMP it stays 1."""

def get_num_threads() -> int:
    """Threads that kernels use."""

def has_openmp() -> bool:
    """Whether the kernels were built with OpenMP."""

def cpu_level() -> int:
    """What this processor runs: 0 baseline, 1 AVX2 with FMA, 2 AVX-512 F, BW, DQ and VL."""

def vector_length() -> int:
    """float32 lanes of a vector in this module."""

def linear_forward(
    x: _Floats,
    weight: _Floats,
    bias: _Floats | None,
    y: _Floats,
    residual: _Floats | None = None,
    activated: _Floats | None = None,
) -> None:
    """y (N, M) = x (N, K) weight^T (M, K) + bias (M,) + residual; activated = gelu(y)."""

def linear_backward_input(
    dy: _Floats,
    weight: _Floats,
    dx: _Floats,
    preactivation: _Floats | None = None,
    activated: _Floats | None = None,
) -> None:
    """dx (N, K) = dy (N, M) weight (M, K), times gelu'(preactivation); activated = gelu of it."""

def linear_backward_weight(
    dy: _Floats, x: _Floats, dweight: _Floats, dbias: _Floats | None
) -> None:
    """dweight (M, K) += dy^T x and dbias (M,) += the column sums of dy (N, M)."""

def layernorm_forward(
    x: _Floats,
    weight: _Floats,
    bias: _Floats,
    y: _Floats,
    mean: _Floats,
    rstd: _Floats,
    eps: float = 1e-5,
) -> None:
    """y (N, C) = (x - mean) * rstd * weight + bias, row by row; mean and rstd (N,) are written."""

def layernorm_recompute(
    x: _Floats, weight: _Floats, bias: _Floats, mean: _Floats, rstd: _Floats, y: _Floats
) -> None:
    """y (N, C) of layernorm_forward, recomputed from its mean and rstd."""

def layernorm_backward(
    dy: _Floats,
    x: _Floats,
    weight: _Floats,
    mean: _Floats,
    rstd: _Floats,
    dx: _Floats,
    dweight: _Floats,
    dbias: _Floats,
    add: bool = False,
) -> None:
    """dx (N, C), which may be dy, is overwritten; dweight and dbias (C,) are added to."""

def gelu_forward(x: _Floats, y: _Floats) -> None:
    """y (n,) = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); y may be x."""

def gelu_backward(dy: _Floats, x: _Floats, dx: _Floats) -> None:
    """dx (n,) = dy * gelu'(x); dx may be dy."""

def relu_forward(x: _Floats, y: _Floats) -> None:
    """y (n,) = max(x, 0), NaN where x is; y may be x."""

def relu_backward(dy: _Floats, x: _Floats, dx: _Floats) -> None:
    """dx (n,) = dy where x > 0, else 0; dx may be dy."""

def residual_forward(x: _Floats, branch: _Floats, y: _Floats) -> None:
    """y (n,) = x + branch; y may be either."""

def dropout(x: _Floats, y: _Floats, p: float, key: int) -> None:
    """y (n,) = x / (1 - p) where kept, 0 with probability p; the key names the mask."""

def attention_forward(
    qkv: _Floats, offsets: _Integers, n_head: int, out: _Floats, lse: _Floats
) -> None:
    """out (N, C), lse (H, N): causal attention of qkv (N, 3C) inside each document."""

def attention_backward(
    dout: _Floats,
    qkv: _Floats,
    out: _Floats,
    lse: _Floats,
    offsets: _Integers,
    n_head: int,
    dqkv: _Floats,
) -> None:
    """dqkv (N, 3C) from dout (N, C); out and lse are what attention_forward wrote."""

def attention_cached(
    qkv: _Floats, keys: _Floats, values: _Floats, start: int, out: _Floats
) -> None:
    """out (n, C) of n new rows at position `start`; their keys and values join the cache
    (H, T, D)."""

def embedding_forward(
    ids: _Integers, positions: _Integers, wte: _Floats, wpe: _Floats, y: _Floats
) -> None:
    """y (N, C) = wte[ids] + wpe[positions]."""

def embedding_backward(
    dy: _Floats, ids: _Integers, positions: _Integers, dwte: _Floats, dwpe: _Floats | None
) -> None:
    """dwte[ids] += dy and dwpe[positions] += dy (N, C); repeated rows add up."""

def gather_rows(x: _Floats, rows: _Integers, y: _Floats) -> None:
    """y (R, C) = x[rows]."""

def scatter_rows(dy: _Floats, rows: _Integers, dx: _Floats) -> None:
    """dx (N, C) = 0, then dx[rows] = dy (R, C); rows without repeats."""

def cross_entropy(
    logits: _Floats,
    targets: _Integers,
    losses: _Floats,
    scale: float,
    gradient: bool = True,
    smoothing: float = 0,
    weights: _Floats | None = None,
) -> None:
    """losses (N,); logits (N, V) become scale * weight * (softmax - wanted); target -1: ignored."""

def adamw(
    data: _Floats,
    grad: _Floats,
    m: _Floats,
    v: _Floats,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    clip_factor: float,
    decay_end: int,
) -> None:
    """One AdamW step over flat arrays (n,); decay before decay_end only; grad becomes zero."""

def muon(
    data: _Floats,
    grad: _Floats,
    m: _Floats,
    matrices: NDArray[np.int64],
    lr: float,
    beta: float,
    weight_decay: float,
    clip_factor: float,
) -> None:
    """One Muon step of the matrices at (offset, rows, columns) of flat arrays (n,)."""

def axpby(data: _Floats, u: _Floats, rate: float, decay: float) -> None:
    """data (n,) = decay data - rate u."""

def sum_of_squares(x: _Floats) -> float:
    """The sum of x * x."""

def roofline_multiply_add(
    ends: _Floats, rounds: int, factor: float = 0.5, term: float = 1.0
) -> float:
    """Multiply-adds in registers, a task an element of ends (tasks,); the operations done."""

def roofline_read(x: _Floats, sums: _Floats) -> None:
    """Read x (n,) once in parts; sums (parts,) are their sums."""

def argmax(x: _Floats) -> int:
    """Index of the largest of x (V,), the lowest where several are; -1 where none can be."""

def apply_penalties(
    scores: _Floats,
    ids: _Integers,
    counts: _Integers,
    repetition: float,
    presence: float,
    frequency: float,
) -> None:
    """Lower scores (V,) at the tokens of ids (n,); counts (V,) are zeros before and after."""

def sample(
    scores: _Floats, temperature: float, top_k: int, top_p: float, min_p: float, u: float
) -> int:
    """The token of scores (V,) into whose share u in [0, 1) falls; -1 where none can be."""

def top_logprobs(scores: _Floats, ids: _Integers, logprobs: _Floats) -> int:
    """ids and logprobs (k,) of the k largest of scores (V,); how many there are, -1 for none."""

class TokenSampler:
    """How tokens are sampled: the most likely (temperature 0), or as `sample` says; none of
    banned (n,)."""

    def __init__(
        self, V: int, temperature: float, top_k: int, top_p: float, min_p: float, banned: _Integers
    ) -> None: ...
    def sample(self, scores: _Floats, u: NDArray[np.float64] | None, tokens: _Integers) -> None:
        """tokens (R,), written: one for each row of scores (R, V); -1 where none can be."""

class Decoder:
    """The operations of a graph, bound to weights that stay where they are.

    A matrix is float32, float16 or (int8 values, float32 scales, group); a norm (weight, bias, eps)
    or None; a product (norm, matrix, bias, activation, adds); attention an index of the cache.
    """

    def __init__(
        self,
        n_head: int,
        embedding: Any,
        positions: _Floats,
        operations: Sequence[Any],
        norm: Any,
        head: Any,
    ) -> None: ...
    def run(
        self,
        ids: _Integers,
        positions: _Integers,
        sequences: _Integers,
        keys: _Floats,
        values: _Floats,
        logits: _Floats,
        position_ids: _Integers | None = None,
        sampler: TokenSampler | None = None,
        u: NDArray[np.float64] | None = None,
        tokens: _Integers | None = None,
    ) -> None:
        """Append R tokens to sequences whose caches are (S, L, H, T, D); logits (n, V) behind the
        last n of them, and tokens (n,) sampled from those."""
    def decode_n(
        self,
        ids: _Integers,
        positions: _Integers,
        keys: _Floats,
        values: _Floats,
        logits: _Floats,
        sampler: TokenSampler,
        u: NDArray[np.float64] | None = None,
    ) -> int:
        """Append ids[0] to the one sequence, sample what follows, append that, and so on: ids
        (n + 1,) is filled. How many were appended: fewer than n where nothing can be sampled."""
