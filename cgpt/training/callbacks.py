"""What a training tells those that watch it, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cgpt.corpus.splitting import TooLong
from cgpt.errors import ConfigError, shown
from cgpt.validation import expect_function


@dataclass
class Progress:
    """Where a phase stands after a step.

    epoch, epochs      the pass under way (from 1) of how many
    step, steps        optimizer steps done of how many (no more than the budget)
    loss               of this step, nats per token; val_loss: of the last evaluation or None
    lr, grad_norm      of this step; the norm is the global one before clipping
    tokens             of the phase so far; tokens_per_second of this call of fit
    seconds            of the phase so far; seconds_left is estimated from this call's steps
    """

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    val_loss: float | None
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class FitResult:
    """What a call of fit came to.

    steps, epochs, tokens, seconds  of the whole phase, earlier calls that it went on from included
    loss      mean over the tokens of the last epoch, nats; None where no step was taken
    val_loss  held-out loss of the weights that the model now has; None without held-out documents
    stopped   "done": all epochs · "early": no improvement for `patience` evaluations ·
              "budget": max_steps or max_minutes · "interrupted": should_stop() said so, or a
              callback raised StopTraining
    held_out  numbers of the documents that val_fraction held out, rising; () without a split
    too_long  which documents are longer than the context, and what became of them
    validation_documents  how many documents the held-out loss is of, a split's or the caller's own
    """

    steps: int
    epochs: int
    tokens: int
    loss: float | None
    val_loss: float | None
    stopped: str
    seconds: float
    too_long: TooLong | None = None
    held_out: tuple[int, ...] = ()
    validation_documents: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-ready, but held_out: of a large corpus that is a long list."""
        return {name: value for name, value in asdict(self).items() if name != "held_out"}


class StopTraining(Exception):
    """Raised by a callback: the training ends as where should_stop() is true."""


class Callback:
    """What `Trainer.fit(callbacks=[...])` calls; override what you need.

    Whenever one of these is called the model is consistent: it may be saved, asked or measured, and
    an exception that is raised leaves a training that resumes exactly. To end it after this step,
    raise StopTraining.
    """

    def on_step(self, progress: Progress) -> object:
        """After every optimizer step, and the evaluation that followed it."""

    def on_evaluation(self, progress: Progress) -> object:
        """After an evaluation: progress.val_loss is its result; before `on_step` of that step."""

    def on_epoch_end(self, progress: Progress) -> object:
        """After the last step of an epoch, after its `on_step`."""

    def on_end(self, result: FitResult) -> object:
        """When the phase has ended and the model has its final weights; not where it was
        interrupted."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))
AnyCallback = Callback | Callable[[Progress], object]


class Callbacks:
    """Callbacks of one call of fit: objects, and functions that are called after every step.

    others  functions that fit takes by name, which are only checked
    Raises ConfigError for what is neither, and for an unknown method on_... .
    """

    def __init__(self, callbacks: Sequence[AnyCallback], **others: object) -> None:
        for name, other in others.items():
            expect_function("Trainer.fit", name, other, optional=True)
        if not isinstance(callbacks, (list, tuple)):
            raise ConfigError(
                "callbacks: expected a list of callbacks, found {value}", value=shown(callbacks)
            )
        self._called: dict[str, list[Callable[[Any], object]]] = {name: [] for name in EVENTS}
        for one in callbacks:
            names = [name for name in dir(one) if name.startswith("on_")]
            for name in names:
                if name not in EVENTS:
                    raise ConfigError(
                        "callbacks: {type} has a method {name}, which nothing calls; known: "
                        "{known}",
                        type=type(one).__name__,
                        name=name,
                        known=list(EVENTS),
                    )
                self._called[name].append(getattr(one, name))
            if not names:
                if not callable(one):
                    raise ConfigError(
                        "callbacks: expected functions, or objects with a method {known}, "
                        "found {value}",
                        known=" or ".join(EVENTS),
                        value=shown(one),
                    )
                self._called["on_step"].append(one)

    def __call__(self, event: str, about: Progress | FitResult) -> None:
        """Tell all of them, in the order given."""
        for call in self._called[event]:
            call(about)
