"""Every kernel on the rows of a training batch.

The same as `cgpt bench kernels`, with the same options (--help).
"""

import sys

from cgpt.cli.commands.bench import main

if __name__ == "__main__":
    sys.exit(main("kernels"))
