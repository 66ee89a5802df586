"""The interactive chat: used by the guided run and by `cgpt chat`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cgpt.cli.messages import t
from cgpt.cli.terminal import Terminal, handling, printable

if TYPE_CHECKING:
    from cgpt.chat import ChatSession


class AnswerStop:
    """Ctrl-C while the model answers ends the answer after its token; a second one at once."""

    def __init__(self) -> None:
        self.asked = False
        self._handlers = handling({"SIGINT": self._on_signal})

    def _on_signal(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> AnswerStop:
        self._handlers.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handlers.__exit__(*error)


def show_hints(terminal: Terminal) -> None:
    """The box and what can be typed."""
    terminal.box(t("box_chat"), left=20)
    terminal.say()
    for hint in ("hint_ask", "hint_exit", "hint_clear", "hint_save"):
        terminal.say(t(hint))
    terminal.say()


def answer(terminal: Terminal, session: ChatSession, text: str) -> None:
    """One streamed answer; Ctrl-C ends it."""
    terminal.write(t("model"))
    said = False
    pieces = session.reply(text)
    with AnswerStop() as stop:
        try:
            for piece in pieces:
                piece = printable(piece if said else piece.lstrip())
                terminal.write(piece)
                said = said or bool(piece)
                if stop.asked:
                    break
        except KeyboardInterrupt:
            stop.asked = True
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
    if stop.asked:
        terminal.write((" " if said else "") + t("answer_stopped"))
    elif not said:
        terminal.write(t("no_answer"))
    terminal.say()
    terminal.say()


def chat_loop(terminal: Terminal, session: ChatSession, save: Callable[[], None]) -> None:
    """Ask and answer until `exit`. `save` opens the save dialog.

    Raises EOFError at the end of input, KeyboardInterrupt at a second Ctrl-C in a row.
    """
    show_hints(terminal)
    again = False
    while True:
        try:
            text = terminal.ask(t("user"), remember=True)
        except KeyboardInterrupt:
            if again or not terminal.interactive:
                raise
            again = True
            terminal.say()
            terminal.note(t("ctrl_c_hint"))
            terminal.say()
            continue
        again = False
        word = text.strip().lower()
        if word == "exit":
            terminal.say(t("goodbye"))
            return
        if word == "clear":
            session.clear()
            terminal.say(t("cleared"))
            terminal.say()
        elif word == "save":
            terminal.say()
            save()
            terminal.say()
        elif word:
            answer(terminal, session, text.strip())
