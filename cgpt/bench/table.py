"""What can be measured: which function does it, with which options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cgpt.bench.measure import Measurement, Skip
    from cgpt.bench.workers import Side


@dataclass(frozen=True)
class Settings:
    """What a measurement is asked for.

    config   name of a shape
    repeats  of each side
    threads  of each side
    on_skip  is given the name of a side that cannot take part, and why
    weights  how matrices are stored for decoding
    batch    rows that are decoded together
    recompute  whether cgpt computes activations again in the backward pass
    peers    other sides that are measured beside cgpt, in turn
    """

    config: str
    repeats: int
    threads: int
    on_skip: Callable[[str, Skip], object]
    weights: str = "float32"
    batch: int = 1
    recompute: bool = False
    peers: Mapping[str, Side] = field(default_factory=dict)


class Bench(NamedTuple):
    """Where a measurement is and the options it takes.

    whole    part of `cgpt bench` without a name
    config   the shape where none is named
    repeats  where no number is given; 0 for the shape's own
    shapes   how many shapes it measures where it has a grid of them, else 0
    """

    place: str
    options: tuple[str, ...] = ()
    whole: bool = False
    config: str = "S"
    repeats: int = 0
    shapes: int = 0

    def run(self, settings: Settings) -> Iterator[Measurement]:
        """Its measurements, as they are made."""
        module, _, name = self.place.partition(":")
        function: Callable[[Settings], Iterator[Measurement]]
        function = getattr(import_module(f"cgpt.bench.{module}"), name)
        return function(settings)


BENCHES = {
    "kernels": Bench("kernels:bench_kernels", ("config",), whole=True),
    "train": Bench("train:bench_train", ("config", "recompute"), whole=True),
    "decode": Bench("decode:bench_decode", ("config", "weights", "batch"), whole=True),
    "roofline": Bench("kernels:bench_roofline", ("config",), repeats=5),
    "save": Bench("save:bench_save", ("config",), whole=True),
    "small": Bench("train:bench_small", repeats=5, shapes=36),
    "sweep": Bench("train:bench_sweep", repeats=3, shapes=12),
    "startup": Bench("startup:bench_startup", repeats=5),
    "threads": Bench("train:bench_threads", ("config",), config="M"),
    "bits": Bench("train:bench_bits", ("config",), repeats=1),
    "share": Bench("train:bench_share", ("config",)),
}
