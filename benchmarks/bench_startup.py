"""How long it takes to start: whole processes, in alternation, median and spread.

    python benchmarks/bench_startup.py [--repeats 11] [--json]

The bars: `import cgpt` under 0.25 s without jieba, click or rich; `cgpt --help` under 0.4 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

HEAVY = ("jieba", "click", "rich")
COMMANDS = {
    "bare python": [sys.executable, "-c", ""],
    "import numpy": [sys.executable, "-c", "import numpy"],
    "import cgpt": [sys.executable, "-c", "import cgpt"],
    "import cgpt, use GPT": [sys.executable, "-c", "import cgpt; cgpt.GPT"],
    "cgpt --help": [sys.executable, "-m", "cgpt", "--help"],
    "cgpt info": [sys.executable, "-m", "cgpt", "info"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def heavy_imports() -> list[str]:
    """Those of HEAVY that `import cgpt` brings in, with the public names used."""
    code = (
        "import sys, cgpt; [getattr(cgpt, name) for name in cgpt.__all__]; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.replace("'", '"'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)  # fills the disk cache
    for _ in range(options.repeats):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    found = {
        name: {"median": statistics.median(runs), "least": min(runs), "most": max(runs)}
        for name, runs in times.items()
    }
    if options.json:
        print(json.dumps({"seconds": found, "heavy_imports": heavy_imports()}))
        return
    for name, run in found.items():
        print(f"{name:22} {run['median']:.3f} s  ({run['least']:.3f} to {run['most']:.3f})")
    print(f"{'heavy imports':22} {', '.join(heavy_imports()) or 'none'}")


if __name__ == "__main__":
    main()
