"""`cgpt chat` and `cgpt generate`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import options
from cgpt.cli.app import Command, Number, option
from cgpt.cli.messages import t
from cgpt.cli.saving import CHECKPOINTS, EXPORTS, FINAL, Keeper
from cgpt.cli.streams import echo, print_json, read_stdin, whole
from cgpt.cli.terminal import Terminal, termination_raises
from cgpt.errors import CheckpointError

if TYPE_CHECKING:
    from cgpt.chat import ChatSession
    from cgpt.llm import LLM
    from cgpt.sampling import SamplingConfig


class ReloadingKeeper(Keeper):
    """Saves the model of the file with its optimizer, which the chat itself does not load."""

    def __init__(self, terminal: Terminal, path: str) -> None:
        super().__init__(terminal)
        self.path = path

    def model(self) -> LLM:
        if self.llm is None:
            from cgpt.checkpoint import load_model_auto

            self.llm = load_model_auto(self.path)
        return self.llm


@click.command("chat", cls=Command)
@click.argument("model", required=False, metavar="[MODEL]")
@option("-p", "--prompt", type=options.Text(empty=True), metavar="TEXT")
@options.sampling
@option("--system", type=options.Text(empty=True), metavar="TEXT")
@option("--session", metavar="FILE.json")
@options.weights
@options.threads
def chat(model: str | None, prompt: str | None, system: str | None, session: str | None,
         weights: str | None, **values: Any) -> int:
    """Talk to a model; answers once with -p or where stdin is a pipe."""
    from cgpt.checkpoint import load_model_auto

    sampling = options.sampling_config(values)
    model = model or default_model()
    once = prompt is not None or sys.stdin is None or not sys.stdin.isatty()
    llm = load_model_auto(model, training=False, weights=weights)
    talk = open_session(llm, sampling, system or None, session)
    if once:
        return answer_once(talk, question(prompt or "", read_stdin()), session)
    return converse(talk, model, session)


def default_model() -> str:
    """The model meant where none is named. Raises CheckpointError saying which there are."""
    if os.path.lexists(FINAL):
        return FINAL
    from cgpt.checkpoint import find_models

    found = [path.as_posix() for path in find_models(CHECKPOINTS, EXPORTS)]
    if not found:
        raise CheckpointError(f"{FINAL} does not exist and there is no other model here; train one "
                              "first (cgpt), or name a file", code="missing")
    raise CheckpointError(f"{FINAL} does not exist; name one of the models that do: "
                          f"{', '.join(found)}", code="missing")


def question(prompt: str, piped: str) -> str:
    """What is asked: the prompt, an empty line, and the text of the pipe; or one of the two."""
    parts = (prompt.strip(), piped.strip("\r\n").rstrip())
    return "\n\n".join(part for part in parts if part).strip()


def open_session(llm: LLM, sampling: SamplingConfig, system: str | None,
                 path: str | None) -> ChatSession:
    """A new session, or the one in the file with the sampling of this run."""
    from cgpt.chat import ChatSession

    if path is None or not os.path.lexists(path):
        return ChatSession(llm, sampling, system=system)
    found = ChatSession.load(llm, path, sampling)
    if system and system != found.system:
        raise click.UsageError(t("session_system", path=path), ctx=click.get_current_context())
    return found


def answer_once(session: ChatSession, text: str, path: str | None = None) -> int:
    """The answer to one question on stdout, streamed; the session is saved where it has a file."""
    if not text:
        raise click.UsageError(t("empty_question"), ctx=click.get_current_context())
    said = False
    for piece in session.reply(text):
        piece = whole(piece if said else piece.lstrip())
        said = said or bool(piece)
        echo(piece, end="")
    echo()
    if path is not None:
        session.save(path)
    return 0


def converse(session: ChatSession, model: str, path: str | None = None) -> int:
    """The same chat as the guided run's."""
    from cgpt.cli.chatting import chat_loop

    terminal = Terminal()
    keeper = ReloadingKeeper(terminal, model)
    with suppress(EOFError), termination_raises():     # which leaves the terminal as it was
        chat_loop(terminal, session, partial(keeper.dialog, in_chat=True), path)
    return 0


@click.command("generate", cls=Command)
@click.argument("model")
@options.text
@options.sampling
@option("--num", type=Number(1, 10000, whole=True), default=1, metavar="N", note="1")
@options.weights
@options.threads
@options.as_json
def generate(model: str, text: str | None, num: int, weights: str | None, as_json: bool,
             **values: Any) -> int:
    """Continue a text, `--num` times; seeds count up from --seed."""
    from cgpt.checkpoint import load_model_auto

    sampling = options.sampling_config(values)
    text = options.text_or_stdin(text)
    if sampling.beam > 1 and num > sampling.beam:
        raise click.UsageError(t("num_above_beam", num=num, beam=sampling.beam),
                               ctx=click.get_current_context())
    llm = load_model_auto(model, training=False, weights=weights)
    found = best(llm, text, sampling, num, as_json) if sampling.beam > 1 else [
        drawn(llm, text, sampling, i, as_json) for i in range(num)]
    if as_json:
        result = {"model": model, "prompt": text, "sampling": sampling.to_dict(), "texts": found}
        print_json(result)
    return 0


def drawn(llm: LLM, text: str, sampling: SamplingConfig, i: int, as_json: bool) -> dict[str, Any]:
    """The i-th continuation, shown as it is made unless it is for JSON."""
    seed = None if sampling.seed is None else (sampling.seed + i) % (1 << 63)
    kept: list[str] = []
    ids: list[int] = []
    logprobs: list[float] = []
    pieces = llm.continuation(text, replace(sampling, seed=seed), logprobs=as_json)
    if not as_json:
        echo(text, end="")
    for piece in pieces:
        kept.append(whole(piece.text))
        ids += piece.ids
        logprobs += piece.logprobs
        if not as_json:
            echo(kept[-1], end="")
    if not as_json:
        echo()
    continued = "".join(kept)
    return {"continuation": continued, "text": text + continued, "ids": ids, "logprobs": logprobs}


def best(llm: LLM, text: str, sampling: SamplingConfig, num: int,
         as_json: bool) -> list[dict[str, Any]]:
    """The best of a beam search: one as a continued text, several as lines of score and text."""
    found = llm.beam_search(text, sampling)[:num]
    if not as_json:
        for one in found:
            continued = whole(one.text)
            echo(text + continued if num == 1 else
                 f"{one.score:.4f}\t" + continued.replace("\n", "\\n"))
    return [{"continuation": whole(one.text), "text": text + whole(one.text), "ids": one.ids,
             "logprobs": one.logprobs, "score": one.score} for one in found]
