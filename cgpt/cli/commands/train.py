"""`cgpt train`: a new model, or one that is there trained further."""

from __future__ import annotations

from typing import Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, option
from cgpt.cli.ranks import in_parallel
from cgpt.cli.run_config import read_config, rest_of_config
from cgpt.cli.training_session import Session, preparation
from cgpt.cli.ui.save_dialog import FINAL
from cgpt.config import RunConfig
from cgpt.locale import t
from cgpt.training.config_file import FINGERPRINT, check_fingerprint

PATHS = click.Path()  # splits CGPT_PRETRAIN and CGPT_CHAT at os.pathsep


@click.command(
    "train",
    cls=Command,
    spread=("--data", "--pretrain", "--chat", "--validation"),
    help="Without data it takes data/*.json here, else the packaged data. Ctrl-C "
    "finishes the step and saves.",
)
@flags.data(metavar="PATH...", type=PATHS)
@flags.flag(RunConfig, "pretrain", type=PATHS)
@flags.flag(RunConfig, "chat", type=PATHS)
@flags.flag(RunConfig, "validation", type=PATHS)
@flags.shape
@flags.flag(RunConfig, "tokenizer")
@option(
    "--config",
    metavar="FILE.toml",
    is_eager=True,
    callback=read_config,
    expose_value=False,
    help="TOML file; its keys are names of options",
)
@flags.out(default=FINAL, callback=flags.model_path)
@flags.phases
@flags.budget
@flags.recipe
@flags.corpus
@flags.checkpoints
@flags.viewing
@flags.flag(RunConfig, "init")
@flags.fine_tuning
@option("--freeze-attn", is_flag=True, help="leave attention as it is while fine-tuning")
@flags.save_pretrained
@flags.overwrite
@flags.as_json
@flags.parallel
@in_parallel
def train(**values: Any) -> int:
    from cgpt.cli.run_config import run_config
    from cgpt.cli.training_session import check_options
    from cgpt.cli.ui.data_report import describe_run, local_notes
    from cgpt.training.run import TrainingRun

    session = Session(values)
    session.say(
        t("Reading the model and the data...")
        if values["init"]
        else t("Reading the data, learning the vocabulary...")
    )
    rest = rest_of_config()
    if not any(values[name] or rest.get(name) for name in ("data", "pretrain", "chat")):
        for line in local_notes():
            session.say(line)
    config = run_config(values, rest)
    check_options(config, values)
    session.claim(config)
    run = TrainingRun.start(config, **preparation(values))
    check_fingerprint(rest.get(FINGERPRINT), run.llm.training_state.data_fingerprint)
    describe_run(run, session.say)
    return session.go(run)
