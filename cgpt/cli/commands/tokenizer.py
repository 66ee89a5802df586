"""`cgpt tokenizer train`, `encode` and `inspect`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import options
from cgpt.cli.app import Command, LazyGroup, OneOf, option
from cgpt.cli.targets import Target, check_apart
from cgpt.cli.ui.data_report import read_files
from cgpt.cli.ui.description import one_line
from cgpt.cli.ui.layout import columns, output_width
from cgpt.cli.ui.streams import echo, print_json, read_stdin
from cgpt.cli.ui.terminal import tell
from cgpt.config import KINDS, GPTConfig
from cgpt.locale import N_, t

if TYPE_CHECKING:
    from cgpt.tokenizers.tokenizer import Tokenizer

DEFAULT_OUT = "exports/tokenizer.json"
SUMMARIES = {
    "train": N_("Learn a vocabulary from files and save it."),
    "encode": N_("Turn a text (stdin by default) into tokens: an id and a token a line."),
    "inspect": N_("Show what is in a vocabulary and, with files, what their text becomes."),
}
_SHOWN = 12  # words in a row of examples
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
@options.flag(GPTConfig, "vocab_size", default=8192)
@options.out(default=DEFAULT_OUT)
@options.rows
@options.overwrite
@options.as_json
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
    tell(t("Reading the data, learning the vocabulary..."))
    texts = read_files(paths, skip_invalid, as_text).texts()
    began = time.perf_counter()
    found = Tokenizer.train(texts, vocab_size, kind)
    seconds = time.perf_counter() - began
    found.save(out)
    result = {"out": out, **described(found), **measured(found, texts), "seconds": seconds}
    show(result, as_json)
    return 0


@click.command("tokenizer encode", cls=Command)
@click.argument("file")
@click.argument("text", required=False, metavar="[TEXT]", type=options.Text(empty=True))
@options.as_json
def encode(file: str, text: str | None, as_json: bool) -> int:
    from cgpt.tokenizers.tokenizer import Tokenizer

    found = Tokenizer.load(file)
    text = read_stdin(typed=True) if text is None else text
    ids = found.encode(text)
    pieces = found.token_bytes()
    tokens = [shown_as(pieces[token]) for token in ids]
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
@options.rows
@options.as_json
def inspect(
    file: str, paths: tuple[str, ...], skip_invalid: bool, as_text: bool, as_json: bool
) -> int:
    from cgpt.tokenizers.tokenizer import Tokenizer

    found = Tokenizer.load(file)
    result = {"path": file, **described(found)}
    if paths:
        result.update(measured(found, read_files(paths, skip_invalid, as_text).texts()))
    show(result, as_json)
    return 0


def described(found: Tokenizer) -> dict[str, Any]:
    """Kind, number of tokens, words by their length in characters, examples."""
    from cgpt.tokenizers.vocabulary import FIRST_WORD

    tokens = found.token_bytes()[FIRST_WORD:]
    lengths = Counter(map(characters_in, tokens))
    words = [shown_as(token) for token in tokens]
    longest = sorted(tokens, key=characters_in, reverse=True)
    return {
        "kind": found.kind,
        "tokens": len(found),
        "words": len(words),
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        "first": words[:_SHOWN],
        "longest": [shown_as(token) for token in longest[:_SHOWN]],
    }


def characters_in(token: bytes) -> int:
    """Characters of a token; each byte that makes none counts as one."""
    return len(token.decode("utf-8", "replace"))


def shown_as(token: bytes) -> str:
    """A token as text; bytes that make no character as \\x and two digits."""
    return token.decode("utf-8", "backslashreplace")


def measured(found: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """What the texts become: tokens, characters and bytes of text a token, share of byte tokens."""
    import numpy as np

    from cgpt.tokenizers.vocabulary import FIRST_BYTE, FIRST_WORD

    characters = size = 0
    counts = np.zeros(len(found), dtype=np.int64)
    for text in texts:
        characters += len(text)
        size += len(text.encode("utf-8", "surrogatepass"))
        counts += np.bincount(
            np.frombuffer(found.encode_bytes(text), np.int32), minlength=len(found)
        )
    total = int(counts.sum())
    return {
        "text_characters": characters,
        "text_bytes": size,
        "text_tokens": total,
        "characters_per_token": characters / max(total, 1),
        "bytes_per_token": size / max(total, 1),
        "byte_tokens": float(counts[FIRST_BYTE:FIRST_WORD].sum() / max(total, 1)),
        "unused": int((counts[FIRST_WORD:] == 0).sum()),
    }


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
