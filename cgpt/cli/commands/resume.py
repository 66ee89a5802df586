"""What `cgpt resume` goes on with, and where that run writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgpt.cli.error_text import reason_of
from cgpt.cli.messages import t
from cgpt.cli.ui.panel import number, phase_name
from cgpt.cli.ui.streams import echo
from cgpt.cli.ui.terminal import Terminal
from cgpt.errors import CheckpointError

if TYPE_CHECKING:
    from cgpt.checkpoint.latest import Found
    from cgpt.llm import LLM


def find(folder: str) -> str:
    """The checkpoint of the only training that can go on, or the one that is chosen.

    Raises CheckpointError where there is none, and where there are several and no terminal.
    """
    from cgpt.checkpoint.latest import several, unfinished

    def warn(error: CheckpointError) -> None:
        echo(f"{reason_of(error)}\n{t('trying_previous')}", stream=sys.stderr)

    found = unfinished(Path(folder), warn)
    found = [one for one in found if one.state.run] or found
    if not found:
        raise CheckpointError(
            f"{folder}: no checkpoint to resume; name one, or another folder by --checkpoint-dir",
            code="missing",
        )
    if len(found) == 1:
        return str(found[0].path)
    terminal = Terminal(sys.stderr)
    terminal.say(t("which_training"))
    for i, one in enumerate(found, 1):
        terminal.say(f"  {i}) {described(one)}")
    if not (terminal.interactive and sys.stderr.isatty()):
        raise several(folder, found)
    try:
        return str(found[terminal.choose(len(found)) - 1].path)
    except EOFError:
        raise several(folder, found) from None


def described(found: Found) -> str:
    """Where a checkpoint is and how far its training has come."""
    state = found.state
    loss = state.history[-1][2] if state.history else None
    parts = [
        str(found.path),
        phase_name(state.phase),
        t("p_step", now=state.step, all=state.total_steps),
        t("p_loss", loss=number(loss)),
    ]
    return "  ".join([*parts, found.out])


def settle_paths(values: dict[str, Any], llm: LLM, path: str, *, named: bool) -> None:
    """Fill in where the run writes: to what is named in this call.

    A file that is named is itself what is written. What the run was begun with holds for a training
    that is found, and its log and pre-trained model for one whose own file is named; for the copy
    of a file they do not. What is begun from a copy, or leaves the file as it is (--out), is a
    training of its own from now on: others may be begun from the same file.
    """
    from cgpt.checkpoint.latest import ORIGIN

    recorded = {
        name: one
        for name in ("out", "save_pretrained", "log")
        if isinstance(one := llm.metadata.get(name), str) and one
    }
    values["out"] = values["out"] or (path if named else recorded.get("out", path))
    own = not named or _is_own(path, recorded.get("out", ""))
    stays = os.path.realpath(values["out"]) != os.path.realpath(path)
    if not own or (named and stays and not _is_checkpoint(path)):
        llm.metadata[ORIGIN] = llm.training_state.run_id
        llm.training_state.run_id = ""
        llm.training_state.identify()
    for name in ("save_pretrained", "log"):
        if own:
            values[name] = values[name] or recorded.get(name)
        elif not values[name] and name in recorded:
            echo(
                t("left_alone", path=recorded[name], flag="--" + name.replace("_", "-")),
                stream=sys.stderr,
            )


def _is_own(path: str, out: str) -> bool:
    """Whether a file is a checkpoint or the model of its run, and not a copy of them."""
    try:
        return _is_checkpoint(path) or os.path.samefile(path, out)
    except OSError:
        return False


def _is_checkpoint(path: str) -> bool:
    """Whether the name is one of those that checkpoints on the way have."""
    return os.path.basename(path).startswith("checkpoint_")


def announced(values: dict[str, Any]) -> Sequence[str]:
    """Sentences that say where the run will write."""
    lines = [t("will_save", out=values["out"], folder=values["checkpoint_dir"])]
    if values["save_pretrained"]:
        lines.append(t("will_save_pretrained", path=values["save_pretrained"]))
    if values["log"]:
        lines.append(t("will_log", path=values["log"]))
    return lines
