"""The model in hand and how it gets to disk: the save dialog, never losing it, free names."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cgpt.cli.ui.terminal import CANCEL, YES, Terminal, normalize_answer, shell_quoted
from cgpt.config import CHECKPOINTS, EXPORTS
from cgpt.errors import CgptError
from cgpt.locale import N_, t

if TYPE_CHECKING:
    from cgpt.llm import LLM

FINAL = f"{CHECKPOINTS}/model_final.bin"
PRETRAINED = f"{CHECKPOINTS}/model_pretrained.bin"
FINAL_JSON = f"{EXPORTS}/model_final.json"
# Words of the chat and of its questions: as a file name most likely meant for these.
COMMAND_WORDS = {*CANCEL, *YES, "clear", "save", "help"}


def save_model(
    llm: LLM, path: str | Path, *, json: bool | None = None, optimizer: bool = True
) -> None:
    """Save as JSON or binary (None: by suffix); folders are made when missing.

    Raises CheckpointError with the reason when it cannot be written.
    """
    from cgpt.checkpoint.saving import save_model_binary, save_model_json

    if json is None:
        json = Path(path).suffix.lower() == ".json"
    save = save_model_json if json else save_model_binary
    save(llm, path, optimizer=optimizer)


def failure(error: BaseException) -> str:
    """That a save failed, and why."""
    from cgpt.cli.errors import reason_of

    return t("❌ Could not save: {reason}", reason=reason_of(error))


def free_name(path: str) -> str:
    """The path itself, or with _2, _3, ... before the suffix, whichever is not taken yet."""
    target = Path(path)
    number = 1
    while target.exists():
        number += 1
        target = Path(path).with_name(f"{Path(path).stem}_{number}{Path(path).suffix}")
    return target.as_posix()


def found_again(path: str) -> bool:
    """Whether the guided run lists the model: it looks into its two folders."""
    folder = os.path.realpath(os.path.dirname(path) or ".")
    return folder in (os.path.realpath(CHECKPOINTS), os.path.realpath(EXPORTS))


class Cancelled(Exception):
    """The user wants no save after all."""


class ModelSaver:
    """Holds the model of a guided run or a chat and knows whether it still has to be saved."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.llm: LLM | None = None
        self.unsaved = False
        self.default = FINAL
        self.saved_paths: list[str] = []
        self.resumable = True  # whether what was saved last can be resumed exactly

    def hold(self, llm: LLM, *, unsaved: bool, default: str = FINAL) -> None:
        """Take this model; `default` is where it goes when nobody can be asked."""
        self.llm, self.unsaved, self.default = llm, unsaved, default

    def offer(self) -> None:
        """The box, the question, the dialog; asked again until it is saved or declined.

        What was declined stays unsaved: only `exit` in the chat throws it away.
        """
        self.terminal.box(t("Save the model"), left=20)
        self.terminal.say()
        self._ask_and_save()

    def _ask_and_save(self) -> None:
        if self.terminal.yes_no(t("Save the current model? (y/n): ")):
            self.terminal.say()
            self.dialog()

    def dialog(self, *, in_chat: bool = False) -> None:
        """Format and name; a failed save says why and asks again, one that is cancelled ends here.

        in_chat  a name without a folder goes to that of the default, where it is found again; else
                 it is a path like any other
        """
        terminal = self.terminal
        try:
            saved = self._choose_and_save(in_chat)
        except Cancelled:
            terminal.say(t("✗ Not saved"))
            if in_chat:
                return
            saved = False
        if not saved:
            terminal.say()
            self._ask_and_save()

    def _choose_and_save(self, in_chat: bool) -> bool:
        """Whether it was saved. Raises Cancelled."""
        terminal = self.terminal
        terminal.say(t("Which format:"))
        terminal.note(t("  1) Binary (.bin) - recommended, small and fast"))
        terminal.note(t("  2) JSON (.json) - readable, for debugging"))
        terminal.note(t("  3) Both formats"))
        terminal.say()
        chosen = terminal.choose(3, back=True)
        terminal.say()
        if chosen == 0:
            raise Cancelled
        if chosen == 3:
            return self._save_both()
        path = self._ask_path(FINAL if chosen == 1 else FINAL_JSON, in_chat=in_chat)
        return self.try_save(path, N_("✅ Model saved: {path}"), json=chosen == 2)

    def _save_both(self) -> bool:
        binary, text = self._settle(FINAL), self._settle(FINAL_JSON)
        self.terminal.say(t("Saving as binary..."))
        if not self.try_save(binary, N_("✓ Binary saved: {path}"), json=False):
            return False
        self.terminal.say(t("Saving as JSON..."))
        return self.try_save(text, N_("✓ JSON saved: {path}"), json=True)

    def save_pretrained(self) -> None:
        """Save the checkpoint between the phases."""
        path = self._settle(PRETRAINED)
        message = (
            N_("✓ Pre-training checkpoint saved")
            if path == PRETRAINED
            else N_("✓ Pre-training checkpoint saved: {path}")
        )
        if not self.try_save(path, message, json=False):
            self.terminal.say()
            if self.terminal.yes_no(t("💾 Save the pre-training checkpoint? (y/n): ")):
                self.save_pretrained()

    def _ask_path(self, default: str, *, in_chat: bool = False) -> str:
        """A file name, as typed, that is free or may be overwritten; ~ is the home folder.

        Raises Cancelled where it was a word to leave with and not a name.
        """
        folder = os.path.dirname(default)
        while True:
            answer = self.terminal.ask(
                t("File name (default: {default}): ", default=default)
            ).strip()
            if "\n" in answer:
                self.terminal.note(t("A file name is one line."))
                continue
            if normalize_answer(answer) in COMMAND_WORDS and not self.terminal.yes_no(
                t("'{word}' looks like a command, is it the file name? (y/n): ", word=answer)
            ):
                raise Cancelled
            path = os.path.expanduser(answer) if answer else default
            if in_chat and not os.path.dirname(path):
                path = f"{folder}/{path}"
            if self._may_write(path):
                return path
            default = free_name(default)

    def _settle(self, path: str) -> str:
        """The path where it is free or may be overwritten, else another that is asked for."""
        return path if self._may_write(path) else self._ask_path(free_name(path))

    def _may_write(self, path: str) -> bool:
        taken = Path(path).exists() and not Path(path).is_dir()
        return not taken or self.terminal.yes_no(
            t("The file exists, overwrite {path}? (y/n): ", path=path)
        )

    def model(self) -> LLM:
        """What is saved: the model with all that belongs to it."""
        if self.llm is None:
            raise RuntimeError("ModelSaver: no model is held; call hold() first")
        return self.llm

    def try_save(self, path: str, message: str, *, json: bool = False) -> bool:
        """Save and say so, or say why not."""
        try:
            save_model(self.model(), path, json=json)
        except (CgptError, OSError, MemoryError) as error:
            self.terminal.note(failure(error))
            return False
        self.unsaved = False
        self.saved_paths.append(path)
        self.terminal.say(t(message, path=path))
        if not found_again(path):
            self.terminal.say(
                t(
                    "💡 The guided run does not list it; to open it: cgpt chat {path}",
                    path=shell_quoted(path),
                )
            )
        return True

    def rescue(self) -> bool:
        """Save what is unsaved under a free default name and say so; True where nothing is lost.

        Where that fails, the temporary folder is tried; then both without the optimizer's state,
        which takes a third of the space.
        """
        if not self.unsaved or self.llm is None:
            return True
        name = Path(self.default).name
        for whole in (True, False):
            for place in (self.default, f"{tempfile.gettempdir()}/{name}"):
                path = free_name(place)
                try:
                    save_model(self.llm, path, json=False, optimizer=whole)
                except (CgptError, OSError, MemoryError) as error:
                    self._tell(failure(error))
                    continue
                self.unsaved, self.resumable = False, whole
                self.saved_paths.append(path)
                text = (
                    N_("💾 The model was not saved yet, it is now in: {path}")
                    if whole
                    else N_(
                        "💾 There was no room for more than the weights (no training goes on "
                        "from them exactly), they are in: {path}"
                    )
                )
                self._tell("\n" + t(text, path=path))
                return True
        return False

    def _tell(self, text: str) -> None:
        """Say it where somebody still listens: the terminal may be gone."""
        with suppress(OSError, ValueError):
            self.terminal.note(text)
