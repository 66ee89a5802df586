"""An option is declared once: a made-up one is everywhere as soon as it has a field."""

from __future__ import annotations

import importlib.util
import inspect
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from click.testing import CliRunner

from cgpt.cli import flags
from cgpt.cli.app import Command
from cgpt.cli.app import option as own_flag
from cgpt.cli.run_config import given, read_config
from cgpt.config import GPTConfig, RunConfig, SamplingConfig, TrainConfig
from cgpt.config.declaration import Options, documented, option, options_of
from cgpt.errors import ConfigError
from cgpt.generation.keywords import FurtherOptions, SamplingOptions, read_options

CONFIGS = (GPTConfig, TrainConfig, SamplingConfig, RunConfig)


@documented
@dataclass(frozen=True)
class More(SamplingConfig):
    """How the next token is chosen, and how much it sparkles."""

    sparkle: float = option(
        0.5,
        minimum=0.0,
        maximum=1.0,
        group="sampling",
        aliases=("glitter",),
        help="how much a token sparkles, 0 not at all",
    )


@documented
@dataclass(frozen=True)
class MoreTraining(TrainConfig):
    """How one phase is trained, and how boldly."""

    mood: str | None = option(None, choices=("bold", "shy"), group="recipe", help="boldness")


@click.command("talk", cls=Command)
@own_flag("--config", is_eager=True, callback=read_config, expose_value=False)
@flags.all_of(*flags.flags("sampling", defaults=True, configs=(More,)).values())
@flags.all_of(*flags.flags("recipe", configs=(MoreTraining,)).values())
def talk(**values: Any) -> None:
    """A command with the made-up options."""
    sampling = flags.sampling_config(values, More)
    click.echo(json.dumps([sampling.to_dict(), given(values, MoreTraining, "recipe")]))


def talked(*args: str, env: dict[str, str] | None = None) -> tuple[Any, Any]:
    result = CliRunner().invoke(talk, args, env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    sampling, training = json.loads(result.output)
    return sampling, training


def test_a_new_option_is_on_the_command_line() -> None:
    sampling, training = talked()
    assert sampling["sparkle"] == 0.5 and training == {}
    sampling, training = talked("--sparkle", "0.25", "--mood", "shy")
    assert sampling["sparkle"] == 0.25 and training == {"mood": "shy"}
    assert {one.name: one for one in talk.params}["sparkle"].opts == ["--sparkle"]


@pytest.mark.parametrize(
    "args", [("--sparkle", "1.5"), ("--sparkle", "x"), ("--mood", "grim")], ids=" ".join
)
def test_the_command_line_refuses_what_cannot_be(args: tuple[str, str]) -> None:
    assert CliRunner().invoke(talk, args).exit_code == 2


def test_a_new_option_is_in_the_environment() -> None:
    sampling, training = talked(env={"CGPT_SPARKLE": "0.75", "CGPT_MOOD": "bold"})
    assert sampling["sparkle"] == 0.75 and training == {"mood": "bold"}


def test_a_new_option_is_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('sparkle = 0.125\nmood = "bold"\n')
    sampling, training = talked("--config", str(file))
    assert sampling["sparkle"] == 0.125 and training == {"mood": "bold"}
    assert talked("--config", str(file), "--sparkle", "1")[0]["sparkle"] == 1


def test_a_new_option_is_in_json() -> None:
    kept = json.loads(json.dumps(More(sparkle=0.25).to_dict()))
    assert kept["sparkle"] == 0.25 and More.from_dict(kept) == More(sparkle=0.25)


def test_a_new_option_is_validated_and_described() -> None:
    with pytest.raises(ConfigError, match=r"More: sparkle must be .* in \[0.0, 1.0\], found 2"):
        More(sparkle=2)
    with pytest.raises(ConfigError, match="MoreTraining: unknown mood 'grim'; known: bold, shy"):
        MoreTraining(mood="grim")
    with pytest.raises(ConfigError, match="unknown field 'sparkel'; did you mean 'sparkle'"):
        More.from_dict({"sparkel": 1})
    assert "how much a token sparkles" in inspect.getdoc(More)


def test_a_new_option_is_a_keyword_of_calls() -> None:
    assert read_options("talk", {"sparkle": 0.0}, More()).sampling == More(sparkle=0.0)
    with pytest.raises(ConfigError, match="unknown option 'sparkle'"):
        read_options("talk", {"sparkle": 0.0}, SamplingConfig())


def test_what_other_libraries_call_an_option_is_pointed_to_ours() -> None:
    for name, one in options_of(SamplingConfig).items():
        for alias in one.aliases:
            with pytest.raises(ConfigError, match=f"'{alias}'; did you mean '{name}'"):
                read_options("talk", {alias: 1}, SamplingConfig())


def test_the_keywords_of_generate_have_the_types_of_the_fields() -> None:
    """A TypedDict cannot be made of a dataclass; this one is the same."""
    further = {"cancel", "timeout", "logits_processors", "logprobs", "top_logprobs"}
    keywords, types = get_type_hints(SamplingOptions), get_type_hints(SamplingConfig)
    declared = {name: types[name] for name in options_of(SamplingConfig)}
    wider = {"stop": str | types["stop"] | None}
    assert keywords.keys() - further == declared.keys()
    assert {name: keywords[name] for name in declared} == {**declared, **wider}
    assert SamplingOptions.__annotations__.keys() > FurtherOptions.__annotations__.keys()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda one: one.__name__)
def test_every_option_says_what_it_is(config: type[Options]) -> None:
    for name, one in options_of(config).items():
        assert one.doc or one.help, f"{config.__name__}.{name} says nothing"
        assert f"    {name} " in (config.__doc__ or "")
        assert one.checked("x", one.default) == one.default or name == "n_ff"


def test_fields_without_a_declaration_are_those_of_other_configurations() -> None:
    bare = {one.name for config in CONFIGS for one in fields(config)} - {
        name for config in CONFIGS for name in options_of(config)
    }
    assert bare == {"pretrain_train", "finetune_train"}


def test_the_table_of_the_documentation_is_that_of_the_declarations() -> None:
    path = Path(__file__).parent.parent / "docs" / "make_options.py"
    spec = importlib.util.spec_from_file_location("make_options", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run docs/make_options.py"


def test_a_declaration_has_no_unknown_part() -> None:
    with pytest.raises(TypeError, match="minimun"):
        option(1, minimun=0)


def test_a_declaration_says_how_its_type_is_checked() -> None:
    @dataclass(frozen=True)
    class Named(Options):
        name: str = option("x", help="a name")

    with pytest.raises(TypeError, match="name: an option of the type str needs choices or a check"):
        Named()


def test_every_flag_of_a_group_is_one_of_a_command() -> None:
    known = {
        param.name: param for command in ("train", "chat") for param in _command(command).params
    }
    for config in CONFIGS:
        for name, one in options_of(config).items():
            if one.help and one.group:
                assert known[name].help == one.help


def _command(name: str) -> click.Command:
    from cgpt.cli.root import cgpt as root

    found = root.get_command(click.Context(root), name)
    assert found is not None
    return found
