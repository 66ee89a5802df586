"""Fuzz a reader, guided by coverage, for a fixed number of inputs or for hours.

    python tests/fuzz/fuzz.py binary|adapter|json|data|import|cache|tokenizer|session
                              [-runs=N] [-max_total_time=N] [FOLDER]

FOLDER keeps the inputs that reached new code (made when missing); the seeds of targets.py are put
there first. Needs atheris (pip install 'cgpt[dev]', on Linux with CPython up to 3.13); its options
are those of libFuzzer. An input that raises what it must not is written beside as crash-... .
Three of four inputs have a value or a record changed instead of bytes (mutate.py).
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import atheris

sys.path.insert(1, str(Path(__file__).parent.parent))
with atheris.instrument_imports(include=["cgpt", "json"]):
    from targets import CHANGES, SEEDS, TARGETS


def mutated(name: str, data: bytes, size: int, seed: int) -> bytes:
    """The next input: what matters changed, or bytes as libFuzzer does."""
    found = CHANGES[name](data, seed) if seed % 4 else None
    return atheris.Mutate(data, size) if found is None or len(found) > size else found


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(__doc__)
    name = sys.argv.pop(1)
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    folder = Path(folders[0]) if folders else Path(tempfile.mkdtemp(prefix="cgpt-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]()):
        (folder / f"seed-{number}").write_bytes(seed)
    if not folders:
        sys.argv.append(str(folder))
    sys.argv.insert(1, "-max_len=50000")  # as long as the seeds; a later option counts
    atheris.Setup(sys.argv, TARGETS[name], custom_mutator=partial(mutated, name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
