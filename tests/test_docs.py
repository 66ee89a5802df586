"""The documents: every public name is in the API reference, and every path they name exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import cgpt

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    if path.name != "CHANGELOG.md"
)
PATHS = re.compile(r"`((?:cgpt|tests|docs|examples|benchmarks)/[\w./-]*\w(?:/|\.\w+)?)`")


def test_every_public_name_is_in_the_reference() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == made, "run python docs/make_api.py"
    listed = {line.rpartition(".")[2] for line in made.split("\n") if line.startswith("::: ")}
    assert set(cgpt.__all__) - {"__version__"} == listed


@pytest.mark.parametrize("name", PAGES)
def test_paths_and_links_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    wrong = [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]
    wrong += [path for path in PATHS.findall(text) if not (ROOT / path).exists()]
    assert not wrong
