"""Where other packages are imported, what `import cgpt` costs, which public names there are."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typing_extensions
from small_llm import small_llm

import cgpt
from cgpt.checkpoint.saving import save_model_binary

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cgpt"

# Where the only imports of another package are.
HOMES = {
    "click": "cli",
    "jieba": "tokenizers/vocabulary.py",
    "platformdirs": "corpus/token_cache.py",
    "rich": "cli",
    "matplotlib": "plots",
    "tomli_w": "training/config_file.py",
    "tomllib": "training/config_file.py",
    "wcwidth": "cli",
}


def imports_of(source: str) -> set[str]:
    """Names of the packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_other_packages_are_imported_in_one_place() -> None:
    for path in PACKAGE.rglob("*.py"):
        where = path.relative_to(PACKAGE).as_posix()
        for name in imports_of(path.read_text(encoding="utf-8")) & set(HOMES):
            assert where.startswith(HOMES[name]), f"{where} imports {name}"


def test_imports_run_one_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The contracts of pyproject.toml hold, and one that does not hold is noticed."""
    linter = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    assert linter.lint_imports(no_cache=True) == 0
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = text[text.index("[tool.importlinter]") :]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        text.replace('"nn"', '"x"').replace('"models"', '"nn"').replace('"x"', '"models"')
    )
    assert linter.lint_imports(config_filename=str(wrong), no_cache=True) == 1


def test_import_stays_light() -> None:
    code = (
        "import sys, cgpt; cgpt.GPT; cgpt.Tokenizer; cgpt.Trainer; cgpt.ChatSession; "
        "cgpt.load_model_auto; "
        "print([m for m in ('jieba', 'click', 'rich', 'torch', 'platformdirs', 'wcwidth') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_chat_stays_light(tmp_path: Path) -> None:
    """Parts of NumPy that take longer to import than the model to load."""
    path = save_model_binary(small_llm(), tmp_path / "m.bin")
    code = (
        "import sys, cgpt; llm = cgpt.load_model_auto(sys.argv[1], training=False); "
        "list(cgpt.ChatSession(llm).reply('你好')); "
        "print([m for m in ('numpy.ma', 'numpy.random', 'jieba') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_public_names_exist() -> None:
    assert set(cgpt.__all__) == {*cgpt._HOME, "__version__"}
    for name in cgpt.__all__:
        assert getattr(cgpt, name) is not None
        # A module of that name would take the name's place as soon as it is imported.
        assert not any((PACKAGE / f"{name}{suffix}").exists() for suffix in ("", ".py", ".pyx"))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cgpt.nothing


# Types in public signatures that are parts of the inside: of a graph, of files, of processes.
INSIDE = {
    "SingleProcess",
    "Block",
    "Entry",
    "Graph",
    "Head",
    "InMemory",
    "InputLayer",
    "LanguageModel",
    "Layer",
    "LayerRecord",
    "ParameterArena",
    "Readable",
    "Sample",
    "Snapshot",
    "StoredTensor",
    "Templated",
    "TokenStore",
    "Writable",
}


def types_in(hint: Any) -> set[type]:
    """The classes that a type hint is made of."""
    inner = [
        one
        for argument in typing.get_args(hint)
        for one in (argument if isinstance(argument, list) else [argument])
    ]
    found = {one for argument in inner for one in types_in(argument)}
    return found | {hint} if isinstance(hint, type) and not inner else found


def signatures(public: Any) -> Iterator[Any]:
    """A function itself; of a class its fields and the methods that users call."""
    yield public
    for name, member in vars(public).items() if isinstance(public, type) else ():
        function = getattr(
            member, "fget", getattr(member, "func", getattr(member, "__func__", member))
        )
        if (name == "__init__" or not name.startswith("_")) and inspect.isfunction(function):
            yield function


def types_met(public: Any) -> set[str]:
    """Names of the package's types in the signatures of a public function or class."""
    found: set[type] = set()
    for one in signatures(public):
        names = {name: getattr(cgpt, name) for name in cgpt.__all__}
        names |= {"Unpack": typing_extensions.Unpack, "Self": typing_extensions.Self}
        for hint in typing.get_type_hints(one, localns=names).values():
            found |= types_in(hint)
    return {one.__name__ for one in found if one.__module__.split(".")[0] == "cgpt"}


@pytest.mark.parametrize(
    "name", [name for name in cgpt.__all__ if callable(getattr(cgpt, name)) and name != "Dialogue"]
)
def test_types_met_in_signatures_can_be_imported(name: str) -> None:
    missing = types_met(getattr(cgpt, name)) - set(cgpt.__all__) - INSIDE
    assert not missing, "add them to cgpt/__init__.py"


def test_a_type_that_is_missing_is_noticed() -> None:
    from cgpt.corpus.reader import Reading

    def public(one: list[Reading], *, more: Reading | None = None) -> None: ...

    public.__annotations__ = {"one": list[Reading], "return": None}
    assert types_met(public) == {"Reading"}
    assert types_met(cgpt.Trainer) >= {"LLM", "FitResult", "Progress", "Documents"}
