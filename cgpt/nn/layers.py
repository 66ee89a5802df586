"""Layers: forward and backward side by side, one readable at a sitting.

A layer declares parameters and sub-layers in `__init__`, asks for buffers in `plan`, and from
then on allocates nothing. N is the number of rows (tokens of all documents of a batch), C the
width. `dy` is read-only except in Residual; gradients of parameters that are trained are added to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cgpt import kernels as K
from cgpt.nn.arena import Floats, Parameter, Workspace
from cgpt.nn.arrays import Ints
from cgpt.nn.kv_cache import KVCache


@dataclass
class Step:
    """What all layers of one pass share.

    offsets    (D + 1,) int32 borders of the documents in the N rows
    positions  (N,) int32 position of each row in its document
    dropout    probability of a zero; `key` names the masks of this step
    cache      keys and values to attend to and to extend, instead of documents
    """

    offsets: Ints
    positions: Ints
    dropout: float = 0.0
    key: int = 0
    cache: KVCache | None = None


class Layer:
    """What every layer has: parameters and sub-layers by attribute, and three passes."""

    name = ""

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Sub-layers with their attribute names, in order of declaration."""
        for key, value in vars(self).items():
            if isinstance(value, Layer):
                yield key, value

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """Parameters of this layer and below, named by the path of attributes to them."""
        self.name = prefix
        for key, value in vars(self).items():
            if isinstance(value, Parameter):
                yield f"{prefix}.{key}", value
        for key, layer in self.children():
            yield from layer.named_parameters(f"{prefix}.{key}")

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        """Take buffers. `slot` is the layer's place in its branch: neighbours never share."""
        for _, layer in self.children():
            layer.plan(workspace)

    def forward(self, x: Floats, step: Step) -> Floats:
        """y (N, ...) from x (N, ...); keeps what backward needs."""
        raise NotImplementedError

    def backward(self, dy: Floats, step: Step) -> Floats:
        """dx from dy, both shaped as in forward; adds to the parameters' gradients."""
        raise NotImplementedError


class Linear(Layer):
    """y = x W^T + b.  x (N, K), W (M, K), b (M,) or none, y (N, M).

    A GELU before or after it is computed in the same pass over the product (see GELU.fuse).
    """

    def __init__(self, fan_in: int, fan_out: int, std: float = 0.02, *, bias: bool = True) -> None:
        self.weight = Parameter(fan_out, fan_in, std=std)
        self.bias = Parameter(fan_out) if bias else None
        self.writes_elsewhere = False  # only ever called through `project`
        self._before: GELU | None = None
        self._after: GELU | None = None

    def children(self) -> Iterator[tuple[str, Layer]]:
        """None: the neighbours belong to the branch."""
        yield from ()

    def fuse(self, before: GELU | None = None, after: GELU | None = None) -> None:
        """Name the GELU whose output is x, or whose input is y."""
        self._before, self._after = before or self._before, after or self._after

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        fan_out, fan_in = self.weight.shape
        if not self.writes_elsewhere:
            self.y = workspace.saved(self.name, f"linear{slot}", fan_out)
        self.dx = workspace.backward(f"d{slot}", fan_in)

    def forward(self, x: Floats, step: Step) -> Floats:
        return self.project(x, self.y[: len(x)])

    def project(self, x: Floats, y: Floats, residual: Floats | None = None) -> Floats:
        """y (N, M), written: x W^T + b + residual (N, M)."""
        self.x = x
        activated = None if self._after is None else self._after.output(y)
        bias = None if self.bias is None else self.bias.data
        K.linear_forward(x, self.weight.data, bias, y, residual, activated)
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        dx = self.dx[: len(dy)]
        if self._before is None:
            K.linear_backward_input(dy, self.weight.data, dx)
        else:  # x is made again on the way: it was not kept
            K.linear_backward_input(dy, self.weight.data, dx, self._before.x, self.x)
        if self.weight.adapter is not None:
            self.weight.adapter(dy, self.x)
        elif self.weight.trained or (self.bias is not None and self.bias.trained):
            K.linear_backward_weight(
                dy, self.x, self.weight.grad, None if self.bias is None else self.bias.grad
            )
        return dx


class LayerNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, row by row.  x, y (N, C).

    In a Residual branch y is not kept: `again` makes it for the backward pass of its reader.
    """

    def __init__(self, C: int, eps: float = 1e-5) -> None:
        self.eps = eps
        self.weight = Parameter(C, fill=1.0)
        self.bias = Parameter(C)
        self.kept = True

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        C = self.weight.shape[0]
        self.y = workspace.saved(self.name, "norm", C) if self.kept else workspace.shared("norm", C)
        self.mean = workspace.saved(self.name, "mean", 1).reshape(-1)
        self.rstd = workspace.saved(self.name, "rstd", 1).reshape(-1)
        self.dx = workspace.backward(f"d{slot}", C)

    def forward(self, x: Floats, step: Step) -> Floats:
        n = len(x)
        self.x, y = x, self.y[:n]
        K.layernorm_forward(
            x, self.weight.data, self.bias.data, y, self.mean[:n], self.rstd[:n], self.eps
        )
        return y

    def again(self) -> None:
        """The y of the last forward, bit for bit, after others have used its buffer."""
        n = len(self.x)
        K.layernorm_again(
            self.x, self.weight.data, self.bias.data, self.mean[:n], self.rstd[:n], self.y[:n]
        )

    def backward(self, dy: Floats, step: Step) -> Floats:
        return self.add_backward(dy, self.dx[: len(dy)], add=False)

    def add_backward(self, dy: Floats, dx: Floats, *, add: bool = True) -> Floats:
        """dx (N, C), added to: the gradient joins that of the stream that the norm reads."""
        n = len(dy)
        K.layernorm_backward(
            dy,
            self.x,
            self.weight.data,
            self.mean[:n],
            self.rstd[:n],
            dx,
            self.weight.grad,
            self.bias.grad,
            add,
        )
        return dx


class GELU(Layer):
    """y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).  x, y (N, F).

    Between two Linear layers it costs no pass over memory of its own: the one before writes y
    while x is in the cache, the one after multiplies its dx by the slope. That one also makes y
    again, so y is not kept.
    """

    def __init__(self, F: int) -> None:
        self.width = F
        self._fused = False

    def fuse(self, before: Linear, after: Linear) -> None:
        """Let the neighbours do the work."""
        before.fuse(after=self)
        after.fuse(before=self)
        self._fused = True

    def output(self, x: Floats) -> Floats:
        """Where y for x (N, F) goes, whoever computes it."""
        self.x = x
        return self.y[: len(x)]

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = (
            workspace.shared("gelu", self.width)
            if self._fused
            else workspace.saved(self.name, "gelu", self.width)
        )
        if not self._fused:
            self.dx = workspace.backward(f"d{slot}", self.width)

    def forward(self, x: Floats, step: Step) -> Floats:
        y = self.output(x)
        if not self._fused:
            K.gelu_forward(x.reshape(-1), y.reshape(-1))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        if self._fused:
            return dy
        dx = self.dx[: len(dy)]
        K.gelu_backward(dy.reshape(-1), self.x.reshape(-1), dx.reshape(-1))
        return dx


class CausalAttention(Layer):
    """out = softmax(q k^T / sqrt(D), causal) v for each head.  x = qkv (N, 3C), y (N, C).

    Documents do not see each other. With a cache the rows go on where it ends.
    """

    def __init__(self, C: int, n_head: int, index: int) -> None:
        self.C = C
        self.n_head = n_head
        self.index = index  # which block of the cache is this layer's

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = workspace.saved(self.name, "attention", self.C)
        self.lse = workspace.saved(self.name, "lse", self.n_head).reshape(-1)
        self.dx = workspace.backward(f"d{slot}", 3 * self.C)

    def forward(self, x: Floats, step: Step) -> Floats:
        n = len(x)
        self.x, y = x, self.y[:n]
        if step.cache is not None:
            K.attention_cached(
                x, step.cache.keys[self.index], step.cache.values[self.index], step.cache.length, y
            )
        else:
            K.attention_forward(x, step.offsets, self.n_head, y, self._lse(n))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        n = len(dy)
        dx = self.dx[:n]
        K.attention_backward(dy, self.x, self.y[:n], self._lse(n), step.offsets, self.n_head, dx)
        return dx

    def _lse(self, n: int) -> Floats:
        return self.lse[: self.n_head * n].reshape(self.n_head, n)


class Dropout(Layer):
    """y = x / (1 - p) where kept, else 0.  The mask is made again from the step's key.

    p is the step's: 0 passes x through untouched.
    """

    def __init__(self, C: int, index: int) -> None:
        self.C = C
        self.index = index  # tells apart the masks of one step

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = workspace.backward("dropped", self.C)

    def forward(self, x: Floats, step: Step) -> Floats:
        if step.dropout == 0:
            return x
        y = self.y[: len(x)]
        # Any odd constant spreads the indices; 2^64 / golden ratio is the usual one.
        key = (step.key + (self.index + 1) * 0x9E3779B97F4A7C15) & (2**64 - 1)
        K.dropout(x.reshape(-1), y.reshape(-1), step.dropout, key)
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        return self.forward(dy, step)


class Residual(Layer):
    """y = x + dropout(branch(x)), the branch being layers in a row.  x, y (N, C).

    The branch begins with a LayerNorm and ends with a Linear: without dropout the latter adds x
    to its product as it writes it, and the former adds its dx to the gradient of the stream.
    One that `narrows` may be asked for some rows of y only; x is whole all the same, since rows
    see each other in the branch.
    """

    def __init__(self, C: int, index: int, ln: LayerNorm, **branch: Layer) -> None:
        self.C = C
        self.ln = ln
        ln.kept = False
        self.always = False  # whether y stays even where blocks are computed again
        self.narrows = False  # whether some rows of y may be asked for
        self.rows: Ints | None = None  # of y, where not all of them were asked for
        self.branch = [ln, *branch.values()]
        vars(self).update(branch)
        last = self.branch[-1]
        if not isinstance(last, Linear):
            raise TypeError(
                f"Residual: the branch ends with a {type(last).__name__}, expected a Linear"
            )
        self.last = last
        last.writes_elsewhere = True
        self.dropout = Dropout(C, index)
        for before, layer, after in zip(
            self.branch, self.branch[1:], self.branch[2:], strict=False
        ):
            if isinstance(layer, GELU) and isinstance(before, Linear) and isinstance(after, Linear):
                layer.fuse(before, after)

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The branch's layers by name; `last` is one of them."""
        yield from ((key, layer) for key, layer in super().children() if key != "last")

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        for place, layer in enumerate(self.branch):
            layer.plan(workspace, place)
        self.dropout.plan(workspace)
        if self.narrows:
            width = self.last.weight.shape[1]
            self.narrow = workspace.saved(self.name, "narrow", width)
            self.whole = workspace.backward("d1", width)
        # Where buffers are shared, x must still not be y: x is that of the other kind of branch.
        self.y = workspace.saved(
            self.name, "stream." + self.name.rpartition(".")[2], self.C, always=self.always
        )

    def enter(self, x: Floats, step: Step) -> Floats:
        """The branch up to its last layer: everything that backward reads, but y."""
        for layer in self.branch[:-1]:
            x = layer.forward(x, step)
        return x

    def forward(self, x: Floats, step: Step, rows: Ints | None = None) -> Floats:
        """y (N, C), or (R, C) for rows (R,)."""
        branch, self.rows = self.enter(x, step), rows
        if rows is not None:  # the norm's y is not needed any more, and made again later
            R = len(rows)
            K.gather_rows(branch, rows, self.narrow[:R])
            K.gather_rows(x, rows, self.ln.y[:R])
            branch, x = self.narrow[:R], self.ln.y[:R]
        y = self.y[: len(x)]
        if step.dropout == 0:
            return self.last.project(branch, y, residual=x)
        branch = self.dropout.forward(self.last.project(branch, y), step)
        K.residual_forward(x.reshape(-1), branch.reshape(-1), y.reshape(-1))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        branch = self.last.backward(self.dropout.backward(dy, step), step)
        if self.rows is not None:
            N = len(step.positions)
            K.scatter_rows(branch, self.rows, self.whole[:N])
            # The norm adds to the stream's gradient, which lies from here on in its own free dx.
            K.scatter_rows(dy, self.rows, self.ln.dx[:N])
            branch, dy = self.whole[:N], self.ln.dx[:N]
        self.ln.again()
        for layer in reversed(self.branch[1:-1]):
            branch = layer.backward(branch, step)
        return self.ln.add_backward(branch, dy)


class InputLayer(Layer):
    """What a graph begins with: y (N, C) of ids (N,).  wte (V, C) is its table."""

    wte: Parameter

    def embed(self, ids: Ints, step: Step) -> Floats:
        """y (N, C) of ids (N,)."""
        raise NotImplementedError


class Embedding(InputLayer):
    """y[n] = wte[ids[n]] + wpe[positions[n]], then dropout.  wte (V, C), wpe (T, C), y (N, C)."""

    def __init__(self, V: int, T: int, C: int, std: float = 0.02) -> None:
        self.wte = Parameter(V, C, std=std)
        self.wpe = Parameter(T, C, std=std)
        self.dropout = Dropout(C, 0)

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """GPT-2 keeps both tables at the top of the graph: no prefix."""
        self.name = prefix
        yield "wte.weight", self.wte
        yield "wpe.weight", self.wpe

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        C = self.wte.shape[1]
        self.y = workspace.saved(self.name, "stream", C)
        self.dropout.plan(workspace)

    def embed(self, ids: Ints, step: Step) -> Floats:
        """y (N, C) of ids (N,)."""
        self.ids, y = ids, self.y[: len(ids)]
        K.embedding_forward(ids, step.positions, self.wte.data, self.wpe.data, y)
        dropped = self.dropout.forward(y, step)
        if dropped is not y:
            y[...] = dropped
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        dy = self.dropout.backward(dy, step)
        if self.wte.trained or self.wpe.trained:
            K.embedding_backward(dy, self.ids, step.positions, self.wte.grad, self.wpe.grad)
        return dy
