"""A whole run: data, vocabulary, pre-training, fine-tuning; started or resumed.

Used by `cgpt train`, `cgpt resume` and the guided run; what to train, and how, is its RunConfig.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.config import KINDS, RunConfig
from cgpt.corpus.documents import Documents
from cgpt.corpus.files import packaged_data
from cgpt.corpus.inputs import Document
from cgpt.corpus.invalid_rows import InvalidRowsError, merged
from cgpt.corpus.records import Dialogue
from cgpt.corpus.sources import Source, check_paths, learn_vocabulary
from cgpt.corpus.splitting import TooLong
from cgpt.corpus.token_cache import ReadProgress
from cgpt.errors import CgptError, ConfigError, DataError, Phrase, shown
from cgpt.kernels import instruction_set
from cgpt.language_model import PHASES
from cgpt.llm import LLM, load_weights
from cgpt.optim.lora import fingerprint
from cgpt.optim.registry import begun_with, settings_of
from cgpt.runtime.process_group import SINGLE_PROCESS
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.callbacks import AnyCallback, FitResult, Progress
from cgpt.training.epochs import too_long
from cgpt.training.recipe import FINETUNE, recorded
from cgpt.training.trainer import Trainer
from cgpt.validation import check_bool, check_int, expect, expect_function, path_list, path_text
from cgpt.version import __version__

CONTINUE_WARMUP = 10
_RESUMPTIONS = 20  # the last so many that changed anything are kept

Paths = Sequence[str | os.PathLike[str]]


class TrainingRun:
    """Both phases over the data of a RunConfig; made by `start` or `resume`.

    config  RunConfig;  llm  LLM
    sources Source by phase: those of the phases that are still to do
    validation  what both phases are evaluated on, None where that is no data of its own
    changed phases (and "validation") whose data is not that with which the run was begun
    parallel  the processes that share the training; see cgpt.training.broadcast
    """

    def __init__(
        self,
        config: RunConfig,
        llm: LLM,
        sources: dict[str, Source],
        validation: Source | None = None,
    ) -> None:
        self.config = config
        self.llm = llm
        self.sources = sources
        self.validation = validation
        self.changed: list[str] = []
        self.parallel = SINGLE_PROCESS
        for name in self.phases:  # so that errors are reported now
            self.validation_documents(name)

    def __repr__(self) -> str:
        return f"TrainingRun({self.llm!r}, {', '.join(self.sources) or 'no phase'} to do)"

    @classmethod
    def start(
        cls, config: RunConfig, *, cache: Path | None = None, progress: ReadProgress | None = None
    ) -> TrainingRun:
        """Read the data, learn the vocabulary from all of it, make a fresh model; or load one.

        For a large corpus (`token_cache.LARGE_CORPUS`) a sample gives the vocabulary, its tokens go
        to the folder `cache` (see `token_cache.cache_folder`), where the next start finds them.
        progress  is called as progress(characters) while they are made
        Raises DataError where the data cannot be used or there is none, CheckpointError where
        config.init cannot be.
        """
        expect("TrainingRun.start", config, RunConfig, "a RunConfig")
        cache = _cache_of("TrainingRun.start", cache, progress)
        sources = read_sources(config, cache, progress)
        validation = _read_validation(config, cache, progress)
        llm = (
            load_weights(config.init)
            if config.init
            else LLM.fresh(
                find_vocabulary(config, sources, cache), config.shape(), seed=config.seed
            )
        )
        config = config.resolved(llm.config.n_embd)
        fingerprints = _fingerprints(sources, validation)
        if config.init:
            fingerprints["init"] = fingerprint(llm.trainable)
        llm.metadata["made_with"] = made_with()
        llm.training_state.identify()
        llm.training_state.run = config.to_dict()
        llm.training_state.data_fingerprint = _join_fingerprints(fingerprints)
        return cls(config, llm, sources, validation)

    @classmethod
    def resume(
        cls,
        llm: LLM,
        epochs: int | None = None,
        lr: float | None = None,
        *,
        new_data: bool = False,
        max_steps: int | None = None,
        max_minutes: float | None = None,
        cache: Path | None = None,
        progress: ReadProgress | None = None,
    ) -> TrainingRun:
        """Go on where the LLM's training state stands, with the data that it names.

        epochs, lr  override those of the phase under way; with epochs, a run whose phases are
                    all done resumes with its last phase
        new_data    where the files have changed, restart the phase under way on them, from the
                    weights as they are; `changed` of the run names the phases
        max_steps, max_minutes  new budgets of each phase still to do, what it has had included
        cache, progress  as in `start`
        A run that a step or time budget ended continues without it, or with a new one.
        Raises DataError where the run is unknown or its data is missing or has changed,
        ConfigError for an override that cannot work, CgptError where the phase to resume with
        needs the optimizer's state and the file it came from held none.
        """
        expect("TrainingRun.resume", llm, LLM, "an LLM")
        new_data = check_bool("TrainingRun.resume", "new_data", new_data)
        cache = _cache_of("TrainingRun.resume", cache, progress)
        state, config = llm.training_state, _override(_recorded_config(llm), llm, epochs, lr)
        config = _with_budgets(config, _phases(config, llm), max_steps, max_minutes)
        if llm.optimizer is None and state.step and (state.unfinished or not _phases(config, llm)):
            raise CgptError(
                "the model was saved without the optimizer's state, so {phase} cannot go "
                "on from step {step}; resume a checkpoint that holds it, or train the "
                "model further with continue_training()",
                hint="guided",
                phase=Phrase(state.phase),
                step=state.step,
            )
        known = _split_fingerprints(state.data_fingerprint)
        phases = _phases(config, llm)
        sources = read_sources(config, cache, progress, phases)
        validation = _read_validation(config, cache, progress) if phases else None
        found = _fingerprints(sources, validation)
        changed = [name for name, one in found.items() if known.get(name) != one]
        for name in changed:
            if not new_data:
                raise DataError(
                    "the {phase} data ({paths}) is not that with which the run was begun; "
                    "put the old files back, train anew, or resume with new_data=True",
                    hint="new_data",
                    phase=Phrase(name),
                    paths=list(config.data(name)),
                )
            known[name] = found[name]
        if state.unfinished and {state.phase, "validation"} & {*changed}:
            state.begin(state.phase)
        state.data_fingerprint = _join_fingerprints(known)
        state.run = config.to_dict()
        run = cls(config, llm, sources, validation)
        run.changed = changed
        _note_resumption(llm, epochs, lr, changed)
        return run

    @property
    def phases(self) -> list[str]:
        """Names of the phases that are still to do, in order."""
        return _phases(self.config, self.llm)

    def documents(self, name: str) -> Documents:
        """What the phase trains on: everything in "pretrain", the dialogues in "finetune"."""
        return self.sources[name].documents(self.llm.tokenizer)

    def validation_documents(self, name: str) -> Documents | None:
        """What the phase is evaluated on, None where that is no data of its own.

        Raises DataError where nothing of it is of a kind that the phase trains on.
        """
        trained = self.documents(name)
        if self.validation is None:
            return None
        given = self.validation.documents(self.llm.tokenizer)
        dialogues = np.unique(trained.store.dialogues[trained.numbers])
        found = given.only(np.isin(given.store.dialogues[given.numbers], dialogues))
        if not len(found):
            raise DataError(
                "{phase}: the validation data ({paths}) has nothing of the kind that the "
                "phase trains on; add texts for a training on texts, dialogues for one on "
                "dialogues",
                phase=Phrase(name),
                paths=list(self.config.validation),
            )
        return found

    def too_long(self, name: str) -> TooLong:
        """Which documents of the phase are longer than the context, and what becomes of them.

        Raises DataError where there are any and they are to be refused.
        """
        config = self.config.phase(name)[1]
        longest = min(self.llm.config.block_size, config.batch_tokens)
        return too_long(self.documents(name), longest, config, name)

    def epoch_tokens(self, name: str) -> int:
        """Tokens that an epoch of the phase takes, specials included; of fractions an estimate."""
        documents, train = self.documents(name), self.config.phase(name)[1]
        if train.too_long == "drop":
            longest = min(self.llm.config.block_size, train.batch_tokens)
            documents = documents.only(documents.lengths <= longest)
        return documents.n_tokens

    def fit_phase(
        self,
        name: str,
        on_progress: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_checkpoint: Callable[[LLM], object] | None = None,
        *,
        callbacks: Sequence[AnyCallback] = (),
    ) -> FitResult:
        """Train one phase, or continue in the middle of it; see Trainer.fit for the rest."""
        if name not in self.sources:
            raise ConfigError(
                "run: no data for the phase {name}; this run has {what}",
                name=shown(name),
                what=list(self.sources) or Phrase("none left"),
            )
        trainer = Trainer(self.llm, self.config.phase(name)[1], name, self.parallel)
        result = trainer.fit(
            self.documents(name),
            on_progress,
            should_stop,
            on_checkpoint,
            validation=self.validation_documents(name),
            callbacks=callbacks,
        )
        self.llm.metadata.setdefault("phases", {})[name] = result.to_dict()
        return result

    def first_dialogue(self) -> Dialogue:
        """The first dialogue of the fine-tuning data, () where there is none."""
        return self.sources["finetune"].first_dialogue if "finetune" in self.sources else ()


def made_with() -> dict[str, Any]:
    """Versions and instruction set that the bits of a training follow from."""
    return {
        "cgpt": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instruction_set": instruction_set(),
        "machine": platform.machine(),
    }


def _note_resumption(llm: LLM, epochs: int | None, lr: float | None, changed: list[str]) -> None:
    """Keep in the metadata where a training went on with other versions, settings or data."""
    state, before = llm.training_state, llm.metadata.get("resumed")
    resumed = before if isinstance(before, list) else []
    with_ = {"made_with": made_with(), "epochs": epochs, "lr": lr, "new_data": changed}
    known: dict[str, Any] = {
        "made_with": llm.metadata.get("made_with"),
        "epochs": None,
        "lr": None,
        "new_data": [],
    }
    if with_ != known:
        entry = {"phase": state.phase, "step": state.step, **with_}
        llm.metadata["resumed"] = [*resumed, entry][-_RESUMPTIONS:]


def continue_training(
    llm: LLM,
    epochs: int,
    lr: float,
    documents: Sequence[Document] | Documents | None = None,
    *,
    chat: Paths | None = None,
    skip_invalid: bool | None = None,
    on_data: Callable[[Source], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_checkpoint: Callable[[LLM], object] | None = None,
) -> FitResult:
    """Fine-tune a loaded model `epochs` more, with fresh moments and the constant rate `lr`.

    With the optimizer that the model was trained by. One that was imported with Adam's state goes
    on with that and its settings.

    documents  what to train on; by default the dialogues of the files `chat`, or else those of
               the packaged data. A training that is stopped can be resumed only with files.
    skip_invalid  whether rows of the files that cannot be used are left out; None: as in the run
               that the model comes from
    on_data    is called with what was read of the files
    Raises ConfigError for epochs or lr out of range, DataError for data that cannot be used.
    """
    expect("continue_training", llm, LLM, "an LLM")
    if skip_invalid is not None:
        skip_invalid = check_bool("continue_training", "skip_invalid", skip_invalid)
    expect_function("continue_training", "on_data", on_data, optional=True)
    epochs = check_int("continue_training", "epochs", epochs, 1)
    config = replace(
        FINETUNE,
        epochs=epochs,
        lr=lr,
        warmup=CONTINUE_WARMUP,
        min_lr_ratio=1.0,
        optimizer=_optimizer_of(llm),
    )
    if llm.optimizer is not None and not llm.training_state.phase:  # that of an import
        config = replace(config, **settings_of(llm.optimizer))
    llm.trainable.arena.require_writable("continue_training")
    state = llm.training_state
    run: dict[str, Any] = {}
    fingerprint = ""
    if documents is None:
        paths = tuple(
            path_list("continue_training: chat", packaged_data()[1:] if chat is None else chat)
        )
        if skip_invalid is None:
            skip_invalid = state.run.get("skip_invalid") is True
        plan = RunConfig(
            chat=paths, seed=FINETUNE.seed, skip_invalid=skip_invalid, finetune_train=config
        ).resolved(llm.config.n_embd)
        source = read_sources(plan)["finetune"]
        documents = source.documents(llm.tokenizer)
        if on_data:
            on_data(source)
        run, fingerprint = plan.to_dict(), _join_fingerprints({"finetune": source.fingerprint})
    state.begin("finetune")
    state.run, state.data_fingerprint = run, fingerprint
    llm.metadata["continued"] = {"epochs": epochs, "lr": lr, "made_with": made_with()}
    return Trainer(llm, config, "finetune").fit(documents, on_progress, should_stop, on_checkpoint)


def _optimizer_of(llm: LLM) -> str | None:
    """The optimizer that a model was trained by, None where it does not say so."""
    run = recorded(llm.training_state.run).get("finetune_train", {})
    name: str | None = begun_with(llm.optimizer).get("optimizer", run.get("optimizer"))
    return name


def _phases(config: RunConfig, llm: LLM) -> list[str]:
    done = llm.training_state.done
    return [
        name
        for name in PHASES
        if name not in done and config.phase(name)[0] and config.phase(name)[1].epochs
    ]


def read_sources(
    config: RunConfig,
    cache: Path | None = None,
    progress: ReadProgress | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Source]:
    """The data of these phases, or of all that have files; see `TrainingRun.start`.

    Raises DataError where there is none or a fine-tuning has no dialogues, InvalidRowsError with
    the rows of all phases that cannot be used.
    """
    if names is None:
        names = [name for name in PHASES if config.phase(name)[0]]
        if not names:
            raise DataError("no data to train on: name files for pre-training, for chat, or both")
    every = [path for name in PHASES for path in config.phase(name)[0]]
    if config.mix:
        check_paths("mix", [path for path, _ in config.mix], every)
    if config.plain_text:
        check_paths("plain_text", config.plain_text, [*every, *config.validation])
    found: dict[str, Source] = {}
    faults: list[InvalidRowsError] = []
    for name in names:
        try:
            found[name] = Source(
                config.phase(name)[0],
                name,
                unique=not config.keep_duplicates,
                mix=config.mix,
                cache=cache,
                progress=progress,
                required=config.phase(name)[1].epochs > 0,
                skip_invalid=config.skip_invalid,
                as_text=config.plain_text,
                suffixes=config.suffixes,
            )
        except InvalidRowsError as error:
            faults.append(error)
    if faults:
        raise merged(faults)
    return found


def _read_validation(
    config: RunConfig, cache: Path | None, progress: ReadProgress | None
) -> Source | None:
    """The data that both phases are evaluated on, None where there is none of its own."""
    if not config.validation:
        return None
    return Source(
        config.validation,
        "pretrain",
        unique=not config.keep_duplicates,
        cache=cache,
        progress=progress,
        skip_invalid=config.skip_invalid,
        as_text=config.plain_text,
        suffixes=config.suffixes,
    )


def _recorded_config(llm: LLM) -> RunConfig:
    """The settings of the run that the model comes from. Raises DataError where it has none."""
    if not llm.training_state.run:
        raise DataError(
            "this model does not say on which data it was trained, so training "
            "cannot be resumed; train it further on data of your choice instead"
        )
    return RunConfig.from_dict(recorded(llm.training_state.run))


def _cache_of(owner: str, cache: object, progress: object) -> Path | None:
    """The folder of a cache. Raises ConfigError for none, or a progress that cannot be called."""
    expect_function(owner, "progress", progress, optional=True)
    return None if cache is None else Path(path_text(f"{owner}: cache", cache))


def _fingerprints(sources: dict[str, Source], validation: Source | None) -> dict[str, str]:
    every = {**sources, **({} if validation is None else {"validation": validation})}
    return {name: source.fingerprint for name, source in every.items()}


def find_vocabulary(
    config: RunConfig, sources: dict[str, Source], cache: Path | None = None
) -> Tokenizer:
    """The vocabulary that the config names, or one learnt from all texts."""
    if config.tokenizer in KINDS:
        return learn_vocabulary(
            [*sources.values()], config.shape().vocab_size, config.tokenizer, cache
        )
    found = Tokenizer.load(config.tokenizer)
    if found.kind not in KINDS:
        raise ConfigError(
            "{path}: a vocabulary of RustGPT-Chinese, which only an imported model can "
            "have; name another file, or words, chars or bpe",
            path=config.tokenizer,
        )
    return found


def _ended_by_budget(config: RunConfig, llm: LLM) -> bool:
    """Whether the last phase can resume exactly: a budget ended it, with its last weights."""
    state, train = llm.training_state, config.phase(llm.training_state.phase)[1]
    return (
        state.step < state.total_steps
        and not train.val_fraction
        and not config.validation
        and not train.ema
        and llm.optimizer is not None
    )


def _override(config: RunConfig, llm: LLM, epochs: int | None, lr: float | None) -> RunConfig:
    """The config with epochs and lr of the phase under way (or the last one) replaced."""
    state = llm.training_state
    left = _phases(config, llm)
    if not left and (
        state.phase not in state.done or (epochs is None and not _ended_by_budget(config, llm))
    ):
        return config
    name = left[0] if left else state.phase
    old = config.phase(name)[1]
    changes: dict[str, Any] = {} if lr is None else {"lr": lr}
    if epochs is not None:
        done = state.epoch if name == state.phase else 0
        check_int("resume", "epochs", epochs, 1)
        if epochs <= done:
            raise ConfigError(
                "resume: {phase} has already had {done} epochs of {all}; epochs counts all "
                "of them, give more than {least}",
                phase=Phrase(name),
                done=done,
                all=old.epochs,
                least=done,
            )
        changes["epochs"] = epochs
    if not left:
        changes.update(max_steps=0, max_minutes=0.0)
        state.done.remove(name)
    return config.with_phases({name: replace(old, **changes)})


def _with_budgets(
    config: RunConfig, phases: Sequence[str], max_steps: int | None, max_minutes: float | None
) -> RunConfig:
    """The config with new budgets of these phases; None leaves a budget as it is."""
    given = {"max_steps": max_steps, "max_minutes": max_minutes}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return config.with_phases(
        {name: replace(config.phase(name)[1], **changes) for name in phases if changes}
    )


def _join_fingerprints(found: dict[str, str]) -> str:
    return " ".join(f"{name}:{fingerprint}" for name, fingerprint in found.items())


def _split_fingerprints(text: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in text.split() if ":" in part)
