"""The interactive chat: used by the guided run and by `cgpt chat`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cgpt.cli.errors import localized
from cgpt.cli.ui.signals import AnswerStop
from cgpt.cli.ui.streams import drop_broken_bytes
from cgpt.cli.ui.terminal import Terminal, normalize_answer, notify
from cgpt.errors import CgptError
from cgpt.locale import N_, t

if TYPE_CHECKING:
    from cgpt.chat.session import ChatSession
    from cgpt.generation.results import Dropped


HINTS = (
    N_("💡 Type a question and press Enter"),
    N_("💡 Type 'exit' to leave"),
    N_("💡 Type 'clear' to forget the conversation"),
    N_("💡 Type 'save' to save the model"),
)
MORE_HINTS = (
    N_("💡 'quit' is the same as 'exit'; upper or lower case"),
    N_("💡 Type 'help' to see this"),
    N_("💡 Pasted lines are one message, which Enter sends"),
    N_("💡 Ctrl-C stops an answer, Ctrl-D leaves"),
    N_("💡 While saving, n or Ctrl-C cancels; a bare name goes to checkpoints/"),
)
COMMANDS = {"exit": "exit", "quit": "exit", "save": "save", "clear": "clear", "help": "help"}


def show_hints(terminal: Terminal) -> None:
    """The box and what can be typed."""
    terminal.box(t("Chat"), left=20)
    terminal.say()
    for hint in HINTS:
        terminal.note(t(hint))
    terminal.say()


def answer(terminal: Terminal, session: ChatSession, text: str) -> None:
    """One streamed answer; Ctrl-C ends it."""
    terminal.write(t("🤖 Model: "))
    stop, before = AnswerStop(), session.dropped
    pieces = session.reply(text)
    try:
        with stop:
            for piece in pieces:
                piece = drop_broken_bytes(piece if stop.has_output else piece.lstrip())
                terminal.write(piece)
                stop.has_output = stop.has_output or bool(piece)
                if stop.requested:
                    break
    except KeyboardInterrupt:
        stop.requested = True
    except CgptError as error:
        terminal.write(t("error: ") + localized(error))
        stop.has_output = True
    finally:
        pieces.close()
    if stop.requested:
        terminal.write((" " if stop.has_output else "") + t("[stopped]"))
    elif not stop.has_output:
        terminal.write(t("[no answer]"))
    terminal.say()
    report_dropped(pieces.result.dropped, before.tokens)
    terminal.say()


def report_dropped(dropped: Dropped, before: int = 0) -> None:
    """Say on stderr what of a text, a dialogue or its answer did not fit the context, if anything.

    before  tokens of the dialogue that were left out, and reported, earlier
    """
    if dropped.tokens > before:
        text = (
            N_("The context is full: the oldest {turns} turns are left out ({n} tokens)")
            if dropped.turns
            else N_("The text is longer than the context: its first {n} tokens are left out")
        )
        notify(t(text, turns=dropped.turns, n=dropped.tokens))
    if dropped.later:
        notify(
            t(
                "The answer outgrew the context: the oldest {n} tokens were left out meanwhile",
                n=dropped.later,
            )
        )


def show_help(terminal: Terminal) -> None:
    """Everything that can be typed, with what the first hints leave out."""
    terminal.say()
    for hint in HINTS + MORE_HINTS:
        terminal.note(t(hint))
    terminal.say()


def chat_loop(
    terminal: Terminal, session: ChatSession, save: Callable[[], None], path: str | None = None
) -> None:
    """Ask and answer until `exit`. `save` opens the save dialog; with a path the session is kept
    there after every turn.

    Raises EOFError at the end of input, KeyboardInterrupt at a second Ctrl-C in a row.
    """
    show_hints(terminal)
    if path is not None and session.turns:
        terminal.note(t("Going on with the dialogue of {n} turns", n=session.turns))
        report_dropped(session.dropped)
        terminal.say()
    warned = False
    while True:
        try:
            word = take_turn(terminal, session)
            warned = False
            if path is not None and not word:
                save_session(terminal, session, path)
        except KeyboardInterrupt:
            if warned or not terminal.interactive:
                raise
            warned = True
            terminal.note(t("Type 'exit' or press Ctrl-D to leave; a second Ctrl-C leaves too."))
            terminal.say()
            continue
        if word == "exit":
            terminal.say(t("👋 Goodbye!"))
            return
        if word == "save":
            terminal.say()
            save_from_chat(terminal, save)
            terminal.say()


def save_from_chat(terminal: Terminal, save: Callable[[], None]) -> None:
    """The save dialog, which Ctrl-C and Ctrl-D leave for the chat. In a pipe they are raised."""
    try:
        save()
    except (KeyboardInterrupt, EOFError):
        if not terminal.interactive:
            raise
        terminal.say(t("✗ Not saved"))


def save_session(terminal: Terminal, session: ChatSession, path: str) -> None:
    """Save the session; a failure is reported and the chat goes on."""
    try:
        session.save(path)
    except CgptError as error:
        terminal.say(t("error: ") + localized(error))
        terminal.say()


def take_turn(terminal: Terminal, session: ChatSession) -> str:
    """One line of the user's: answered, or a command that is done or given back."""
    text = terminal.ask(t("👤 You: "), history=True, words=tuple(COMMANDS)).strip()
    word = COMMANDS.get(normalize_answer(text), "")
    if word in ("exit", "save"):
        return word
    if word == "clear":
        session.clear()
        terminal.say(t("✓ Conversation forgotten"))
        terminal.say()
    elif word == "help":
        show_help(terminal)
    elif text:
        answer(terminal, session, text)
    return ""
