"""Workspace: the activations of a pass, placed once and used again by every step."""

from __future__ import annotations

import numpy as np

from cgpt.nn.arena import STEP, Floats, aligned

_NOTHING = np.zeros((), np.float32)


class Workspace:
    """Activations of up to `rows` rows, placed once and used again by every step.

    With keep=True (training) every layer has buffers of its own, which the backward pass reads;
    with keep=False (inference) buffers of the same role are one, whatever the number of layers.
    With recompute=True blocks share theirs too, all but their outputs: backward makes what lay in
    them again.
    Buffers are asked for twice: until `place` is called their sizes are only noted (no memory is
    touched), then they are parts of one block, so that the system can give it large pages.
    """

    def __init__(self, rows: int, *, keep: bool, recompute: bool = False) -> None:
        self.rows = rows
        self.keep = keep
        self.recompute = recompute
        self.block = ""  # name of the block that is being planned and will be recomputed
        self._sizes: dict[str, int] = {}
        self._buffers: dict[str, Floats] = {}

    def place(self) -> None:
        """Take the memory for all buffers asked for so far."""
        sizes = {role: -(-size // STEP) * STEP for role, size in self._sizes.items()}
        block, start = aligned(sum(sizes.values())), 0
        for role, size in sizes.items():
            self._buffers[role] = block[start : start + size]
            start += size

    def saved(self, layer: str, role: str, width: int, *, always: bool = False) -> Floats:
        """(rows, width) that stays until the layer's backward pass; shared when not kept.

        With recompute the same layers of all blocks share it, unless it is to stay `always`.
        """
        if not self.keep:
            return self.shared(role, width)
        return self.shared(f"{layer if always else layer.removeprefix(self.block)}.{role}", width)

    def shared(self, role: str, width: int, rows: int | None = None) -> Floats:
        """(rows, width) that only lives until another layer asks for the same role."""
        rows = self.rows if rows is None else rows
        size = rows * width
        if not self._buffers:
            self._sizes[role] = max(size, self._sizes.get(role, 0))
            return np.broadcast_to(_NOTHING, (rows, width))
        return self._buffers[role][:size].reshape(rows, width)

    def backward(self, role: str, width: int) -> Floats:
        """(rows, width) as `shared`, for training; (0, width) where no backward pass comes."""
        return self.shared(role, width, None if self.keep else 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())
