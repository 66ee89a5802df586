"""Every message of an error that the source of cgpt can make, with samples in its fields.

A message is an expression in the source. It is evaluated here without running it: an f-string
becomes the texts that it can be, where a name is what is assigned to it or handed over for it,
a call what that function returns, and anything else a sample.
"""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

import cgpt
from cgpt.fileio import file_errors, file_kind

PACKAGE = Path(cgpt.__file__).parent
ERRORS = {
    "Cancelled",
    "CgptWarning",
    "PeerError",
    "Skip",
    "Unfinished",
    "CgptError",
    "ConfigError",
    "DataError",
    "CheckpointError",
    "InvalidRowsError",
}
# Of checkpoint/failures.py.
BUILDERS = {"damaged", "foreign", "other_version", "other_base", "not_saved"}
Function = ast.FunctionDef
MOST = 64  # texts of one expression of several fields; more only to have each value once

# What cannot be read off the source. An expression of one file is written "file: expression".
SAMPLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("path", "source", "file", "self.path", "file.path", "target"), ("models/m 1.bin",)
    ),
    "folder": ("models",),
    **dict.fromkeys(("phase", "self.phase", "state.phase"), ("pretrain", "finetune")),
    "error.strerror": (os.strerror(errno.EACCES), os.strerror(errno.ENOSPC)),
    "error.msg": ("Expecting value", "Extra data"),
    "error.reason": ("invalid start byte",),
    "kind_of(value)": (
        "an object",
        "a list",
        "a string",
        "true or false",
        "nothing",
        "the number 3",
    ),
    "kind.name.lower()": ("adam_m",),
    "record.label": ("tensor 'h.0.attn.ln.weight'", "vocabulary"),
    "repr(MAGIC)": (repr(b"\x89CGPT\r\n"),),
    "repr(JSON_OPENING)": (repr(b'{"format": '),),
    "fileio/file_kind.py: name": tuple(name for _, name in file_kind._SIGNATURES),
    "checkpoint/json_format.py: what": (
        "the weights",
        "Adam's m",
        "Adam's v",
        "the best weights",
        "the live weights",
    ),
    "checkpoint/contents.py: error": (
        "GPTConfig: n_head must be between 1 and 1024, found 0",
        "training state: unknown field 'x'; known: done, epoch",
    ),
    # raised by _codec.pyx
    "checkpoint/json_format.py: error": (
        "more than 8 numbers",
        "something else than numbers",
        "a number that is too large for float32",
    ),
    "fileio/strict_json.py: str(error)[:200]": ("a name that occurs twice in one object",),
    "cli/config_file.py: error": (
        "Invalid value (at line 1, column 6)",
        "'utf-8' codec can't decode byte 0xb5 in position 3: invalid start byte",
    ),
    "session_file.py: str(error)": ("SamplingConfig: top_k must be a whole number, found 'a'",),
    **dict.fromkeys(
        ("inputs.py: error", "inputs.py: fault"), ("found a list under 'text', expected a string",)
    ),
    **dict.fromkeys(
        ("invalid_rows.py: first", "invalid_rows.py: str(first)"),
        tuple(
            f"data/a.jsonl, {place}: {reason}"
            for place, reason in (
                ("item 3 (line 7)", "found a list under 'text', expected a string"),
                (
                    "item 3",
                    "no messages, expected at least one from the user and one from the assistant",
                ),
                ("line 7", "the key 'text' occurs twice in one object; remove one of the two"),
                ("row 7", "message 2 (assistant) is empty; fill it or remove the dialogue"),
                ("line 7, column 3", "broken JSON (Expecting value), found '}'; mend the file"),
            )
        ),
    ),
    "tables.py: error": ("unexpected end of data", "',' expected after '\"'"),
    "tables.py: ' '.join(str(error).split())[:200]": ("Parquet magic bytes not found.",),
    "readers.py: fault": ("the key 'text' occurs twice in one object; remove one of the two",),
    "bench/workers.py: answer['error']": (
        "CGPT_THREADS: found 'x', expected 1 to 1024; correct it or leave CGPT_THREADS unset",
    ),
    "bench/workers.py: answer['skip']": ("a step of 3.4 TFLOP takes too long",),
    "data.py: fault": (
        "no messages, expected at least one from the user and one from the assistant",
    ),
}
# Reasons that another function puts into a sentence, and such a sentence.
SETTINGS = file_errors.damaged(
    "m.bin", "optimizer settings that cannot be ({})", "betas, eps, weight_decay and step_count"
)
REASONS = {
    "Unusable": "data/a.json, item 3 (line 7): {}",
    "checkpoint/contents.py: ValueError": str(SETTINGS),
    "fileio/strict_json.py: TypeError": str(
        file_errors.not_saved(
            "m.bin",
            "metadata that JSON cannot hold ({})",
            "strings, finite numbers, lists and objects",
            "change metadata",
        )
    ),
    "session_file.py: ValueError": "a.json: not a session that cgpt saved ({}); choose another "
    "file",
    "fileio/strict_json.py: ValueError": str(
        file_errors.damaged("m.json", "in the tensor 'wte.weight' {}", "8 numbers")
    ),
}


class Source:
    """One module: its functions, and for each node the function around it."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.tree = ast.parse(text)
        self.around: dict[ast.AST, Function] = {}
        for node in ast.walk(self.tree):  # outer functions first, so the innermost stays
            if isinstance(node, ast.FunctionDef):
                self.around.update((child, node) for child in ast.walk(node) if child is not node)

    def scopes(self, node: ast.AST) -> Iterator[ast.AST]:
        """The functions around a node, innermost first, and the module."""
        inner: ast.AST | None = self.around.get(node)
        while inner is not None:
            yield inner
            inner = self.around.get(inner)
        yield self.tree


class Samples:
    """The texts of expressions of a package, given as name -> source."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = [Source(text, name) for name, text in sources.items()]
        self._known: dict[tuple[int, int], list[str]] = {}
        self.calls: dict[str, list[tuple[Source, ast.Call]]] = {}
        self.functions: dict[str, tuple[Source, Function]] = {}
        self.constants: dict[str, tuple[Source, ast.AST]] = {}  # FORMS, SUFFIXES, ...
        for source in self.sources:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Call):
                    self.calls.setdefault(_name(node.func), []).append((source, node))
                elif isinstance(node, ast.FunctionDef):
                    self.functions[node.name] = source, node
                elif isinstance(node, ast.Assign) and node not in source.around:
                    self.constants[getattr(node.targets[0], "id", "")] = source, node.value

    def messages(self) -> dict[str, list[str]]:
        """Place -> texts, for every error that is made in the sources."""
        found: dict[str, list[str]] = {}
        for source in self.sources:
            if source.name == "checkpoint/failures.py":  # seen where it is called
                continue
            for node in ast.walk(source.tree):
                texts = list(self._made(source, node))
                if texts:
                    found.setdefault(f"{source.name}:{node.lineno}", []).extend(texts)
        return found

    def _made(self, source: Source, node: ast.AST) -> Iterator[str]:
        called = _name(node.func) if isinstance(node, ast.Call) else ""
        wrap = REASONS.get(called) or REASONS.get(f"{source.name}: {called}")
        if isinstance(node, ast.Call) and called in ERRORS:
            yield from self.texts(source, node.args[0])
        elif isinstance(node, ast.Call) and called in BUILDERS and len(node.args) > 1:
            for parts in combined(self.texts(source, part) for part in node.args[1:]):
                yield str(getattr(file_errors, called)("models/m 1.bin", *parts))
        elif isinstance(node, ast.Call) and wrap:
            yield from (wrap.format(text) for text in self.texts(source, node.args[0]))
        elif isinstance(node, ast.Return) and node.value is not None and node in source.around:
            function = source.around[node].name
            if function == "_recognise" and isinstance(node.value, ast.Tuple):
                for parts in combined(self.texts(source, part) for part in node.value.elts):
                    yield str(file_errors.foreign("models/m 1.bin", *parts))

    def texts(self, source: Source, node: ast.AST, depth: int = 0) -> list[str]:
        """What an expression can be, as text."""
        key = id(node), depth
        if key not in self._known:
            self._known[key] = self._texts(source, node, depth)
        return self._known[key]

    def _texts(self, source: Source, node: ast.AST, depth: int) -> list[str]:
        code = ast.unparse(node)
        known = SAMPLES.get(f"{source.name}: {code}", SAMPLES.get(code))
        if known is not None:
            return list(known)
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            return [
                "".join(parts)
                for parts in combined(self.texts(source, part, depth) for part in node.values)
            ]
        if isinstance(node, ast.FormattedValue):
            found = self.texts(source, node.value, depth)
            return found if node.conversion == -1 else [repr(text) for text in found]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = (self.texts(source, side, depth) for side in (node.left, node.right))
            return [left + right for left, right in combined(sides)]
        if isinstance(node, ast.IfExp):
            return [*self.texts(source, node.body, depth), *self.texts(source, node.orelse, depth)]
        if isinstance(node, ast.BoolOp):
            return [text for part in node.values for text in self.texts(source, part, depth)]
        return (depth < 6 and self._elsewhere(source, node, depth + 1)) or ["7"]

    def _elsewhere(self, source: Source, node: ast.AST, depth: int) -> list[str]:
        """What is assigned to a name or handed over for it; what a function returns."""
        found: list[str] = []
        if isinstance(node, ast.Name):
            for scope in source.scopes(node):
                values = list(_assigned(scope, node.id))
                found = [text for value in values for text in self.texts(source, value, depth)]
                if isinstance(scope, ast.FunctionDef) and not found:
                    found = [
                        text
                        for place, value in self._handed(scope, node.id)
                        for text in self.texts(place, value, depth)
                    ]
                if found:
                    break
            if not found and node.id in self.constants:
                found = self.texts(*self.constants[node.id], depth)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in self.functions
        ):
            place, function = self.functions[_name(node.func)]
            if function.returns is not None and ast.unparse(function.returns) == "str":
                found = [
                    text
                    for one in ast.walk(function)
                    if isinstance(one, ast.Return) and one.value is not None
                    for text in self.texts(place, one.value, depth)
                ]
        elif isinstance(node, ast.Call) and _name(node.func) == "join":
            found = ["first, second"]
        return list(dict.fromkeys(found))

    def _handed(self, function: Function, name: str) -> Iterator[tuple[Source, ast.AST]]:
        """Arguments for a parameter in all calls of the function."""
        names = [argument.arg for argument in function.args.args]
        names = names[names[:1] == ["self"] :]
        for source, call in self.calls.get(function.name, []) if name in names else []:
            at = names.index(name)
            yield from ((source, value) for value in call.args[at : at + 1])
            yield from ((source, word.value) for word in call.keywords if word.arg == name)


def combined(parts: Iterable[list[str]]) -> list[tuple[str, ...]]:
    """Every combination of one value a part; where there are many, every value at least once."""
    found = list(parts)
    if prod(map(len, found)) <= MOST or not all(found):
        return list(product(*found))
    return [tuple(part[i % len(part)] for part in found) for i in range(max(map(len, found)))]


def _name(function: ast.AST) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _assigned(scope: ast.AST, name: str) -> list[ast.AST]:
    """The values that a scope assigns to a name."""
    return _assignments(scope).get(name, [])


@cache
def _assignments(scope: ast.AST) -> dict[str, list[ast.AST]]:
    """The values that a scope assigns, by name."""
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs: Iterable[tuple[ast.AST, ast.AST]] = zip(
                        target.elts, node.value.elts, strict=True
                    )
                else:
                    pairs = [(target, node.value)]
                for one, value in pairs:
                    found.setdefault(getattr(one, "id", ""), []).append(value)
    return found


def of_the_package() -> dict[str, list[str]]:
    """Place -> texts of all messages of cgpt, and those for what the system refuses."""
    sources = {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    return {**Samples(sources).messages(), "checkpoint/failures.py": list(_of_the_system())}


def _of_the_system() -> Iterator[str]:
    for number in (*file_errors._REASONS, errno.EBUSY, errno.ENOENT):
        error = OSError(number, os.strerror(number))
        yield str(file_errors.unwritable("models/m 1.bin", error))
        yield str(file_errors.unreadable("models/m 1.bin", error))
    for reason in ("a NUL character in the name", "half a character in the name"):
        yield str(file_errors.unwritable("m.bin", OSError(errno.EINVAL, reason)))
