"""Pictures by matplotlib (the extra `plot`): curves of runs, attention of a text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.errors import CgptError
from cgpt.plots.fonts import Font

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cgpt.training.step_log import Curve, Run

# Colours that people who see red and green alike can tell apart.
# Source: Okabe and Ito 2008, "Color Universal Design".
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SMOOTHED = 60  # means of neighbours that the thick line of a curve runs through
MOST_TOKENS = 64  # tokens whose names stand beside an attention map


def require_matplotlib() -> None:
    """Raises CgptError naming the extra where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CgptError(
            "matplotlib is not installed, which draws the pictures; pip install 'cgpt[plot]'"
        ) from error


def save(figure: Figure, path: str, font: Font) -> None:
    """Write a figure in the format of the suffix, the same bytes for the same figure."""
    import matplotlib

    suffix = Path(path).suffix.lower().lstrip(".")
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    out = io.BytesIO()
    with matplotlib.rc_context(settings(font)):
        figure.savefig(out, format=suffix, metadata=metadata[suffix])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(out.getvalue())


def settings(font: Font) -> dict[Any, Any]:
    """What a figure must be made and drawn with."""
    return {
        "font.family": font.family,
        "axes.unicode_minus": False,
        "svg.hashsalt": "cgpt",
        "savefig.dpi": 150,
    }


def curves_figure(
    runs: Sequence[Run], names: Sequence[str], words: dict[str, str], font: Font
) -> Figure:
    """One panel a phase, in each a curve a run; names are those of the runs as shown."""
    import matplotlib
    from matplotlib.figure import Figure

    phases = list(dict.fromkeys(curve.phase for run in runs for curve in run.curves))
    with matplotlib.rc_context(settings(font)):
        figure = Figure(figsize=(1 + 5.5 * len(phases), 4.5), layout="constrained")
        panels = figure.subplots(1, len(phases), squeeze=False)[0]
        for axes, phase in zip(panels, phases, strict=True):
            for i, (run, name) in enumerate(zip(runs, names, strict=True)):
                for curve in run.curves:
                    if curve.phase == phase:
                        label, held_out = words["train"], words["held_out"]
                        if len(runs) > 1:
                            label, held_out = name, f"{name} · {held_out}"
                        _draw(axes, curve, COLOURS[i % len(COLOURS)], label, held_out)
            axes.set_title(words[phase] if phase in words else words["other"])
            axes.set_xlabel(words["step"])
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_ylabel(words["loss"])
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
    return figure


def _draw(axes: Any, curve: Curve, colour: str, label: str, held_out: str) -> None:
    """A thin line of every step, a thick one of means, held-out losses as marks."""
    many = len(curve.steps) > 2 * SMOOTHED
    axes.plot(
        curve.steps,
        curve.losses,
        color=colour,
        linewidth=0.6 if many else 1.6,
        alpha=0.35 if many else 1.0,
        label=None if many else label,
    )
    if many:
        edges = np.linspace(0, len(curve.steps), SMOOTHED + 1).astype(int)
        parts = list(pairwise(edges))
        axes.plot(
            [np.mean(curve.steps[a:b]) for a, b in parts],
            [np.mean(curve.losses[a:b]) for a, b in parts],
            color=colour,
            linewidth=1.8,
            label=label,
        )
    if curve.held_out:
        axes.plot(
            *zip(*curve.held_out, strict=True),
            color=colour,
            linestyle="--",
            marker="o",
            markersize=3.5,
            linewidth=1.0,
            label=held_out,
        )


def attention_figure(
    maps: np.ndarray,
    titles: Sequence[str],
    tokens: Sequence[str],
    words: dict[str, str],
    font: Font,
) -> Figure:
    """Panels of attention weights.

    maps    (n, T, T) float32: from the query (row) to the key (column)
    titles  n; tokens: T, their names beside the maps (left out where there are many)
    """
    import matplotlib
    from matplotlib.figure import Figure

    n, T = len(maps), maps.shape[1]
    across = min(n, 4) if n != 6 else 3
    down = -(-n // across)
    side = min(max(2.4, 0.2 * T + 1.0), 9.0) if n > 1 else min(max(4.5, 0.24 * T + 1.5), 16.0)
    with matplotlib.rc_context(settings(font)):
        figure = Figure(figsize=(across * side + 0.8, down * side + 0.6), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False)
        for i, axes in enumerate(panels.flat):
            if i >= n:
                axes.set_axis_off()
                continue
            axes.imshow(maps[i], cmap="viridis", vmin=0.0, vmax=1.0)
            axes.set_title(titles[i], fontsize=10)
            _name_tokens(axes, tokens, left=i % across == 0, below=i + across >= n)
        panels[down - 1][0].set_xlabel(words["key"])
        panels[0][0].set_ylabel(words["query"])
        figure.colorbar(panels[0][0].images[0], ax=panels, shrink=0.7, label=words["weight"])
    return figure


def _name_tokens(axes: Any, tokens: Sequence[str], *, left: bool, below: bool) -> None:
    size = 8 if len(tokens) <= 24 else 6
    if len(tokens) > MOST_TOKENS:
        return
    axes.set_xticks(range(len(tokens)), tokens if below else [], rotation=90, fontsize=size)
    axes.set_yticks(range(len(tokens)), tokens if left else [], fontsize=size)
