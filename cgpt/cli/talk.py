"""`cgpt chat` and `cgpt generate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import options
from cgpt.cli.app import Command, Number, option
from cgpt.cli.messages import t
from cgpt.cli.saving import FINAL, Keeper
from cgpt.cli.terminal import Terminal, clean, printable, whole

if TYPE_CHECKING:
    from cgpt.chat import ChatSession
    from cgpt.generate import SamplingConfig
    from cgpt.llm import LLM


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
@click.argument("model", required=False, metavar="[MODEL]", default=FINAL)
@option("-p", "--prompt", metavar="TEXT")
@options.sampling
@option("--system", metavar="TEXT")
@options.threads
def chat(model: str, prompt: str | None, system: str | None, **values: Any) -> int:
    """Talk to a model; answers once with -p or where stdin is a pipe."""
    from cgpt.chat import ChatSession
    from cgpt.checkpoint import load_model_auto

    sampling = options.sampling_config(values)
    piped = prompt is None and not (sys.stdin is not None and sys.stdin.isatty())
    llm = load_model_auto(model, training=False)
    session = ChatSession(llm, sampling, system=clean(system) if system else None)
    if prompt is not None or piped:
        text = prompt if prompt is not None else (sys.stdin.read() if sys.stdin else "")
        return answer_once(session, clean(text).strip())
    return converse(session, model)


def answer_once(session: ChatSession, text: str) -> int:
    """The answer to one question on stdout, streamed."""
    if not text:
        raise click.UsageError(t("empty_question"), ctx=click.get_current_context())
    said = False
    for piece in session.reply(text):
        piece = whole(piece if said else piece.lstrip())
        said = said or bool(piece)
        show(piece)
    show("\n")
    return 0


def converse(session: ChatSession, path: str) -> int:
    """The same chat as the guided run's."""
    from cgpt.cli.chatting import chat_loop

    terminal = Terminal()
    keeper = ReloadingKeeper(terminal, path)
    with suppress(EOFError):
        chat_loop(terminal, session, keeper.dialog)
    return 0


@click.command("generate", cls=Command)
@click.argument("model")
@click.argument("text")
@options.sampling
@option("--num", type=Number(1, 10000, whole=True), default=1, metavar="N", note="1")
@options.threads
@options.as_json
def generate(model: str, text: str, num: int, as_json: bool, **values: Any) -> int:
    """Continue a text, `--num` times; seeds count up from --seed."""
    from cgpt.checkpoint import load_model_auto

    sampling = options.sampling_config(values)
    llm = load_model_auto(model, training=False)
    text = clean(text)
    found = []
    for i in range(num):
        seed = None if sampling.seed is None else (sampling.seed + i) % (1 << 63)
        kept = []
        if not as_json:
            show(text)
        for piece in continuation(llm, text, replace(sampling, seed=seed)):
            kept.append(piece)
            if not as_json:
                show(piece)
        if not as_json:
            show("\n")
        found.append("".join(kept))
    if as_json:
        result = {"model": model, "prompt": text, "sampling": sampling.to_dict(),
                  "texts": [{"continuation": one, "text": text + one} for one in found]}
        click.echo(json.dumps(result, ensure_ascii=False))
    return 0


def show(piece: str) -> None:
    """A piece of text on stdout at once; a terminal gets no control characters."""
    sys.stdout.write(printable(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


def continuation(llm: LLM, text: str, sampling: SamplingConfig) -> Iterator[str]:
    """The new text in pieces of whole characters."""
    return map(whole, llm.stream(
        text, sampling.max_new_tokens, sampling.temperature, top_k=sampling.top_k,
        top_p=sampling.top_p, repetition_penalty=sampling.repetition_penalty, seed=sampling.seed,
        beam=sampling.beam))
