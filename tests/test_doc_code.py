"""The code in docs/ runs as it is printed; test_readme.py runs that of the READMEs."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from doc_code import PRELUDES, ROOT, documents, execute, faults, read, script

TEXT = """\
# A document
```python
import cgpt
x: int = 1
```
Text between.
```python no-run
x = cgpt.get_num_threads()
y = missing
```
```bash
python -c "this is not of the script"
```
"""


@pytest.mark.parametrize("name", [name for name in documents() if not name.startswith("README")])
def test_the_code_of_a_document_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    execute(name, read(ROOT / name), PRELUDES.get(name, ""))


def test_preludes_are_of_documents() -> None:
    assert set(PRELUDES) <= set(documents())


def test_lines_of_a_script_are_those_of_the_document() -> None:
    whole, run = script(TEXT).split("\n"), script(TEXT, run=True).split("\n")
    kept = {2: "import cgpt", 3: "x: int = 1"}
    more = {7: "x = cgpt.get_num_threads()", 8: "y = missing"}
    assert len(whole) == len(run) == len(TEXT.split("\n"))
    assert {at: line for at, line in enumerate(run) if line} == kept
    assert {at: line for at, line in enumerate(whole) if line} == {**kept, **more}


def test_wrong_code_is_noticed_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    execute("a.md", TEXT)
    with pytest.raises(NameError, match="missing") as info:
        execute("a.md", TEXT.replace(" no-run", ""))
    last = traceback.extract_tb(info.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == ("a.md", 9)


def test_wrong_types_are_noticed_with_their_line() -> None:
    """mypy looks at blocks that are not run too, and at arguments that would fail at run time."""
    wrong = '```python\nimport cgpt\n\ncgpt.set_num_threads("two")\n```\n'
    prelude = "z = 1\n"
    found = faults(
        [
            ("a.md", TEXT, ""),
            ("b.md", wrong, prelude),
            ("c.md", wrong.replace('"two"', "z"), prelude),
        ]
    )
    assert [line.partition(" error")[0] for line in found.splitlines()] == ["a.md:9:", "b.md:4:"]
    assert "missing" in found and '"str"; expected "int"' in found


def test_a_wrong_option_is_a_wrong_type() -> None:
    """Every call that generates has its options typed: a name that there is not, a wrong value."""
    calls = (
        "llm.generate('a', max_tokens=3)",
        "llm.generate(['a'], max_tokens=3)",
        "llm.stream('a', top_k='x')",
        "llm.chat([], max_tokens=3)",
        "llm.chat_stream([], stop=3)",
        "session.reply('a', max_tokens=3)",
        "session.stream('a', timeout='x')",
        "session.edit(0, 'a', tempretature=1.0)",
        "session.regenerate(n=2)",
        "llm.score('a', cancel=3)",
        "llm.embed('a', timeot=3)",
        "llm.gpt.generate([1], max_tokens=3)",
        "cgpt.SamplingConfig(max_tokens=3)",
        "llm.beam_search('a', cgpt.SamplingConfig(), logits_processors=[3])",
        "llm.continuation('a', seed='x')",
    )
    right = (
        "reply: cgpt.Generation = llm.chat([{'role': 'user', 'content': 'a'}], top_k=2)",
        "texts: list[cgpt.Generation] = llm.generate(['a'], stop='b', seed=None)",
        "with session.reply('a', cancel=threading.Event(), timeout=3) as stream: next(stream)",
        "name: str = stream.result.finish_reason",
        "stream.close()",
    )
    lines = [
        "```python no-run",
        "import threading, cgpt",
        "llm = cgpt.LLM.default()",
        "session = cgpt.ChatSession(llm)",
        *calls,
        *right,
        "```",
        "",
    ]
    found = faults([("a.md", "\n".join(lines), "")]).splitlines()
    errors = [line for line in found if " error: " in line]
    assert {int(line.split(":")[1]) for line in errors} == set(range(5, 5 + len(calls)))
