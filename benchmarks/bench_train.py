"""Training speed, tokens a second.

The same as `cgpt bench train`, with the same options (--help).
"""

import sys

from cgpt.cli.commands.bench import main

if __name__ == "__main__":
    sys.exit(main("train"))
