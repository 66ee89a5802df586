"""How texts and dialogues become tokens: by marks that are tokens, or by marks that are text."""

from __future__ import annotations

from dataclasses import dataclass

from cgpt.tokenizers.tokenizer import RustTokenizer, Tokenizer


@dataclass(frozen=True)
class Template:
    """Marks that no text can produce: <bos> [<system> text] <user> text <assistant> text <eos>.

    opening  tokens before a text that is trained on
    start    tokens before a dialogue, and before a text that is to be continued
    generation_prompt  tokens between a question and the answer that is due; they carry no loss
    """

    tokenizer: Tokenizer
    opening: list[int]
    start: list[int]
    generation_prompt: list[int]

    @property
    def question(self) -> list[int]:
        """Tokens with which a question begins."""
        return [self.tokenizer.user_id]

    def message(self, role: str, text: str) -> list[int]:
        """A message: its mark, its text and, where it is an answer, <eos>."""
        before, text, behind = self.parts(role, text)
        return [*before, *self.tokenizer.encode(text), *behind]

    def parts(self, role: str, text: str) -> tuple[list[int], str, list[int]]:
        """The same before it is encoded: (tokens before, text, tokens after).

        Of an answer, text and tokens after carry loss; of other messages nothing does.
        """
        tokenizer = self.tokenizer
        marks = {
            "system": tokenizer.system_id,
            "user": tokenizer.user_id,
            "assistant": tokenizer.assistant_id,
        }
        return [marks[role]], text, self._end(role)

    def _end(self, role: str) -> list[int]:
        return [self.tokenizer.eos_id] if role == "assistant" else []


@dataclass(frozen=True)
class RustTemplate(Template):
    """Marks that are text, as RustGPT-Chinese has them: 用户：text助手：text</s>.

    There is no generation prompt: the model says "助手：" itself. A system message is its text. The
    prompts of that program begin with nothing even where its training began with <|bos|>, and so do
    ours; what is trained here as a dialogue begins as the prompts do.
    """

    tokenizer: RustTokenizer

    @property
    def question(self) -> list[int]:
        return self.tokenizer.encode(self.tokenizer.marks[0])

    def parts(self, role: str, text: str) -> tuple[list[int], str, list[int]]:
        marks = {
            "system": "",
            "user": self.tokenizer.marks[0],
            "assistant": self.tokenizer.marks[1],
        }
        said = role == "assistant" and text.startswith(marks[role])  # by the model itself
        return [], text if said else marks[role] + text, self._end(role)


def template_of(tokenizer: Tokenizer) -> Template:
    """The template that a model with this tokenizer was or will be trained with."""
    if isinstance(tokenizer, RustTokenizer):
        return RustTemplate(tokenizer, tokenizer.opening, [], [])
    bos = [tokenizer.bos_id]
    return Template(tokenizer, bos, bos, [tokenizer.assistant_id])
