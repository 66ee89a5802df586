"""Shared by all tests: two threads at most, so that a loaded machine does not stall them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("CGPT_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
