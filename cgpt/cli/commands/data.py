"""`cgpt data`: what files hold and what would be trained on, without training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command
from cgpt.cli.ui.data_report import Preparing, change_lines, listing, repaired, skip_reason
from cgpt.cli.ui.layout import aligned, screen_width, wrap
from cgpt.cli.ui.streams import echo, print_json
from cgpt.cli.ui.terminal import notify
from cgpt.config import TOO_LONG, GPTConfig, RunConfig
from cgpt.locale import N_, t
from cgpt.training.data_summary import context_of, data_summary, invalid_summary

# key of the report: message; a column of nothing but zeros is left out
COUNTS = {
    "documents": N_("documents"),
    "dialogues": N_("dialogues"),
    "characters": N_("characters", "column"),
    "tokens": N_("tokens", "column"),
    "dropped": N_("blank"),
    "duplicates": N_("duplicates"),
    "invalid": N_("invalid"),
    "too_long": N_("too long"),
}


@click.command(
    "data",
    cls=Command,
    help="A large corpus is tokenised into the cache, where a training finds it.",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@flags.flag(RunConfig, "tokenizer", default="words")
@flags.flag(GPTConfig, "vocab_size", default=8192)
@flags.flag(GPTConfig, "block_size", note="256")
@flags.corpus
@flags.threads
@flags.as_json
def data(
    paths: tuple[str, ...],
    tokenizer: str,
    vocab_size: int,
    keep_duplicates: bool,
    skip_invalid: bool,
    as_text: bool,
    too_long: str | None,
    block_size: int | None,
    mix: tuple[tuple[str, float], ...],
    cache: str | None,
    as_json: bool,
) -> int:
    from cgpt.corpus.invalid_rows import InvalidRowsError
    from cgpt.training.run import find_vocabulary, read_sources

    notify(t("Reading the data, learning the vocabulary..."))
    config = RunConfig(
        pretrain=paths,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        keep_duplicates=keep_duplicates,
        skip_invalid=True,
        mix=mix,
        plain_text=paths if as_text else (),
    )
    folder = Path(cache) if cache else None
    try:
        sources = read_sources(config, folder, Preparing())
    except InvalidRowsError as error:  # and nothing else
        if as_json:
            print_json({"files": [], **invalid_summary(error.rows, error.counts)})
        for line in () if as_json else listing(error.rows, error.counts, None):
            echo(line)
        return 1
    report = data_summary(
        sources["pretrain"],
        find_vocabulary(config, sources, folder),
        block_size or context_of(tokenizer),
        too_long or TOO_LONG[0],
    )
    if as_json:
        print_json(report)
    else:
        for line in lines(report, screen_width()):
            echo(line)
        invalid = sources["pretrain"].invalid
        for line in listing(invalid.rows, invalid.counts, None) if invalid else ():
            echo(line)
    return 1 if report["invalid"] and not skip_invalid else 0


def lines(report: dict[str, Any], width: int) -> list[str]:
    """For people: a row a file, the sum, and why files were skipped."""
    from cgpt.cli.ui.data_report import too_long_line
    from cgpt.corpus.splitting import TooLong

    read = [file for file in report["files"] if not file["skipped"]]
    mixed = any(file["weight"] != 1 for file in read)
    counts = {key: label for key, label in COUNTS.items() if report[key]}
    names, folder = short_names([file["path"] for file in read])
    rows = [[folder, *(t(label) for label in counts.values()), *[t("weight")] * mixed]]
    rows += [
        [name, *(f"{file[key]:,}" for key in counts), *[f"{file['weight']:g}"] * mixed]
        for name, file in zip(names, read, strict=True)
    ]
    if len(read) > 1:
        rows.append([t("all"), *(f"{report[key]:,}" for key in counts), *[""] * mixed])
    shown = aligned(rows, width)
    for file in read:
        for change in change_lines(file["changes"]):
            shown += wrap(t("{path}: {what}", path=file["path"], what=change), width)
    for file in report["files"]:
        if file["skipped"]:
            shown += wrap(
                t(
                    "{path}: not read ({reason})",
                    path=file["path"],
                    reason=skip_reason(file["skipped"]),
                ),
                width,
            )
    if report["too_long"]:
        shown += wrap(too_long_line("data", TooLong(**report["lengths"])), width)
    if mixed:
        shown.append(t("tokens an epoch: {n}", n=f"{report['epoch_tokens']:,}"))
    shown.append(
        t("vocabulary: {n} ({kind})", n=f"{report['vocabulary']:,}", kind=report["tokenizer"])
    )
    if report["cache"]:
        known = (
            N_("the tokens were in the cache: {path}")
            if report["cached"]
            else N_("the tokens are now in the cache: {path}")
        )
        shown.append(t(known, path=report["cache"]))
    if report["mended"]:
        shown.append(repaired(report["cache"], report["mended"]))
    return shown


def short_names(paths: Sequence[str]) -> tuple[list[str], str]:
    """The paths without the folder that they share, and that folder ("" for none)."""
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # some are absolute and some are not
        folder = ""
    if not folder:
        return [*paths], ""
    return [os.path.relpath(path, folder) for path in paths], os.path.join(folder, "")
