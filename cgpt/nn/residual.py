"""Residual: a branch of layers whose output is added to the stream."""

from __future__ import annotations

from collections.abc import Iterator

from cgpt import kernels as K
from cgpt.nn.activations import GELU
from cgpt.nn.arena import Floats
from cgpt.nn.arrays import Ints
from cgpt.nn.dropout import Dropout
from cgpt.nn.layer import Layer, Step
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.workspace import Workspace


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
                before.after = after.before = layer
                layer.fused = True

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
