"""`cgpt inspect`: token by token what a model expected, and where its attention went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from cgpt.cli import flags
from cgpt.cli.app import Command, Number, option
from cgpt.cli.output_paths import Target
from cgpt.cli.ui.layout import cut, output_width, text_width, wrap
from cgpt.cli.ui.pictures import lettering, save_picture
from cgpt.cli.ui.streams import echo, print_json
from cgpt.cli.ui.terminal import plain_number
from cgpt.errors import DataError
from cgpt.evaluation.predictions import prediction_values
from cgpt.locale import N_, t

if TYPE_CHECKING:
    from cgpt.evaluation.predictions import Prediction
    from cgpt.llm import LLM


# Labels of the picture
ATTENTION = {
    "key": N_("attended to"),
    "query": N_("from"),
    "weight": N_("attention weight"),
    "layer": N_("layer {layer}, mean of heads"),
    "head": N_("layer {layer}, head {head}"),
}
TOKEN_CELLS = 12
VISIBLE = str.maketrans({"\n": "↵", "\t": "⇥", " ": "␣", "\r": "⏎"})


@click.command(
    "inspect",
    cls=Command,
    help="Without TEXT it reads stdin. A map a layer (mean of heads); --layer N: its "
    "heads, with --head N that one alone.",
)
@click.argument("model")
@flags.text
@flags.output
@option("--layer", type=flags.POSITIVE, help="draw the heads of layer N, from 1")
@option("--head", type=flags.POSITIVE, help="draw head N of the layer alone, from 1")
@option(
    "--top", type=Number(1, 100, whole=True), default=5, help="how many alternatives are listed"
)
@flags.font
@flags.overwrite
@flags.threads
@flags.as_json
def inspect(
    model: str,
    text: str | None,
    output: str | None,
    layer: int | None,
    head: int | None,
    top: int,
    font: str | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    from cgpt.evaluation.predictions import predictions
    from cgpt.llm import load_model_auto

    check_places(output, layer, head)
    if output is not None:
        Target(output, overwrite=overwrite)
    text = flags.text_or_stdin(text)
    llm = load_model_auto(model, training=False)
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode(text)]
    if len(ids) < 2 or len(ids) > llm.config.block_size:
        raise DataError(
            "inspect: the text has {count} tokens, expected 1 to {most}, as many as the "
            "context holds; change it",
            count=len(ids) - 1,
            most=llm.config.block_size - 1,
        )
    found = predictions(llm.gpt, ids, top)
    if as_json:
        print_json({"model": model, "text": text, **prediction_values(llm, found)})
    else:
        width = output_width(99)
        for line in [*table(llm, found, width), *wrap(total(text, found), width)]:
            echo(line)
    if output is not None:
        draw(llm, ids, output, layer, head, font)
    return 0


def check_places(output: str | None, layer: int | None, head: int | None) -> None:
    """Options of the picture need one, and a head needs its layer."""
    ctx = click.get_current_context()
    if output is None and (layer or head):
        raise click.UsageError(t("--layer and --head need a picture: -o FILE"), ctx=ctx)
    if head and not layer:
        raise click.UsageError(t("--head needs --layer"), ctx=ctx)


def shown(word: str) -> str:
    """A token as a cell: blanks and line ends are visible."""
    return "".join(char if char.isprintable() else "·" for char in word.translate(VISIBLE))


def table(llm: LLM, found: Sequence[Prediction], width: int) -> list[str]:
    """A line a token; as many alternatives as fit."""
    words = llm.tokenizer.words
    heads = [t("token"), t("prob."), t("rank"), t("most likely")]
    rows = []
    for one in found:
        last = one.id < 0
        token = t("(next)") if last else shown(words[one.id])
        if text_width(token) > TOKEN_CELLS:
            token = cut(token, TOKEN_CELLS - 1)[0] + "…"
        options_ = [
            f"{shown(words[i] if i < len(words) else '')} {p:.1%}" for i, p in one.alternatives
        ]
        rows.append(
            (
                [token, "" if last else percent(one.probability), "" if last else str(one.rank)],
                options_,
            )
        )
    sizes = [
        max(text_width(row[i]) for row in [heads, *(cells for cells, _ in rows)]) for i in range(3)
    ]
    lines = [cut(_cells(heads[:3], sizes) + "  " + heads[3], width)[0]]
    for cells, options_ in rows:
        line = _cells(cells, sizes)
        for one_option in options_:
            if text_width(line) + 2 + text_width(one_option) > width:
                break
            line += "  " + one_option
        lines.append(line.rstrip())
    return lines


def _cells(cells: Sequence[str], sizes: Sequence[int]) -> str:
    line = cells[0] + " " * (sizes[0] - text_width(cells[0]))
    for cell, size in zip(cells[1:], sizes[1:], strict=True):
        line += " " * (2 + size - text_width(cell)) + cell
    return line


def percent(probability: float) -> str:
    """A probability with as many digits as tell it from nothing, without an exponent."""
    if probability >= 0.001:
        return f"{probability:.1%}"
    if probability < 1e-7:
        return "<0.00001%"
    return f"{plain_number(float(f'{100 * probability:.2g}'))}%"


def total(text: str, found: Sequence[Prediction]) -> str:
    """How well the whole text was expected."""
    nats = -sum(math.log(max(one.probability, 1e-300)) for one in found[:-1])
    return t(
        "{tokens} tokens, {characters} characters: {bits} bits per character",
        tokens=len(found) - 1,
        characters=len(text),
        bits=f"{nats / math.log(2) / max(len(text), 1):.3f}",
    )


def draw(
    llm: LLM,
    ids: Sequence[int],
    output: str,
    layer: int | None,
    head: int | None,
    font_file: str | None,
) -> None:
    """The attention maps: a panel a layer, or the heads of one layer, or one head."""
    from cgpt.plots.figures import attention_figure

    attention = llm.gpt.inspect(np.array(ids)).attention
    n_layer, n_head, *_ = attention.shape
    if not n_layer:  # a graph without attention has nothing to draw
        layer = layer or 1
    for name, value, most in (("--layer", layer, n_layer), ("--head", head, n_head)):
        if value is not None and value > most:
            raise DataError(
                "inspect: {name} {value} is beyond the model, which has {most}; count from 1",
                name=name,
                value=value,
                most=most,
            )
    tokens = [shown(llm.tokenizer.words[i]) for i in ids]
    labels, tokens, font = lettering(ATTENTION, tokens, font_file)
    if layer is None:
        maps = attention.mean(axis=1)
        titles = [labels["layer"].format(layer=i) for i in range(1, n_layer + 1)]
    else:
        heads = range(n_head) if head is None else [head - 1]
        maps = attention[layer - 1, list(heads)]
        titles = [labels["head"].format(layer=layer, head=i + 1) for i in heads]
    save_picture(attention_figure(maps, titles, tokens, labels, font), output, font)
