"""What can be measured: which function does it, beside which peers, with which options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cgpt.bench.measure import Measurement, Skip

TORCH = ("torch", "torch-malloc", "torch-compile")
DECODERS = ("torch", "transformers", "llama-cpp", "ctranslate2")


@dataclass(frozen=True)
class Settings:
    """What a measurement is asked for.

    config   name of a shape
    peers    sides to measure beside cgpt
    repeats  of each side
    threads  of each side
    tell     is given the name of a side that cannot take part, and why
    weights  how matrices are stored for decoding
    batch    rows that are decoded together
    rows     of a product; 0 for those of a training batch
    data     files or folders with dialogues; () for the packaged ones
    recompute  whether cgpt computes activations again in the backward pass
    """

    config: str
    peers: tuple[str, ...]
    repeats: int
    threads: int
    tell: Callable[[str, Skip], object]
    weights: str = "float32"
    batch: int = 1
    rows: int = 0
    data: tuple[str, ...] = ()
    recompute: bool = False


class Bench(NamedTuple):
    """Where a measurement is, the options it takes and the peers it can be made beside.

    whole    part of `cgpt bench` without a name
    config   the shape where none is named
    repeats  where no number is given; 0 for the shape's own
    shapes   how many shapes it measures where it has a grid of them, else 0
    """

    place: str
    options: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    whole: bool = False
    config: str = "S"
    repeats: int = 0
    shapes: int = 0

    def run(self, settings: Settings) -> Iterator[Measurement]:
        """Its measurements, as they are made."""
        module, _, name = self.place.partition(":")
        found: Iterator[Measurement] = getattr(import_module(f"cgpt.bench.{module}"), name)(
            settings
        )
        return found


BENCHES = {
    "kernels": Bench("kernels:bench_kernels", ("config",), whole=True),
    "train": Bench("train:bench_train", ("config", "peer", "recompute"), TORCH, whole=True),
    "decode": Bench(
        "decode:bench_decode", ("config", "peer", "weights", "batch"), DECODERS, whole=True
    ),
    "products": Bench("products:bench_products", ("config", "peer", "rows"), TORCH[:1], repeats=5),
    "roofline": Bench("products:bench_roofline", ("config",), repeats=5),
    "save": Bench("save:bench_save", ("config",), whole=True),
    "small": Bench("grids:bench_small", ("peer",), TORCH, repeats=5, shapes=36),
    "sweep": Bench("grids:bench_sweep", ("peer",), TORCH, repeats=3, shapes=12),
    "packing": Bench("packing:bench_packing", ("peer", "data"), TORCH[:2], repeats=3),
    "startup": Bench("startup:bench_startup", ("peer",), (*TORCH, "llama-cpp"), repeats=5),
    "threads": Bench("inside:bench_threads", ("config",), config="M"),
    "bits": Bench("inside:bench_bits", ("config",), repeats=1),
    "share": Bench("inside:bench_share", ("config",)),
}
