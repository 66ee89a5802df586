"""Decoding speed, tokens a second, batch 1.

The same as `cgpt bench decode`, with the same options (--help).
"""

import sys

from cgpt.cli.commands.bench import main

if __name__ == "__main__":
    sys.exit(main("decode"))
