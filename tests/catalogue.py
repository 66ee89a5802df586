"""The catalogue cgpt/locale/zh.po against the texts of the source.

    python tests/catalogue.py           says what is missing, unused, or has other fields (lint)
    python tests/catalogue.py --update  adds what is missing, with no Chinese yet, and removes what
                                        is unused; the file is sorted anew
    python tests/catalogue.py --compile makes zh.mo, which the build does too

A text is the first argument of t(), N_(), Phrase() or of an error or warning of cgpt; the
arguments in ARGUMENTS, and whatever is written as help="...".
"""

from __future__ import annotations

import ast
import errno
import os
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

PACKAGE = Path(__file__).parent.parent / "cgpt"
PO = PACKAGE / "locale" / "zh.po"
HEADER = b'msgid ""\nmsgstr ""\n"Language: zh\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'

# Function -> which of its arguments are texts; those of errors and their subclasses are added.
ARGUMENTS = {
    "t": (0,),
    "N_": (0,),
    "Phrase": (0,),
    "Row": (0,),
    "_wrong": (0,),
    "_error": (0,),
    "expect": (3,),
    "list_of": (3,),
    "damaged": (1, 2),
    "other_version": (1, 2),
    "other_base": (1, 2),
    "foreign": (1, 2, 3),
    "not_saved": (1, 2, 3),
}
ERRORS = {"CgptError", "CgptWarning"}
KEYWORDS = ("help",)


def sources(folder: Path = PACKAGE) -> dict[str, ast.Module]:
    """Path -> syntax tree of every module."""
    return {
        path.relative_to(folder.parent).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }


def error_classes(trees: dict[str, ast.Module]) -> set[str]:
    """Names of the classes of ERRORS and of all that are derived from them."""
    bases = {
        node.name: {_name(base) for base in node.bases}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = set(ERRORS)
    while more := {name for name in bases if name not in found and bases[name] & found}:
        found |= more
    return found


def texts(tree: ast.Module, arguments: dict[str, tuple[int, ...]]) -> Iterator[tuple[int, str]]:
    """(line, text or "context\\4text") of a module. A text that is put together where it stands is
    given as it is written, behind "!"."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = _name(call.func)
        contexts = list(_literals(call.args[1])) if name == "N_" and call.args[1:] else []
        mark = "".join(f"{context}\x04" for context in contexts)
        wanted = [call.args[n] for n in arguments.get(name, ()) if n < len(call.args)]
        wanted += [word.value for word in call.keywords if word.arg in KEYWORDS]
        for node in wanted:
            for text in _literals(node):
                yield node.lineno, mark + text


def _literals(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)
    elif isinstance(node, (ast.JoinedStr, ast.BinOp)):
        yield "!" + ast.unparse(node)


def _name(function: ast.AST) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def extracted(trees: dict[str, ast.Module]) -> dict[str, str]:
    """Text -> the first place where it stands."""
    arguments = ARGUMENTS | dict.fromkeys(error_classes(trees), (0,))
    found: dict[str, str] = dict.fromkeys(FOREIGN, "tests/catalogue.py")
    for path, tree in trees.items():
        for line, text in texts(tree, arguments):
            found.setdefault(text, f"{path}:{line}")
    for path in sorted(PACKAGE.rglob("*.pyx")):  # no Python that ast reads
        for text in re.findall(r'Phrase\("([^"]+)"', path.read_text("utf-8")):
            found.setdefault(text, path.name)
    found.pop("", None)
    return found


def entries(catalogue: Catalog) -> dict[str, Message]:
    """Text, with its context where it has one -> entry."""
    return {
        f"{one.context}\x04{one.id}" if one.context else str(one.id): one
        for one in catalogue
        if one.id
    }


def fields(text: str) -> set[tuple[str, str | None, str | None]]:
    """Names of the fields of a template, each with its form."""
    try:
        found = list(string.Formatter().parse(text))
    except ValueError:  # braces of a text that has no fields
        return set()
    return {(name, spec, conversion) for _, name, spec, conversion in found if name is not None}


def problems(found: dict[str, str], known: dict[str, Message]) -> list[str]:
    """What is wrong, a line each."""
    wrong = [
        f"{place}: {text[1:]} is not a literal; give a template and fields"
        for text, place in found.items()
        if text.startswith("!")
    ]
    wanted = {text: place for text, place in found.items() if not text.startswith("!")}
    wrong += [
        f"{place}: no Chinese of {text!r}"
        for text, place in wanted.items()
        if text not in known or not known[text].string
    ]
    wrong += [f"zh.po: nothing says {text!r}" for text in known.keys() - wanted.keys()]
    wrong += [
        f"zh.po: other fields in the Chinese of {text!r}"
        for text, one in known.items()
        if one.string and fields(str(one.id)) != fields(str(one.string))
    ]
    return wrong


def read() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file)


def write(found: dict[str, str], known: dict[str, Message]) -> None:
    """The catalogue of the texts found, sorted, with the Chinese that is known."""
    catalogue = Catalog()
    for text in sorted(found):
        if not text.startswith("!"):
            context, _, template = text.rpartition("\x04")
            chinese = known[text].string if text in known else ""
            catalogue.add(template, chinese, context=context or None)
    with PO.open("wb") as file:
        file.write(HEADER)
        write_po(file, catalogue, width=0, omit_header=True, no_location=True)


def outdated() -> bool:
    """Whether zh.po has changed since zh.mo was made of it."""
    compiled = PO.with_suffix(".mo")
    return not compiled.exists() or compiled.stat().st_mtime < PO.stat().st_mtime


def compile_catalogue() -> None:
    """zh.mo beside zh.po, replaced in one step."""
    target = PO.with_suffix(f".{os.getpid()}.tmp")
    with target.open("wb") as file:
        write_mo(file, read())
    target.replace(PO.with_suffix(".mo"))


# What the system says by these numbers, and Python of JSON, text and TOML; looked up as it is.
NUMBERS = (
    "ENOENT EACCES EPERM ENOSPC EDQUOT EFBIG EROFS EISDIR ENOTDIR EEXIST ENAMETOOLONG ELOOP "
    "EIO EBUSY EINVAL EMFILE ENFILE ENXIO ENODEV ENOMEM ETXTBSY ESTALE EPIPE EOPNOTSUPP EBADF"
)
FOREIGN = (
    *(os.strerror(getattr(errno, name)) for name in NUMBERS.split() if hasattr(errno, name)),
    "Expecting value",
    "Expecting property name enclosed in double quotes",
    "Expecting ':' delimiter",
    "Expecting ',' delimiter",
    "Unterminated string starting at",
    "Invalid control character at",
    "Invalid \\escape",
    "Invalid \\escape: ",
    "Invalid \\uXXXX escape",
    "Illegal trailing comma before end of object",
    "Illegal trailing comma before end of array",
    "Extra data",
    "Circular reference detected",
    "Out of range float values are not JSON compliant",
    "invalid start byte",
    "invalid continuation byte",
    "unexpected end of data",
    "',' expected after '\"'",
    "line contains NUL",
    "Invalid value",
    "Invalid statement",
    "Invalid initial character for a key part",
    "Expected '=' after a key in a key/value pair",
    "Expected newline or end of document after a statement",
    "Expected ']' at the end of a table declaration",
    "Cannot overwrite a value",
    "Unterminated string",
    "Unclosed array",
    "Unclosed inline table",
    "Unescaped '\\' in a string",
)


def main() -> int:
    found = extracted(sources())
    known = entries(read())
    if "--update" in sys.argv:
        write(found, known)
    if "--update" in sys.argv or "--compile" in sys.argv:
        compile_catalogue()
        return 0
    wrong = problems(found, known)
    print("\n".join(wrong) or f"zh.po: {len(known)} texts, nothing missing, nothing unused")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
