"""`cgpt export`, `import` and `info`."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import click

from cgpt.cli import options
from cgpt.cli.app import WIDE, Command, OneOf, option, output_width
from cgpt.cli.messages import N_, t
from cgpt.cli.targets import Target
from cgpt.cli.ui.layout import columns, folded
from cgpt.cli.ui.panel import phase_name
from cgpt.cli.ui.save_dialog import save_model
from cgpt.cli.ui.sketch import sparkline
from cgpt.cli.ui.streams import echo, print_json
from cgpt.cli.ui.terminal import plain_number, tell
from cgpt.config import FORMS
from cgpt.errors import CheckpointError, ConfigError, DataError
from cgpt.runtime.memory import human_size
from cgpt.version import __version__

DETAILS = ("crc32", "offset", "elements")  # columns that a narrow screen goes without, in order
# what `cgpt info` and `cgpt diff` call the fields of their JSON
LABELS = {
    "path": N_("info_path"),
    "format": N_("info_format"),
    "version": N_("info_version"),
    "bytes": N_("info_bytes"),
    "graph": N_("info_graph"),
    "parameters": N_("info_parameters"),
    "words": N_("info_words"),
    "best_weights": N_("info_best_weights"),
    "verified": N_("info_verified"),
    "config": N_("info_config"),
    "layers": N_("info_layers"),
    "optimizer": N_("info_optimizer"),
    "run_id": N_("info_run_id"),
    "training_state": N_("info_training_state"),
    "metadata": N_("info_metadata"),
    "records": N_("info_records"),
    "python": N_("info_python"),
    "platform": N_("info_platform"),
    "instruction_set": N_("info_instruction_set"),
    "instruction_sets": N_("info_instruction_sets"),
    "openmp": N_("info_openmp"),
    "threads": N_("info_threads"),
    "cpus": N_("info_cpus"),
    "usable_cpus": N_("info_usable_cpus"),
    "cpu_quota": N_("info_cpu_quota"),
    "vocabulary": N_("info_vocabulary"),
}
# names of columns of tables
HEADS = {
    "needs_layer": N_("head_needs_layer"),
    "kind": N_("head_kind"),
    "name": N_("head_name"),
    "type": N_("head_type"),
    "parameters": N_("head_parameters"),
    "dtype": N_("head_dtype"),
    "shape": N_("head_shape"),
    "offset": N_("head_offset"),
    "bytes": N_("head_bytes"),
    "crc32": N_("head_crc32"),
    "changed": N_("head_changed"),
    "elements": N_("head_elements"),
    "largest": N_("head_largest"),
    "relative": N_("head_relative"),
}


@click.command("export", cls=Command)
@click.argument("model")
@click.argument("out", metavar="OUT.{bin,json}", callback=options.model_path)
@option("--weights-only", is_flag=True)
@option("--weights", type=OneOf(FORMS), metavar="|".join(FORMS), default="float32", note="float32")
@options.overwrite
def export(model: str, out: str, weights_only: bool, weights: str, overwrite: bool) -> int:
    """Save a model in the format of the suffix."""
    from cgpt.checkpoint.saving import save_model_binary
    from cgpt.llm import load_model_auto

    rounded = weights != "float32"
    if rounded and not out.lower().endswith(".bin"):
        raise ConfigError(
            f"{out}: JSON holds float32 weights only, found --weights {weights}; name a .bin"
        )
    Target(out, overwrite=overwrite)
    llm = load_model_auto(model, training=not (weights_only or rounded), weights="float32")
    if rounded:
        save_model_binary(llm, out, optimizer=False, weights=weights)
    else:
        save_model(llm, out, optimizer=not weights_only)
    tell(t("exported", path=out, size=human_size(os.path.getsize(out))))
    return 0


@click.command("import", cls=Command)
@click.argument("source")
@click.argument("out", metavar="OUT.bin", callback=options.model_path)
@options.overwrite
def import_(source: str, out: str, overwrite: bool) -> int:
    """Read a model from elsewhere and save it."""
    from cgpt.llm import load

    if Path(source).is_dir():
        raise CheckpointError(
            f"{source}: a folder, expected a model file; this version imports "
            "cgpt's own .bin and .json and the JSON exports of RustGPT-Chinese "
            "(GPT-2 folders have another vocabulary)",
            code="foreign",
        )
    Target(out, overwrite=overwrite)
    llm = load(source)
    if "imported_from" in llm.metadata:
        tell(
            t(
                "imported",
                graph=", ".join(layer.type for layer in llm.gpt.layer_records()),
                words=len(llm.tokenizer),
            )
        )
        tell(
            t("imported_steps", n=llm.optimizer.step_count)
            if llm.optimizer
            else t("imported_no_steps")
        )
    save_model(llm, out)
    tell(t("exported", path=out, size=human_size(os.path.getsize(out))))
    return 0


@click.command("info", cls=Command)
@click.argument("model", required=False, metavar="[MODEL]")
@option("--verify", is_flag=True)
@option("--toml", is_flag=True)
@options.as_json
def info(model: str | None, verify: bool, toml: bool, as_json: bool) -> int:
    """What a model file holds; without one, what this installation is."""
    if toml:
        return print_recipe(model, as_json=as_json)
    if model is None:
        found = installation()
    else:
        from cgpt.checkpoint.info import describe

        found = describe(model, verify=verify)
        found["training_state"] = how_it_ended(
            found["training_state"], found["metadata"].get("phases")
        )
    if as_json:
        print_json(found)
        return 0
    if model is None:
        found["openmp"] = t("with_openmp") if found["openmp"] else t("without_openmp")
    else:
        found["bytes"] = f"{found['bytes']} ({human_size(found['bytes'])})"
        found["training_state"] = for_people(found["training_state"])
    width = output_width()
    for line in description({t(LABELS[key]): value for key, value in found.items()}, width):
        echo(line)
    if model is not None and verify:
        tell(t("verified"))
    return 0


def how_it_ended(state: dict[str, Any], results: Any) -> dict[str, Any]:
    """A training state whose `done` names only phases that had all they were to have.

    A phase that a budget or an interruption ended, or that is under way, is in `stopped`: phase ->
    why, its step, and of how many where that is known.

    results  phase -> its FitResult, as kept in a model's metadata
    """
    results = results if isinstance(results, dict) else {}
    stopped: dict[str, dict[str, Any]] = {}
    for phase in dict.fromkeys([*state["done"], *filter(None, [state["phase"]])]):
        result = results.get(phase, {})
        last = phase == state["phase"]
        why = str(result.get("stopped", "budget" if last else "done"))
        if last and phase not in state["done"]:
            why = "unfinished"
        elif last and state["step"] >= state["total_steps"]:
            why = "done"
        if why not in ("done", "early"):
            step = state["step"] if last else result.get("steps")
            stopped[phase] = {"by": why, "step": step}
            if last:
                stopped[phase]["of"] = state["total_steps"]
    return {
        key: [phase for phase in value if phase not in stopped] if key == "done" else value
        for key, value in {
            "phase": state["phase"],
            "done": state["done"],
            "stopped": stopped,
            **state,
        }.items()
    }


def for_people(state: dict[str, Any]) -> dict[str, Any]:
    """The state of `how_it_ended` as it is shown."""
    stopped = [
        f"{phase} ({one['by']}, step {one['step']}" + (f" of {one['of']})" if "of" in one else ")")
        for phase, one in state["stopped"].items()
    ]
    return {
        **state,
        "done": state["done"] or None,
        "stopped": stopped or None,
        "history": histories(state["history"]),
    }


def print_recipe(model: str | None, *, as_json: bool) -> int:
    """The TOML that repeats the training of a model, on stdout.

    Raises DataError where the model does not know its training.
    """
    from cgpt.checkpoint.info import describe
    from cgpt.cli.config_file import FINGERPRINT, repeated, to_toml
    from cgpt.training.run_config import recorded

    if model is None or as_json:
        raise click.UsageError(t("toml_alone"), ctx=click.get_current_context())
    found = describe(model)
    state, about = found["training_state"], found["metadata"]
    if not state["run"]:
        raise DataError(
            f"{model}: the file does not say how it was trained, so there is nothing "
            "to repeat; train with cgpt train or the guided run"
        )
    if about.get("continued"):
        raise DataError(
            f"{model}: was trained further from the weights of an earlier model, which "
            "the file does not hold, so no configuration repeats it; ask the model "
            "that it was made from"
        )
    comments = {str(key): str(value) for key, value in about.get("made_with", {}).items()}
    for one in about.get("resumed", []):
        comments[f"resumed at {one['phase']} step {one['step']}"] = json.dumps(
            {key: value for key, value in one.items() if key not in ("phase", "step")}
        )
    values = {
        FINGERPRINT: state["data_fingerprint"],
        **repeated(recorded(state["run"]), about.get("phases", {})),
    }
    echo(to_toml(values, comments), end="")
    return 0


def histories(history: list[list[Any]]) -> dict[str, str]:
    """The losses of each phase as a sparkline between the first and the last of them."""
    found: dict[str, list[float]] = {}
    for phase, _, loss, _ in history:
        found.setdefault(phase, []).append(loss)
    return {
        phase_name(phase): f"{losses[0]:.4f} {sparkline(losses, 32)} {losses[-1]:.4f}"
        for phase, losses in found.items()
    }


def installation() -> dict[str, Any]:
    """Version, instruction set, whether OpenMP is there, threads, and what they run on.

    usable_cpus are those that the affinity mask and the cgroups' quota (in processors, None for
    none) leave this process.
    """
    from cgpt import kernels
    from cgpt.runtime.processors import available, quota

    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction_set": kernels.instruction_set(),
        "instruction_sets": ", ".join(kernels.runnable()),
        "openmp": kernels.has_openmp(),
        "threads": kernels.get_num_threads(),
        "cpus": os.cpu_count(),
        "usable_cpus": available(),
        "cpu_quota": quota(),
    }


def description(found: dict[str, Any], width: int = WIDE, indent: int = 0) -> list[str]:
    """A nested description as indented lines; lists of objects become straight columns.

    width  cells that a line may take
    """
    lines: list[str] = []
    pad = " " * indent
    plain = {key: value for key, value in found.items() if not nested(value)}
    if isinstance(plain.get("seconds"), float):
        plain["seconds"] = t("seconds", n=f"{plain['seconds']:.1f}")
    lines += columns([(key, one_line(value)) for key, value in plain.items()], width, indent)
    for key, value in found.items():
        if isinstance(value, dict) and nested(value):
            lines += [f"{pad}{key}:", *description(value, width, indent + 2)]
        elif isinstance(value, list) and nested(value):
            lines += [f"{pad}{key}:", *table(value, width, indent + 2)]
    return lines


def nested(value: Any) -> bool:
    """A non-empty object or a list of objects."""
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], dict)


def table(rows: list[dict[str, Any]], width: int, indent: int) -> list[str]:
    """Objects with like keys in straight columns; a narrow screen goes without DETAILS."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for left_out in (*DETAILS, None):
        names = [t(HEADS[key]) if key in HEADS else key for key in keys]
        cells = [names] + [[short(row.get(key, "")) for key in keys] for row in rows]
        lines = folded(cells, width, indent)
        if len(lines) == len(cells):
            break
        keys = [key for key in keys if key != left_out]
    return lines


def short(value: Any) -> str:
    """As one_line; of a long list of names the first one and how many there are."""
    if isinstance(value, list) and len(value) > 4 and isinstance(value[0], str):
        return f"{value[0]} ... ({len(value)})"
    return one_line(value)


def one_line(value: Any) -> str:
    """A value as text; lists comma-joined, floats of five digits without exponent."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return t("yes") if value else t("no")
    if isinstance(value, float):
        near = float(f"{value:.5g}") if abs(value) < 1e4 else round(value, 0)
        return plain_number(near) if abs(value) < 1e15 else str(value)
    if isinstance(value, (list, tuple)):
        if len(value) > 12:
            return f"[{len(value)}]"
        return ", ".join(map(one_line, value))
    return str(value)
