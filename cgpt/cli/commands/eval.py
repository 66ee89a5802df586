"""`cgpt eval`: models on files, side by side; differences; accuracy of answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, Number, option
from cgpt.cli.output_paths import Target, check_apart
from cgpt.cli.ui.data_report import read_files
from cgpt.cli.ui.layout import aligned, columns, output_width, wrap
from cgpt.cli.ui.streams import echo, print_json
from cgpt.cli.ui.terminal import notify, plain_number
from cgpt.config import WEIGHT_DTYPES, SamplingConfig
from cgpt.errors import DataError
from cgpt.evaluation.perplexity import ModelScores, score_files
from cgpt.fileio.text import JsonLines
from cgpt.locale import N_, t

if TYPE_CHECKING:
    from cgpt.corpus.reader import Corpus
    from cgpt.evaluation.answers import Accuracy
    from cgpt.evaluation.perplexity import Difference, EvalResult
    from cgpt.llm import LLM

SECONDS = 5.0  # between lines of progress
NEW_TOKENS = 128  # of an answer


@click.command(
    "eval",
    cls=Command,
    help="Several models are shown side by side; --compare adds the difference and "
    "its 95 % interval, --accuracy lets the model answer the questions of "
    "dialogues.",
)
@click.argument("model")
@click.argument("paths", nargs=-1, required=True, metavar="[MODEL...] PATH...")
@option(
    "--compare",
    multiple=True,
    metavar="MODEL|" + "|".join(WEIGHT_DTYPES),
    help="another model, or another form of this one's weights: shows the difference "
    "from the first model; repeatable",
)
@option(
    "--stride",
    type=Number(1, 1 << 31, whole=True),
    help="texts longer than the context are read in windows; tokens from one to the "
    "next (half the context by default)",
)
@option(
    "--accuracy",
    is_flag=True,
    help="answer the questions of dialogues: how many are exact, how many contain it",
)
@option(
    "--max-questions",
    type=flags.COUNT,
    default=0,
    help="most questions that are answered, 0 for all",
)
@flags.flag(SamplingConfig, "max_new_tokens", note="128")
@option("--answers", metavar="FILE.jsonl", help="write every answer to FILE (implies --accuracy)")
@flags.rows
@flags.overwrite
@flags.weights
@flags.threads
@flags.as_json
def eval(
    model: str,
    paths: tuple[str, ...],
    compare: tuple[str, ...],
    stride: int | None,
    skip_invalid: bool,
    as_text: bool,
    weights: str | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> int:
    models, paths = split_models(model, paths)
    corpora = [(path, read_files([path], skip_invalid, as_text)) for path in paths]
    asked = Asked(**values)
    if asked.answers is not None:
        check_apart({"--answers": asked.answers}, paths)
        Target(asked.answers, overwrite=overwrite)
        answers_file(asked.answers, append=False).close()  # said before the work if not so
    found = [measure(name, load(name, weights), corpora, asked, stride) for name in models]
    for other in compare:
        name, llm = (
            (f"{model} {other}", load(model, other))
            if other in WEIGHT_DTYPES
            else (other, load(other, weights))
        )
        found.append(measure(name, llm, corpora, asked, stride))
    pairs = [(one, found[0].difference(one)) for one in found[1:] if compare]
    if as_json:
        shown = [one.to_dict(paths) for one in found]
        values = shown[0] if len(found) == 1 else {"models": shown}
        if pairs:
            values["compared"] = [
                {"base": model, "model": one.name, **asdict(change)} for one, change in pairs
            ]
        print_json(values)
        return 0
    width = output_width(1000)
    for line in report(found, width):
        echo(line)
    names = short_names([one.name for one in found])
    for name, (_, change) in zip(names[1:], pairs, strict=False):
        title = f"{name} · {t('difference from {base}', base=names[0])}"
        for line in [*wrap(title, width), *columns(difference_rows(change), width)]:
            echo(line)
    return 0


@dataclass(frozen=True)
class Asked:
    """Whether and how questions are answered; any of the options asks for it."""

    accuracy: bool
    max_questions: int
    max_new_tokens: int | None
    answers: str | None

    def __bool__(self) -> bool:
        return any((self.accuracy, self.max_questions, self.max_new_tokens, self.answers))


def split_models(model: str, paths: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """(models, data): behind the first model, what is a .bin or a model as JSON is one too.

    Raises click.UsageError where no data is left.
    """
    from cgpt.checkpoint.info import is_named_model

    models, data = [model], list[str]()
    for path in paths:
        (models if is_named_model(path) else data).append(path)
    if not data:
        raise click.UsageError(t("missing {name}", name="PATH..."), ctx=click.get_current_context())
    return models, tuple(data)


def load(path: str, weights: str | None = None) -> LLM:
    """A model as it is measured: its weights as in the file, or in another form."""
    from cgpt.llm import load_model_auto

    return load_model_auto(path, training=False, weights=weights)


def measure(
    name: str,
    llm: LLM,
    corpora: Sequence[tuple[str, Corpus]],
    asked: Asked,
    stride: int | None = None,
) -> ModelScores:
    """Everything that is asked of one model."""
    found = score_files(name, llm, corpora, stride)
    if asked:
        found.accuracy = answered(name, llm, corpora, asked)
    return found


def answered(name: str, llm: LLM, corpora: Sequence[tuple[str, Corpus]], asked: Asked) -> Accuracy:
    """Let the model answer the dialogues; the answers go to a file where one is named."""
    from cgpt.evaluation.answers import accuracy, answer, questions_of

    dialogues = [one for _, corpus in corpora for one in corpus.dialogues]
    count = sum(1 for _ in questions_of(dialogues))
    count = min(count, asked.max_questions or count)
    found = []
    shown = time.monotonic()
    file = None if asked.answers is None else answers_file(asked.answers, append=True)
    with nullcontext() if file is None else closing(file):
        for one in answer(llm, dialogues, asked.max_new_tokens or NEW_TOKENS, asked.max_questions):
            found.append(one)
            if file is not None:
                file.write({"model": name, **asdict(one)})
            if time.monotonic() - shown >= SECONDS:
                shown = time.monotonic()
                notify(t("answering: {done}/{all}", done=len(found), all=count))
    total = accuracy(found)
    if total.shortened:
        notify(
            t(
                "{n} of {all} questions are longer than the context; their first "
                "tokens are left out",
                n=total.shortened,
                all=count,
            )
        )
    return total


def answers_file(path: str, *, append: bool) -> JsonLines:
    """The file of --answers. Raises DataError where it cannot be written, now or later."""
    return JsonLines(
        path,
        lambda reason: DataError(
            "{path}: the answers cannot be written ({reason}); free some space or name "
            "another file",
            code="write",
            path=path,
            reason=reason,
        ),
        append=append,
    )


def report(found: Sequence[ModelScores], width: int) -> list[str]:
    """One model: its rows, by file and in all. Several: a table by file, then one of all."""
    if len(found) == 1:
        one = found[0]
        lines = [
            line
            for path, part in one.files
            for line in [path, *columns(evaluation_rows(part), width)]
        ]
        lines += [t("all")] if one.files else []
        return lines + columns([*evaluation_rows(one.whole), *accuracy_rows(one.accuracy)], width)
    lines = []
    names = short_names([one.name for one in found])
    if found[0].files:
        lines += [t("bits per character, by file")]
        rows = [[t("file"), *names]]
        for i, (path, _) in enumerate(found[0].files):
            rows.append([path, *(f"{one.files[i][1].bits_per_character:.4f}" for one in found)])
        rows.append([t("all"), *(f"{one.whole.bits_per_character:.4f}" for one in found)])
        lines += [*aligned(rows, width), ""]
    cells = [[*evaluation_rows(one.whole), *accuracy_rows(one.accuracy)] for one in found]
    rows = [[t("measure"), *names]]
    rows += [[label, *(column[i][1] for column in cells)] for i, (label, _) in enumerate(cells[0])]
    return lines + aligned(rows, width)


def short_names(names: Sequence[str]) -> list[str]:
    """The models without their folders, where that tells them apart."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def evaluation_rows(result: EvalResult) -> list[tuple[str, str]]:
    """The lines of `cgpt eval`."""
    return [
        (t("loss (nats/token)"), f"{result.loss:.4f}"),
        (
            t("perplexity"),
            plain_number(float(f"{result.perplexity:.5g}"))
            if result.perplexity < float("inf")
            else "inf",
        ),
        (t(N_("bits per character", "measure")), f"{result.bits_per_character:.4f}"),
        (t("bits per byte"), f"{result.bits_per_byte:.4f}"),
        (t(N_("tokens", "measure")), f"{result.tokens:,}"),
        (t(N_("characters", "measure")), f"{result.characters:,}"),
        (t(N_("bytes", "measure")), f"{result.bytes:,}"),
    ]


def accuracy_rows(found: Accuracy | None) -> list[tuple[str, str]]:
    """The lines of the answers, none where none were asked for."""
    if found is None:
        return []
    return [
        (t("exact"), f"{found.exact:.1%}"),
        (t("contains"), f"{found.contains:.1%}"),
        (t("questions"), f"{found.questions:,}"),
    ]


def difference_rows(found: Difference) -> list[tuple[str, str]]:
    """The lines of a comparison."""
    rows = [
        (
            t(N_("bits per character", "difference")),
            f"{found.bits_per_character:+.4f} ({found.relative:+.2%})",
        )
    ]
    if found.low is not None:
        rows.append((t("95 % interval"), f"{found.low:+.4f} … {found.high:+.4f}"))
    rows.append((t("better documents"), f"{found.better:,} / {found.documents:,}"))
    return rows
