"""Runs the command line of `jsd.cli` for `python -m jsd`, and exits with its exit code."""

import sys

from jsd.cli import main

if __name__ == "__main__":
    sys.exit(main())
