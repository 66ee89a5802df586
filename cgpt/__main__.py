"""`python -m cgpt` is the `cgpt` command."""

from cgpt.cli import main

if __name__ == "__main__":
    main()
