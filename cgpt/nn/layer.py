"""Layer: what every layer is; the layers lie in files by concern (linear.py, norms.py ...).

A layer declares parameters and sub-layers in `__init__`, asks for buffers in `plan`, and from
then on allocates nothing. N is the number of rows (tokens of all documents of a batch), C the
width. `dy` is read-only except in Residual; gradients of parameters that are trained are added to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cgpt.nn.arena import Floats, Parameter
from cgpt.nn.arrays import Ints
from cgpt.nn.kv_cache import CacheView
from cgpt.nn.workspace import Workspace


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
    cache: CacheView | None = None


class Layer:
    """What every layer has: parameters and sub-layers by attribute, and three passes."""

    name = ""
    kind: str  # what files call a layer of a graph; a name of the format, never changed

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
