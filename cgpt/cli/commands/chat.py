"""`cgpt chat` and `cgpt generate`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, option
from cgpt.cli.ui.chat_loop import report_dropped
from cgpt.cli.ui.save_dialog import FINAL, ModelSaver
from cgpt.cli.ui.streams import drop_broken_bytes, echo, print_json, read_stdin
from cgpt.cli.ui.terminal import Terminal
from cgpt.config import CHECKPOINTS, EXPORTS
from cgpt.errors import CheckpointError
from cgpt.locale import t
from cgpt.runtime.signals import termination_raises

if TYPE_CHECKING:
    from cgpt.chat.session import ChatSession
    from cgpt.config import SamplingConfig
    from cgpt.llm import LLM


class ReloadingSaver(ModelSaver):
    """Saves the model of the file with its optimizer, which the chat itself does not load."""

    def __init__(self, terminal: Terminal, path: str) -> None:
        super().__init__(terminal)
        self.path = path

    def model(self) -> LLM:
        if self.llm is None:
            from cgpt.llm import load_model_auto

            self.llm = load_model_auto(self.path)
        return self.llm


@click.command(
    "chat",
    cls=Command,
    help="With -p TEXT or a piped stdin it answers once and exits; with both it is "
    "asked TEXT, an empty line, and the text of the pipe.\n"
    "MODEL: checkpoints/model_final.bin by default.",
)
@click.argument("model", required=False, metavar="[MODEL]")
@option(
    "-p",
    "--prompt",
    type=flags.Text(empty=True),
    metavar="TEXT",
    help="answer this once (and, behind it, the text of a pipe)",
)
@flags.sampling
@option("--system", type=flags.Text(empty=True), metavar="TEXT", help="system message")
@option(
    "--session",
    metavar="FILE.json",
    help="go on with the dialogue in FILE (or begin it), saved after every turn",
)
@flags.weights
@flags.threads
@flags.as_json
def chat(
    model: str | None,
    prompt: str | None,
    system: str | None,
    session: str | None,
    weights: str | None,
    as_json: bool,
    **values: Any,
) -> int:
    from cgpt.llm import load_model_auto

    sampling = flags.sampling_config(values)
    model = model or default_model()
    once = prompt is not None or sys.stdin is None or not sys.stdin.isatty()
    if as_json and not once:
        raise click.UsageError(
            t("--json is for one answer; give the question by -p TEXT or a pipe"),
            ctx=click.get_current_context(),
        )
    llm = load_model_auto(model, training=False, weights=weights)
    talk = open_session(llm, sampling, system or None, session)
    if once:
        asked = question(prompt or "", read_stdin())
        return answer_once(talk, asked, session, {"model": model} if as_json else None)
    return converse(talk, model, session)


def default_model() -> str:
    """The model meant where none is named. Raises CheckpointError saying which there are."""
    if os.path.lexists(FINAL):
        return FINAL
    from cgpt.checkpoint.info import find_models

    found = [path.as_posix() for path in find_models(CHECKPOINTS, EXPORTS)]
    if not found:
        raise CheckpointError(
            "{path} does not exist and there is no other model here; train one first "
            "(cgpt), or name a file",
            code="missing",
            path=FINAL,
        )
    raise CheckpointError(
        "{path} does not exist; name one of the models that do: {names}",
        code="missing",
        path=FINAL,
        names=list(found),
    )


def question(prompt: str, piped: str) -> str:
    """What is asked: the prompt, an empty line, and the text of the pipe; or one of the two."""
    parts = (prompt.strip(), piped.strip("\r\n").rstrip())
    return "\n\n".join(part for part in parts if part).strip()


def open_session(
    llm: LLM, sampling: SamplingConfig, system: str | None, path: str | None
) -> ChatSession:
    """A new session, or the one in the file with the sampling of this run."""
    from cgpt.chat.session import ChatSession

    if path is None or not os.path.lexists(path):
        return ChatSession(llm, sampling, system=system)
    found = ChatSession.load(llm, path, sampling)
    if system and system != found.system:
        raise click.UsageError(
            t(
                "{path} has its own system message; leave --system out or name "
                "another --session file",
                path=path,
            ),
            ctx=click.get_current_context(),
        )
    return found


def answer_once(
    session: ChatSession, text: str, path: str | None = None, json: dict[str, Any] | None = None
) -> int:
    """The answer to one question on stdout; the session is saved where it has a file.

    json  what is said of the answer in a JSON object; None to stream the answer as it is
    """
    if not text:
        raise click.UsageError(
            t("the question is empty; give it by -p TEXT or on stdin"),
            ctx=click.get_current_context(),
        )
    found = session.stream(text)
    said = False
    for one in found:
        piece = drop_broken_bytes(one.text if said else one.text.lstrip())
        said = said or bool(piece)
        if json is None:
            echo(piece, end="")
    if json is None:
        echo()
    else:
        print_json(
            {
                **json,
                "prompt": text,
                "sampling": session.sampling.to_dict(),
                **found.result.to_dict(),
                "text": drop_broken_bytes(found.result).lstrip(),
            }
        )
    report_dropped(found.result.dropped)
    if path is not None:
        session.save(path)
    return 0


def converse(session: ChatSession, model: str, path: str | None = None) -> int:
    """The same chat as the guided run's."""
    from cgpt.cli.ui.chat_loop import chat_loop

    terminal = Terminal()
    saver = ReloadingSaver(terminal, model)
    with suppress(EOFError), termination_raises():  # which leaves the terminal as it was
        chat_loop(terminal, session, partial(saver.dialog, in_chat=True), path)
    return 0
