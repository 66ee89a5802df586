"""Writes docs/options.md, the table of every option, from the declarations in cgpt/config/."""

from __future__ import annotations

from pathlib import Path

from cgpt.config import GPTConfig, RunConfig, SamplingConfig, TrainConfig
from cgpt.config.declaration import Option, Options, options_of

PAGE = Path(__file__).with_name("options.md")
HEAD = """# Options

Made by `python docs/make_options.py` from the declarations in `cgpt/config/`; a test compares the
two. An option with a flag also reads the environment variable `CGPT_<FLAG>`, and the options of a
training the file of `--config`: the flag's name, or under `[pretrain_train]` and
`[finetune_train]` the name in the first column.
"""
CONFIGS: tuple[tuple[type[Options], str], ...] = (
    (GPTConfig, "The shape of a model."),
    (TrainConfig, "How one phase of a training goes."),
    (RunConfig, "What a run trains; `pretrain_train` and `finetune_train` are its TrainConfigs."),
    (SamplingConfig, "How the next token is chosen, by all that generates text."),
)


def span(one: Option) -> str:
    """Which values there are."""
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    if one.type not in ("int", "float"):
        return ""
    if one.maximum is None or one.maximum >= 1 << 31:
        return f"{'>' if one.open_below else '≥'} {one.minimum or 0:.9g}"
    left, right = "(" if one.open_below else "[", ")" if one.open_above else "]"
    return f"{left}{one.minimum:.9g}, {one.maximum:.9g}{right}"


def table(config: type[Options]) -> str:
    """A row an option."""
    lines = ["| option | flag | default | values | meaning |", "|---|---|---|---|---|"]
    for name, one in options_of(config).items():
        flag = f"`--{name.replace('_', '-')}`" if one.help else ""
        cells = (f"`{name}`", flag, f"`{one.default!r}`", span(one), one.doc or one.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [f"## {config.__name__}\n\n{what}\n\n{table(config)}" for config, what in CONFIGS]
    return "\n\n".join([HEAD.rstrip(), *parts]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
