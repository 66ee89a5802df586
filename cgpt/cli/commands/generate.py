"""`cgpt generate`: a text continued."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cgpt.cli import flags
from cgpt.cli.app import Command, Number, option
from cgpt.cli.ui.chat_loop import report_dropped
from cgpt.cli.ui.streams import drop_broken_bytes, echo, print_json
from cgpt.locale import t

if TYPE_CHECKING:
    from cgpt.config import SamplingConfig
    from cgpt.generation.results import Generation
    from cgpt.llm import LLM, Continuation


@click.command("generate", cls=Command, help="Without TEXT it reads stdin.")
@click.argument("model")
@flags.text
@flags.sampling
@option(
    "--num",
    type=Number(1, 10000, whole=True),
    default=1,
    help="how many continuations (beam search: the best ones, with scores)",
)
@flags.weights
@flags.threads
@flags.as_json
def generate(
    model: str, text: str | None, num: int, weights: str | None, as_json: bool, **values: Any
) -> int:
    from cgpt.llm import load_model_auto

    sampling = flags.sampling_config(values)
    text = flags.text_or_stdin(text)
    if sampling.beam > 1 and num > sampling.beam:
        raise click.UsageError(
            t(
                "--num {num} is more than --beam {beam} finds; set --beam higher",
                num=num,
                beam=sampling.beam,
            ),
            ctx=click.get_current_context(),
        )
    llm = load_model_auto(model, training=False, weights=weights)
    found = (
        best(llm, text, sampling, num, as_json)
        if sampling.beam > 1
        else [drawn(llm, text, sampling, i, as_json) for i in range(num)]
    )
    if as_json:
        texts = [
            {
                "continuation": drop_broken_bytes(one),
                "text": text + drop_broken_bytes(one),
                **described(one),
            }
            for one in found
        ]
        print_json({"model": model, "prompt": text, "sampling": sampling.to_dict(), "texts": texts})
    report_dropped(max((one.dropped for one in found), key=lambda one: one.later))
    return 0


def described(found: Generation) -> dict[str, Any]:
    """What JSON says of a continuation but for its text."""
    values = found.to_dict()
    del values["text"]
    return values


def drawn(llm: LLM, text: str, sampling: SamplingConfig, i: int, quiet: bool) -> Generation:
    """The i-th continuation, shown as it is made unless `quiet`."""
    seed = None if sampling.seed is None else (sampling.seed + i) % (1 << 63)
    found = llm.continuation(text, replace(sampling, seed=seed), logprobs=quiet)
    if quiet:
        return found.read()
    echo(text, end="")
    for piece in found:
        echo(drop_broken_bytes(piece.text), end="")
    echo()
    return found.result


def best(
    llm: LLM, text: str, sampling: SamplingConfig, num: int, quiet: bool
) -> list[Continuation]:
    """The best of a beam search: one as a continued text, several as lines of score and text."""
    found = llm.beam_search(text, sampling)[:num]
    if not quiet:
        for one in found:
            continued = drop_broken_bytes(one.text)
            echo(
                text + continued
                if num == 1
                else f"{one.score:.4f}\t" + continued.replace("\n", "\\n")
            )
    return found
