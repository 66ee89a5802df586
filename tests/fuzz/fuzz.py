"""Fuzz a reader, guided by coverage, for a fixed number of inputs or for hours.

    python tests/fuzz/fuzz.py binary|json|data [-runs=N] [-max_total_time=SECONDS] [FOLDER]

FOLDER keeps the inputs that reached new code (made when missing); the seeds of targets.py are put
there first. Needs atheris (pip install 'cgpt[dev]', on Linux with CPython up to 3.13); its options
are those of libFuzzer. An input that raises what it must not is written beside as crash-... .
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cgpt", "json"]):
    from targets import SEEDS, TARGETS


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
    sys.argv.insert(1, "-max_len=50000")    # as long as the seeds; a later option counts
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
