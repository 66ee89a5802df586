"""A side's own process: `python -m cgpt.bench.worker MODULE`.

Reads one JSON object a line on stdin and answers each with one on stdout, until stdin ends:
    {"do": "prepare", "task": ..., details}  MODULE.TASKS[task](**details) builds, warms up and
                                             gives the function that "measure" calls
    {"do": "measure"}                        what that function returns
    {"do": "memory"}                         {"peak", "resident"} in bytes
An answer is {"value": ...}, {"skip": why this side cannot} or {"error": the user's mistake}.
What libraries print on stdout goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cgpt.bench.measure import Skip
from cgpt.errors import CgptError


def memory() -> dict[str, float]:
    """Most bytes of this process that were in memory at once, and those that are now.

    Linux tells both for the program that runs now; elsewhere getrusage gives the peak for both.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file)
        return {
            name: 1024.0 * int(lines[key].split()[0])
            for name, key in (("peak", "VmHWM"), ("resident", "VmRSS"))
        }
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = float(most if sys.platform == "darwin" else 1024 * most)
        return {"peak": peak, "resident": peak}


def serve(module: str) -> None:
    """Answer lines until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measure: Callable[[], Any] | None = None
    for line in sys.stdin:
        details = json.loads(line)
        do = details.pop("do")
        answer: dict[str, Any] = {"value": None}
        try:
            if do == "prepare":
                measure = None  # frees what it holds before the next is built
                measure = import_module(module).TASKS[details.pop("task")](**details)
            elif do == "memory":
                answer["value"] = memory()
            elif measure is not None:
                answer["value"] = measure()
        except Skip as reason:
            answer = {"skip": str(reason)}
        except CgptError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
