"""A JSON text with one of its values changed, so that what is behind the parser is reached."""

from __future__ import annotations

import json
import random
from typing import Any

VALUES = (None, True, False, 0, 1, -1, 7, 1 << 31, 1 << 63, 10**30, 0.5, -0.0, 1e-40, 1e39, 1e308,
          "", "x", "\ud800", [], [[]], {}, {"": 0})


def changed_value(data: bytes, seed: int) -> bytes | None:
    """One value replaced, removed or put twice, or another in its place; None where it cannot be.

    It is found from the root on, each member as likely as the others beside it, so that a setting
    is met more often than one of a thousand numbers.
    """
    draw = random.Random(seed)
    try:
        root = json.loads(data)
        place, other = _place(root, draw), _place(root, draw)
        if place is None or other is None:
            return None
        _change(*place, draw.choice([*VALUES, other[0][other[1]]]), draw)
        return json.dumps(root, ensure_ascii=draw.random() < 0.5).encode()
    except (ValueError, RecursionError):    # no JSON, half a surrogate, a value within itself
        return None


def _place(root: Any, draw: random.Random) -> tuple[Any, Any] | None:
    """(object or list, name or number) of a value; None where there is none."""
    found, one = None, root
    while isinstance(one, (dict, list)) and one and (found is None or draw.random() < 0.8):
        key = draw.choice(list(one)) if isinstance(one, dict) else draw.randrange(len(one))
        found, one = (one, key), one[key]
    return found


def _change(owner: Any, key: Any, value: Any, draw: random.Random) -> None:
    """Change owner[key]; `value` is what may take its place."""
    old, action = owner[key], draw.randrange(8)
    if action == 0:
        del owner[key]
    elif action == 1 and isinstance(owner, list):
        owner.insert(key, old)
    elif action == 1:
        owner[draw.choice(["", "x", "data", f"{key}_"])] = old
    elif action < 4 and isinstance(old, (int, float)):
        owner[key] = old + draw.choice([-1, 1])
    else:
        owner[key] = value
