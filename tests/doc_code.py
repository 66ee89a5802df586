"""The Python code of the documents: what ```python blocks hold, as one script a document.

    python tests/doc_code.py [--pyright] [DOCUMENT...]

reads the scripts with mypy --strict, or with pyright, and ends with exit code 1 if one is wrong.

The blocks of a document run in order in one namespace. A block that begins with ```python no-run
is checked but not run. What a document takes for granted is in PRELUDES.
Every line of a script is where it is in the document, so that errors name the document's lines.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FENCE = re.compile(
    r"^```python\b(?P<words>[^\n]*)\n(?P<code>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL
)

_MODEL = """\
import cgpt
texts = ["长江全长约六千三百公里。", "天空是蓝色的。"]
dialogues = [(cgpt.Message("user", "你好"), cgpt.Message("assistant", "你好，很高兴见到你。"))]
llm = cgpt.LLM.from_texts(texts, cgpt.GPTConfig.preset("tiny"))
"""
PRELUDES = {
    "docs/data.md": """\
import cgpt
from pathlib import Path
Path("corpus").mkdir()
Path("corpus/law.txt").write_text("一段文字，再一段文字。", encoding="utf-8")
Path("corpus/other.txt").write_text("别的文字。", encoding="utf-8")
""",
    "docs/learning.md": _MODEL
    + """\
cgpt.save_model_binary(llm, "base.bin")
cgpt.save_model_binary(llm, "moved/base.bin")
import numpy as np
gpt = cgpt.GPT(cgpt.GPTConfig.preset("tiny"))
optimizer = cgpt.AdamW(gpt)
ids = targets = np.ones((1, 4), np.int32)
weights = np.ones((1, 4), np.float32)
dlogits = np.ones((1, 4, gpt.config.vocab_size), np.float32)
""",
    "docs/persistence.md": _MODEL
    + """\
documents = texts
trainer = cgpt.Trainer(llm, cgpt.TrainConfig(epochs=1))
cgpt.save_model_json(llm, "exports/model_final.json")
""",
    "docs/watching.md": _MODEL
    + """\
documents, others = texts, texts[:1]
trainer = cgpt.Trainer(llm, cgpt.TrainConfig(epochs=1))
""",
}


def documents() -> list[str]:
    """Every document with code in it, by its path in the repository."""
    paths = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths if FENCE.search(read(path)))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def script(text: str, *, run: bool = False) -> str:
    """The blocks of a document as one script; to `run`, without those that are not run."""
    lines = ["" for _ in text.split("\n")]
    for block in FENCE.finditer(text):
        if not (run and "no-run" in block["words"].split()):
            first = text.count("\n", 0, block.start("code"))
            code = block["code"].split("\n")
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def execute(name: str, text: str, prelude: str = "") -> None:
    """Run the code of a document in the current folder."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(prelude, f"{name}: prelude", "exec"), space)
    exec(compile(script(text, run=True), name, "exec"), space)


MYPY = (
    "mypy",
    "--strict",
    "--no-error-summary",
    "--config-file",
    str(ROOT / "pyproject.toml"),
    "--cache-dir",
    str(ROOT / ".mypy_cache"),
)
PYRIGHT = ("pyright", "--pythonpath", sys.executable)


def faults(names: Iterable[tuple[str, str, str]], checker: Sequence[str] = MYPY) -> str:
    """What a type checker has to say of (name, text, prelude) documents, by the text's lines."""
    found = ""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
        for number, (name, text, prelude) in enumerate(names):
            file = f"document_{number}.py"
            before = prelude.count("\n")
            (Path(folder) / file).write_text(prelude + script(text), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", *checker, file],
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
                env={**os.environ, "MYPYPATH": str(ROOT)},
            )
            if done.returncode:
                found += re.sub(
                    rf"^.*?{file}:(\d+)",
                    lambda line, name=name, before=before: f"{name}:{int(line[1]) - before}",
                    done.stdout,
                    flags=re.MULTILINE,
                )
                found += done.stderr
    return found


def main() -> int:
    checker = PYRIGHT if "--pyright" in sys.argv else MYPY
    names = [name for name in sys.argv[1:] if name != "--pyright"] or documents()
    found = faults(((name, read(ROOT / name), PRELUDES.get(name, "")) for name in names), checker)
    print(found.strip() or f"no issues found in the code of {', '.join(names)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
