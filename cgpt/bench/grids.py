"""Training over a grid of shapes: the small steps of small corpora, and a sweep over T and B."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from cgpt.bench import measure
from cgpt.bench.measure import Measurement, Skip, ratio
from cgpt.bench.shapes import Shape
from cgpt.bench.table import Settings
from cgpt.bench.workers import Crew

HEAD = 64  # width of an attention head
MOST_FLOPS = 3e12  # of a step: what takes longer than about half a minute is left out
LOGITS = 4  # copies of the logits that PyTorch holds at once


def grid_shape(width: int, layers: int, vocab_size: int, B: int, T: int) -> Shape:
    """A GPT of this width with four times the width in its MLP."""
    return Shape(layers, width // HEAD, width, 4 * width, vocab_size, T, B)


def bench_small(run: Settings) -> Iterator[Measurement]:
    """Small steps: width 256 and 512, 2 and 4 layers, vocabulary 10,000, B 1-4, T 16-64."""
    yield from over(
        (
            grid_shape(width, layers, 10_000, B, T)
            for width in (256, 512)
            for layers in (2, 4)
            for B in (1, 2, 4)
            for T in (16, 32, 64)
        ),
        run,
    )


def bench_sweep(run: Settings) -> Iterator[Measurement]:
    """T 16 to 1024, B 1 to 32: 4 layers, width 256, vocabulary 8192."""
    yield from over(
        (grid_shape(256, 4, 8192, B, T) for T in (16, 64, 256, 1024) for B in (1, 8, 32)), run
    )


def over(shapes: Iterable[Shape], run: Settings) -> Iterator[Measurement]:
    """Tokens a second at every shape, all sides in turn; the least ratio to each peer."""
    least: dict[str, Measurement] = {}
    with Crew(("cgpt", *run.peers), run.threads, run.tell) as crew:
        for shape in shapes:
            name = f"C{shape.n_embd} L{shape.n_layer} B{shape.B} T{shape.T}"
            try:
                require_room(shape)
            except Skip as reason:
                run.tell(name, reason)
                continue
            details = {"shape": vars(shape), "seconds": measure.LEAST_SECONDS}
            found = crew.measure(dict.fromkeys(crew.names, ("train", details)), run.repeats)
            rates = {
                side: Measurement(name, "tokens/s", values, side)
                for side, values in found.values.items()
            }
            yield from rates.values()
            for side in rates:
                if side != "cgpt":
                    over = ratio(rates["cgpt"], rates[side].values, side)
                    yield over
                    if side not in least or over.median < least[side].median:
                        least[side] = over
    yield from (
        Measurement("least ratio", "x", [one.median], to=side, note=one.name)
        for side, one in least.items()
    )


def require_room(shape: Shape) -> None:
    """Raises Skip for a step that would take too long or too much memory."""
    flops = shape.tokens * shape.token_flops
    if flops > MOST_FLOPS:
        raise Skip(f"a step of {flops / 1e12:.1f} TFLOP takes too long")
    needed = LOGITS * 4.0 * shape.tokens * shape.vocab_size
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free / 2:
            raise Skip(f"a step may need {needed / 1e9:.1f} GB, of which {free / 1e9:.1f} are free")
