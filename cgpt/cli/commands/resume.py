"""`cgpt resume`: what it goes on with, and where that run writes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, option
from cgpt.cli.errors import reason_of
from cgpt.cli.output_paths import state_of
from cgpt.cli.ranks import in_parallel
from cgpt.cli.training_session import Session, preparation
from cgpt.cli.ui.progress import number, phase_name
from cgpt.cli.ui.streams import echo
from cgpt.cli.ui.terminal import Terminal
from cgpt.config import TrainConfig
from cgpt.errors import CheckpointError, DataError
from cgpt.locale import t

if TYPE_CHECKING:
    from cgpt.checkpoint.latest import CheckpointSummary
    from cgpt.llm import LLM


@click.command(
    "resume",
    cls=Command,
    help="A file that is named is the one that is written (or --out). Without a name: "
    "the only unfinished training in --checkpoint-dir; of several it asks which.",
)
@click.argument("checkpoint", required=False, metavar="[CHECKPOINT]")
@option("--epochs", type=flags.POSITIVE, help="epochs of the phase in all")
@flags.flag(TrainConfig, "lr")
@flags.budget
@flags.out(callback=flags.model_path)
@flags.save_pretrained
@option("--new-data", is_flag=True, help="where the data has changed, begin the phase anew on it")
@flags.checkpoints
@flags.viewing
@flags.cache
@flags.overwrite
@flags.threads
@flags.as_json
@flags.parallel
@in_parallel
def resume(
    checkpoint: str | None, epochs: int | None, lr: float | None, new_data: bool, **values: Any
) -> int:
    from cgpt.checkpoint.info import weights_dtype
    from cgpt.cli.ui.data_report import describe_run
    from cgpt.llm import load_model_auto
    from cgpt.training.run import TrainingRun

    path = checkpoint or find(values["checkpoint_dir"])
    llm = load_model_auto(path)
    form = weights_dtype(path) if llm.optimizer is None else "float32"
    if form != "float32":
        raise DataError(
            "{path}: the file holds weights rounded to {form} without the optimizer's "
            "state, so no training goes on from it; resume the file that it was exported "
            "from, or train this one further in the guided run (cgpt)",
            path=path,
            form=form,
        )
    if not llm.training_state.run:
        raise DataError(
            "{path}: the file does not say how it was trained, so there is nothing to go "
            "on with; train it from the guided run instead (cgpt)",
            path=path,
        )
    settle_paths(values, llm, path, named=checkpoint is not None)
    session, earlier = Session(values, resumed=True), state_of(llm)
    run = TrainingRun.resume(
        llm,
        epochs,
        lr,
        new_data=new_data,
        max_steps=values["max_steps"],
        max_minutes=values["max_minutes"],
        **preparation(values),
    )
    if run.changed:
        session.say(
            t(
                "the data has changed, beginning anew on it: {phases}",
                phases=", ".join(phase_name(name) for name in run.changed),
            )
        )
    if not run.phases:
        session.say(
            t("the training of {path} is complete; --epochs N makes it N in all", path=path)
        )
        if values["as_json"]:
            session.report(run, {})
        return 0
    session.claim(
        run.config,
        lambda target: os.path.realpath(target) == os.path.realpath(path) or earlier(target),
    )
    session.say(t("going on with {path}", path=path))
    describe_run(run, session.say)
    return session.go(run)


def find(folder: str) -> str:
    """The checkpoint of the only training that can go on, or the one that is chosen.

    Raises CheckpointError where there is none, and where there are several and no terminal.
    """
    from cgpt.checkpoint.latest import several, unfinished

    def warn(error: CheckpointError) -> None:
        echo(f"{reason_of(error)}\n{t('trying the checkpoint before it...')}", stream=sys.stderr)

    found = unfinished(Path(folder), warn)
    found = [one for one in found if one.state.run] or found
    if not found:
        raise CheckpointError(
            "{folder}: no checkpoint to resume; name one, or another folder by --checkpoint-dir",
            code="missing",
            folder=folder,
        )
    if len(found) == 1:
        return str(found[0].path)
    terminal = Terminal(sys.stderr)
    terminal.say(t("trainings that can go on:"))
    for i, one in enumerate(found, 1):
        terminal.say(f"  {i}) {described(one)}")
    if not (terminal.interactive and sys.stderr.isatty()):
        raise several(folder, found)
    try:
        return str(found[terminal.choose(len(found)) - 1].path)
    except EOFError:
        raise several(folder, found) from None


def described(found: CheckpointSummary) -> str:
    """Where a checkpoint is and how far its training has come."""
    state = found.state
    loss = state.history[-1][2] if state.history else None
    parts = [
        str(found.path),
        phase_name(state.phase),
        t("step {now}/{all}", now=state.step, all=state.total_steps),
        t("loss {loss}", loss=number(loss)),
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
    for name, kind in (("sample_every", int), ("sample_prompt", str)):
        if own and values[name] is None and isinstance(llm.metadata.get(name), kind):
            values[name] = llm.metadata[name]
    for name in ("save_pretrained", "log"):
        if own:
            values[name] = values[name] or recorded.get(name)
        elif not values[name] and name in recorded:
            echo(
                t(
                    "{path} belongs to the training that this file was copied from and "
                    "is not written; name another by {flag}",
                    path=recorded[name],
                    flag="--" + name.replace("_", "-"),
                ),
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
