"""`cgpt tokenizer train`, `encode` and `inspect`."""

from __future__ import annotations

import time
from typing import Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, LazyGroup, OneOf, option
from cgpt.cli.output_paths import Target, check_apart
from cgpt.cli.ui.data_report import read_files
from cgpt.cli.ui.description import one_line
from cgpt.cli.ui.layout import columns, output_width
from cgpt.cli.ui.streams import echo, print_json, read_stdin
from cgpt.cli.ui.terminal import notify
from cgpt.config import KINDS, GPTConfig
from cgpt.locale import N_, t
from cgpt.tokenizers.statistics import text_statistics, token_text, vocabulary_statistics

DEFAULT_OUT = "exports/tokenizer.json"
SUMMARIES = {
    "train": N_("Learn a vocabulary from files and save it."),
    "encode": N_("Turn a text (stdin by default) into tokens: an id and a token a line."),
    "inspect": N_("Show what is in a vocabulary and, with files, what their text becomes."),
}
LABELS = {
    "out": N_("out"),
    "path": N_("path"),
    "kind": N_("kind"),
    "tokens": N_("tokens", "vocabulary"),
    "words": N_("words", "vocabulary"),
    "lengths": N_("length (characters): words"),
    "first": N_("first", "vocabulary"),
    "longest": N_("longest"),
    "text_characters": N_("characters of text"),
    "text_bytes": N_("bytes of text"),
    "text_tokens": N_("tokens of text"),
    "characters_per_token": N_("characters a token"),
    "bytes_per_token": N_("bytes a token"),
    "byte_tokens": N_("share of single bytes"),
    "unused": N_("words not used"),
    "seconds": N_("seconds"),
}


@click.group(
    "tokenizer",
    cls=LazyGroup,
    summaries=SUMMARIES,
    module=__name__,
    help="FILE is a vocabulary or a model.",
)
def tokenizer() -> None:
    """Vocabularies by themselves."""


@click.command("tokenizer train", cls=Command)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@option(
    "--kind",
    type=OneOf(KINDS),
    default="words",
    help="kind of vocabulary: words, characters, byte pairs",
)
@flags.flag(GPTConfig, "vocab_size", default=8192)
@flags.out(default=DEFAULT_OUT)
@flags.rows
@flags.overwrite
@flags.as_json
def train(
    paths: tuple[str, ...],
    kind: str,
    vocab_size: int,
    out: str,
    skip_invalid: bool,
    as_text: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    from cgpt.tokenizers.tokenizer import Tokenizer

    check_apart({"--out": out}, paths)
    Target(out, overwrite=overwrite)
    notify(t("Reading the data, learning the vocabulary..."))
    texts = read_files(paths, skip_invalid, as_text).texts()
    began = time.perf_counter()
    found = Tokenizer.train(texts, vocab_size, kind)
    seconds = time.perf_counter() - began
    found.save(out)
    result = {
        "out": out,
        **vocabulary_statistics(found),
        **text_statistics(found, texts),
        "seconds": seconds,
    }
    show(result, as_json)
    return 0


@click.command("tokenizer encode", cls=Command)
@click.argument("file")
@click.argument("text", required=False, metavar="[TEXT]", type=flags.Text(empty=True))
@flags.as_json
def encode(file: str, text: str | None, as_json: bool) -> int:
    from cgpt.tokenizers.tokenizer import Tokenizer

    found = Tokenizer.load(file)
    text = read_stdin(typed=True) if text is None else text
    ids = found.encode(text)
    pieces = found.token_bytes()
    tokens = [token_text(pieces[token]) for token in ids]
    if as_json:
        print_json(
            {
                "ids": ids,
                "tokens": tokens,
                "characters": len(text),
                "bytes": len(text.encode("utf-8", "surrogatepass")),
            }
        )
        return 0
    for token, shown in zip(ids, tokens, strict=True):
        echo(f"{token}\t{visible(shown)}")
    return 0


@click.command("tokenizer inspect", cls=Command)
@click.argument("file")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@flags.rows
@flags.as_json
def inspect(
    file: str, paths: tuple[str, ...], skip_invalid: bool, as_text: bool, as_json: bool
) -> int:
    from cgpt.tokenizers.tokenizer import Tokenizer

    found = Tokenizer.load(file)
    result = {"path": file, **vocabulary_statistics(found)}
    if paths:
        result.update(text_statistics(found, read_files(paths, skip_invalid, as_text).texts()))
    show(result, as_json)
    return 0


def show(result: dict[str, Any], as_json: bool) -> None:
    """The result as JSON, or as two columns."""
    if as_json:
        print_json(result)
        return
    rows = []
    for name, value in result.items():
        if name in ("first", "longest"):
            value = " ".join(visible(word) for word in value)
        elif isinstance(value, dict):
            value = ", ".join(f"{key}: {one:,}" for key, one in value.items())
        rows.append((t(LABELS[name]), f"{value:,}" if isinstance(value, int) else one_line(value)))
    for line in columns(rows, output_width()):
        echo(line)


def visible(text: str) -> str:
    """Blanks as signs."""
    return text.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥").replace(" ", "␣")
