"""What is said of training data: what was read, changed, left out and cannot be used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cgpt.cli.ui.progress import phase_name
from cgpt.cli.ui.terminal import notify
from cgpt.corpus.invalid_rows import ROW
from cgpt.errors import Phrase
from cgpt.locale import N_, localized, t
from cgpt.training.data_summary import FIRST
from cgpt.training.recipe import data_files, local_data

if TYPE_CHECKING:
    from cgpt.corpus.invalid_rows import InvalidRow, InvalidRows, InvalidRowsError
    from cgpt.corpus.reader import Corpus, FileReport
    from cgpt.corpus.sources import Source
    from cgpt.corpus.splitting import TooLong
    from cgpt.training.run import TrainingRun


KINDS = {
    "json": N_("broken JSON"),
    "csv": N_("broken table"),
    "encoding": N_("not UTF-8"),
    "repeated_key": N_("repeated key"),
    "too_large": N_("too large"),
    "form": N_("unknown form"),
    "type": N_("wrong type"),
    "part": N_("not text"),
    "role": N_("unknown role"),
    "order": N_("turns out of order"),
    "empty": N_("empty message"),
}
CHANGED = {
    "tool_turns": N_("turns of tools left out: {n}"),
    "joined_answers": N_("answers joined that stood around them: {n}"),
    "openings": N_("answers before the first question left out: {n}"),
    "unanswered": N_("last questions without an answer left out: {n}"),
}


def say_invalid(error: InvalidRowsError) -> None:
    """On stderr: how many rows of which kinds, and the first of them; of one, what to do."""
    if len(error.rows) == 1:
        if not error.skipping:
            notify(t("option: --skip-invalid; cgpt data PATH... lists all of them"))
        return
    for line in listing(error.rows, error.counts):
        notify(line)


def listing(
    rows: Sequence[InvalidRow], counts: Mapping[str, int], most: int | None = FIRST
) -> list[str]:
    """How many rows of which kinds, then a line for each: all of them where most is None."""
    total = sum(counts.values())
    shown = [t("invalid rows: {n} ({kinds})", n=f"{total:,}", kinds=by_kind(counts))]
    shown += ["  " + localized(Phrase(ROW, **row.fields())) for row in rows[:most]]
    if len(shown) <= total:
        shown.append("  " + t("... and {n} more", n=f"{total - len(shown) + 1:,}"))
    return shown


def by_kind(counts: Mapping[str, int]) -> str:
    """The kinds of faults with their counts, in one order."""
    from cgpt.corpus.records import FAULTS

    return ", ".join(f"{t(KINDS[kind])} {counts[kind]:,}" for kind in FAULTS if counts.get(kind))


def change_lines(changes: Mapping[str, int]) -> list[str]:
    """What reading left out or joined in items that are kept, with counts."""
    from cgpt.corpus.records import CHANGES

    return [t(CHANGED[name], n=f"{changes[name]:,}") for name in CHANGES if changes.get(name)]


EVERY = 5.0  # seconds between lines about a long preparation


class Preparing:
    """Called with the characters read so far: a line on stderr every few seconds."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, characters: int) -> None:
        if time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            notify(t("{n} characters read...", n=f"{characters:,}"))


def repaired(entry: object, names: Sequence[str]) -> str:
    """What was found damaged in a cache entry: a few of its files by name."""
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return t(
        "the cache {path} had damaged files ({files}); they were made again from the data",
        path=str(entry),
        files=some,
    )


def skip_reason(reason: str) -> str:
    """Why a file was skipped, in the language of this run."""
    if reason.startswith("not training data"):
        return t("not training data by its name; name the file itself to read it")
    if reason.startswith("not of the kinds"):
        return t("files of this kind were not read when the run was begun")
    return t("not .json, .jsonl, .txt, .csv, .tsv or .parquet")


def left_out(files: Iterable[FileReport], invalid: Iterable[InvalidRows]) -> list[str]:
    """The lines about rows that are changed, and about those left out and the first of them."""
    from cgpt.corpus.invalid_rows import merged

    said = [
        "  " + t("{path}: {what}", path=file.path, what=change)
        for file in files
        for change in change_lines(file.changes)
    ]
    errors = [one.error() for one in invalid if one]
    if errors:
        both = merged(errors)
        first, *rest = listing(both.rows, both.counts)
        said += [t("left out: {what}", what=first), *rest]
    return said


def read_files(paths: Sequence[str], skip_invalid: bool, as_text: bool) -> Corpus:
    """The data of files; what was left out of them goes to stderr."""
    from cgpt.corpus.reader import read_corpus

    corpus = read_corpus(paths, skip_invalid=skip_invalid, as_text=as_text)
    for line in left_out(corpus.files, [corpus.invalid]):
        notify(line)
    return corpus


def describe_sources(sources: Sequence[Source], say: Callable[[str], object]) -> None:
    """What a training is about to read from: totals, and whatever was left out."""
    files = [file for source in sources for file in source.files]
    used = {os.path.realpath(file.path) for file in files if file.documents or file.dialogues}
    say(
        t(
            "data: {documents} documents, {dialogues} dialogues, {files} files",
            documents=f"{sum(source.n_documents for source in sources):,}",
            dialogues=f"{sum(source.n_dialogues for source in sources):,}",
            files=len(used),
        )
    )
    for file in files:
        if file.dropped:
            say(t("  {path}: {n} left out", path=file.path, n=file.dropped))
        if file.duplicates:
            say(
                t(
                    "  {path}: {n} duplicates left out (--keep-duplicates keeps them)",
                    path=file.path,
                    n=f"{file.duplicates:,}",
                )
            )
    for line in left_out(files, [source.invalid for source in sources]):
        say(line)
    for source in sources:
        if source.repaired:
            say(repaired(source.entry, source.repaired))
        elif source.entry and not source.cached:
            say(t("the tokens are now in the cache: {path}", path=source.entry))
    for file in files:
        if file.skipped:
            say(
                "  "
                + t("{path}: not read ({reason})", path=file.path, reason=skip_reason(file.skipped))
            )


MOST_NOTES = 10  # files of it that are named as not read


def local_notes() -> list[str]:
    """What is said of files in data/ that are not read; nothing where all are."""

    used = {*local_data()}
    others = [
        (
            path,
            skip_reason(skipped)
            if skipped
            else t("data/ has .json files, and only these are read; name others by --data"),
        )
        for path, skipped in data_files()
        if path not in used
    ]
    lines = [
        t("{path}: not read ({reason})", path=path, reason=reason)
        for path, reason in others[:MOST_NOTES]
    ]
    if len(others) > MOST_NOTES:
        lines.append(t("... and {n} more files of data/ not read", n=len(others) - MOST_NOTES))
    return lines + [
        t("no file of data/ can be read: training on the data that comes with cgpt")
    ] * bool(others and not used)


def too_long_line(phase: str, found: TooLong) -> str:
    """What is said of documents longer than the context; "" where there are none."""
    if not found:
        return ""
    values = {
        name: f"{getattr(found, name):,}"
        for name in ("documents", "dialogues", "of", "longest", "parts", "without_loss")
    }
    text = (
        N_(
            "{phase}: {documents} documents and {dialogues} dialogues of {of} "
            "are longer than the context of {longest} tokens and left out: "
            "{without_loss} tokens carry no loss for it (--too-long "
            "cut|drop|error)"
        )
        if found.rule == "drop"
        else N_(
            "{phase}: {documents} documents and {dialogues} dialogues of {of} "
            "are longer than the context of {longest} tokens: cut into {parts} "
            "parts, {without_loss} tokens carry no loss for it (--too-long "
            "cut|drop|error)"
        )
    )
    return t(text, phase=phase_name(phase), **values)


def describe_run(run: TrainingRun, say: Callable[[str], object]) -> None:
    """What was read and what was made of it."""

    describe_sources([*run.sources.values()], say)
    for line in (too_long_line(name, run.too_long(name)) for name in run.phases):
        if line:
            say(line)
    if run.validation is not None:
        counts = {name: len(run.validation_documents(name) or ()) for name in run.phases}
        say(
            t(
                "documents to evaluate on: {n}",
                n=", ".join(f"{phase_name(name)} {count:,}" for name, count in counts.items()),
            )
        )
    tokens = [f"{phase_name(name)} {run.epoch_tokens(name):,}" for name in run.phases]
    say(t("tokens an epoch: {n}", n=", ".join(tokens)))
    llm = run.llm
    say(
        t(
            "model: {parameters} parameters, vocabulary {vocabulary}, context {context}",
            parameters=f"{llm.gpt.n_parameters:,}",
            vocabulary=f"{len(llm.tokenizer):,}",
            context=llm.gpt.config.block_size,
        )
    )
