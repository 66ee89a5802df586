"""How well the guided run's model answers: trained questions and rewordings it has never seen.

    python benchmarks/bench_chat_quality.py               trains as the guided run does, then asks
    python benchmarks/bench_chat_quality.py --model FILE  asks a model that is there
    ... --set optimizer=adamw finetune.epochs=26          the recipe with fields of TrainConfig
                                                          changed, of both phases or of one
    ... --json                                            the same as one JSON object

Greedy answers. A trained question counts when the answer is its text to the letter; a rewording
(tests/data/rewordings.json, not in the training data) when the answer holds the fact's core words.
"in conversation" asks eight unrelated trained questions in a row in each of many sessions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cgpt
from cgpt.config import RunConfig
from cgpt.corpus.files import packaged_data
from cgpt.corpus.reader import read_corpus
from cgpt.language_model import PHASES
from cgpt.llm import load_model_auto
from cgpt.training.config_file import with_fields
from cgpt.training.recipe import default_run
from cgpt.training.run import TrainingRun

REWORDINGS = Path(__file__).parent.parent / "tests" / "data" / "rewordings.json"
GREEDY = cgpt.SamplingConfig(temperature=0.0, max_new_tokens=100)


def answer(llm: cgpt.LLM, *questions: str) -> str:
    """The greedy answer to the last of the questions, asked one after the other."""
    session = cgpt.ChatSession(llm, GREEDY)
    text = ""
    for question in questions:
        text = "".join(session.reply(question))
    return text


def trained_questions() -> Iterator[tuple[tuple[str, ...], str]]:
    """(questions up to a turn, that turn's answer) of every turn of the packaged dialogues."""
    for dialogue in read_corpus([packaged_data()[1]]).dialogues:
        asked = [message.content for message in dialogue if message.role == "user"]
        answers = [message.content for message in dialogue if message.role == "assistant"]
        for turn, text in enumerate(answers, 1):
            yield tuple(asked[:turn]), text


def conversation(llm: cgpt.LLM, asked: list[tuple[tuple[str, ...], str]]) -> list[bool]:
    """Whether each of these single questions is answered to the letter, all in one session."""
    session = cgpt.ChatSession(llm, GREEDY)
    return ["".join(session.reply(question)) == text for (question,), text in asked]


def measure(llm: cgpt.LLM, every: int) -> dict[str, float]:
    """Shares of right answers, 0 to 1, over every `every`-th question."""
    questions = list(trained_questions())
    first = [(asked, text) for asked, text in questions if len(asked) == 1]
    rewordings = json.loads(REWORDINGS.read_text(encoding="utf-8"))[::every]
    exact = [answer(llm, *asked) == text for asked, text in questions[::every]]
    later = [
        right
        for start in range(0, len(first) // 8, 5 * every)
        for right in conversation(llm, first[start :: len(first) // 8][:8])
    ]
    right = [
        all(word in answer(llm, item["question"]) for word in item["core"]) for item in rewordings
    ]
    return {
        "trained_questions": len(exact),
        "trained_exact": sum(exact) / len(exact),
        "in_conversation": sum(later) / len(later),
        "rewordings": len(right),
        "rewordings_right": sum(right) / len(right),
    }


def recipe(preset: str, seed: int, max_steps: int, changes: Sequence[str]) -> RunConfig:
    """The guided run's with fields changed, for a trial cut off after some steps."""
    fields: dict[str, dict[str, object]] = {name: {"max_steps": max_steps} for name in PHASES}
    for change in changes:
        name, _, value = change.partition("=")
        phase, _, field = name.rpartition(".")
        if phase not in ("", *PHASES):
            raise SystemExit(f"--set: no phase is named {phase}; there are {', '.join(PHASES)}")
        for one in [phase] if phase else PHASES:
            try:
                fields[one][field] = json.loads(value)
            except json.JSONDecodeError:
                fields[one][field] = value
    return with_fields(
        default_run(preset),
        {"seed": seed, **{f"{name}_train": values for name, values in fields.items()}},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model file instead of training one")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--max-steps", type=int, default=0, help="of each phase, for a trial")
    parser.add_argument("--every", type=int, default=1, help="ask only every n-th question")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        cgpt.set_num_threads(options.threads)
    result: dict[str, float] = {}
    if options.model:
        llm = load_model_auto(options.model, training=False)
    else:
        start = time.perf_counter()
        run = TrainingRun.start(
            recipe(options.preset, options.seed, options.max_steps, options.set)
        )
        for phase in run.phases:
            fit = run.fit_phase(phase)
            result[f"{phase}_loss"] = fit.loss
            result[f"{phase}_steps"] = fit.steps
            result[f"{phase}_seconds"] = fit.seconds
        result["training_seconds"] = time.perf_counter() - start
        llm = run.llm
    result.update(measure(llm, options.every))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:22} {value:10.4g}")


if __name__ == "__main__":
    main()
