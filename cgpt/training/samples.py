"""What the model writes while it is trained. Reads the weights alone, so no bit changes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgpt.config import SAMPLE_EVERY, SamplingConfig
from cgpt.errors import CgptError

if TYPE_CHECKING:
    from cgpt.llm import LLM
    from cgpt.training.callbacks import Progress
    from cgpt.training.run import TrainingRun

NEW_TOKENS = 40
GREETING = "你好"


class Samples:
    """A text every `every` steps and at the last one (0: never), drawn with the step as its seed.

    prompt  what it continues, or in fine-tuning the question that it answers; None for the
            beginning of a document, and a greeting
    """

    def __init__(
        self, llm: LLM, phase: str, every: int = SAMPLE_EVERY, prompt: str | None = None
    ) -> None:
        self.llm = llm
        self.chats = phase == "finetune"
        self.every = every
        self.prompt = (GREETING if self.chats else "") if prompt is None else prompt

    def due(self, progress: Progress) -> bool:
        """Whether a sample belongs to this step."""
        return bool(self.every) and (
            progress.step % self.every == 0 or progress.step == progress.steps
        )

    def make(self, step: int) -> tuple[str, str]:
        """(prompt, what follows it)."""
        drawn: dict[str, Any] = dict(
            max_new_tokens=NEW_TOKENS, temperature=SamplingConfig.temperature, seed=step
        )
        if self.chats:
            from cgpt.chat.session import ChatSession

            try:
                session = ChatSession(self.llm, SamplingConfig(**drawn))
            except CgptError:  # a context too short to chat in
                pass
            else:
                return self.prompt, "".join(session.reply(self.prompt))
        return self.prompt, self.llm.generate(self.prompt, **drawn)


def first_question(run: TrainingRun, phase: str) -> str | None:
    """The first thing that a user says in the data of a fine-tuning; None for no such thing."""
    found = run.first_dialogue() if phase == "finetune" else ()
    return next((message.content for message in found if message.role == "user"), None)
