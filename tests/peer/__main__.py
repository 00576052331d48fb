"""Run the tests of diffusers for its Stable Diffusion pipelines and samplers, on its own classes and on ours.

    script/peer-tests FOLDER [-k EXPRESSION]

FOLDER is a checkout of diffusers, or any folder with its `tests/`. The last lines say how many tests pass on each, and
name each that passes on stock and fails on ours, with the reason if it is known. The exit status is 1 if one is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.peer.suites import LEFT_OUT, PIPELINES, report, run


def main() -> None:
    """Run the tests twice, and print the report."""
    parser = argparse.ArgumentParser(prog="script/peer-tests", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a checkout of diffusers, or a folder with its tests/")
    parser.add_argument("-k", default=LEFT_OUT, metavar="EXPRESSION", help="of pytest: which tests")
    arguments = parser.parse_args()
    if not (arguments.folder / "tests" / PIPELINES[0]).is_file():
        parser.error(f"{arguments.folder}: has no tests/{PIPELINES[0]}")
    lines = report(*(run(mode, arguments.folder.resolve(), arguments.k) for mode in ("stock", "ours")))
    print("\n".join(lines))
    sys.exit(any(line.endswith("UNEXPLAINED") for line in lines))


main()
