"""Runs the command line of `jsd.cli` for `python -m jsd`, and exits with its exit code."""

import sys

if __name__ == "__main__":
    # Python looks for modules in the caller's folder first. A random.py there is not meant.
    if not sys.flags.safe_path and __file__ != f"{sys.path[0]}/jsd/__main__.py":
        del sys.path[0]
    from jsd.cli import main

    sys.exit(main())
