"""Draw a file of prompts: `python -m jsd bulk PROMPTS --to FOLDER`. See docs/bulk.md.

A run that was stopped or killed goes on where it was, when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bulk import prompts
from bulk.rows import Problem, Row, make_row, model_digest
from jsd.errors import InputError, shown
from jsd.language import Text
from jsd.request import MAX_SEED

SHOWN = 10  # problems on the terminal
STOPPED = 130  # the exit code after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m jsd bulk` to `parser`."""
    parser.description = Text("Draw a file of prompts. Given again, the command goes on where it was stopped.")
    parser.add_argument(
        "prompts",
        type=Path,
        metavar="PROMPTS",
        help=".txt with a prompt a line, or .csv, .jsonl or .parquet whose columns are inputs of a request",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder, or an earlier run's")
    parser.add_argument(
        "--as",
        dest="form",
        choices=("shards", "files"),
        default="shards",
        help="pictures as webdataset shards (default) or as files; a Parquet table comes with both",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="rows without a seed get one that depends on this (default: 0)"
    )
    parser.add_argument(
        "--actors",
        type=_positive,
        metavar="N",
        help="processes that draw (default: one a GPU, or else as cores and memory allow)",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster (default: this machine alone)")
    parser.add_argument(
        "--save-every",
        type=_positive,
        default=30,
        metavar="SECONDS",
        help="how old pictures get before they are written: a killed run loses them (default: 30)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw the prompts. Returns the exit code: 1 if a row has no picture. Raises `JSDError` and `OSError`."""
    try:
        return _draw(arguments)
    except KeyboardInterrupt:
        print(Text("stopped; the same command goes on from here"), file=sys.stderr)
        return STOPPED


def _draw(arguments: argparse.Namespace) -> int:
    rows, problems = read_rows(arguments.prompts, arguments.seed, model_digest())
    count = len(rows) + len(problems)
    if not count:
        raise InputError(prompts.FILE, "{} has no rows", shown(arguments.prompts.name))
    prompts.require("pyarrow", "ray")
    from bulk import loop
    from bulk.output import open_output

    with open_output(arguments.to.absolute(), arguments.form == "files", arguments.save_every) as output:
        done = output.done_of(rows, problems)
        left = sum(row.number not in done for row in rows)
        problems = [problem for problem in problems if problem.row not in done]
        print(Text("{} rows: {} drawn before, {} to draw", count, len(done), left), flush=True)
        _show(problems)
        output.write_errors(problems)
        if left:
            found = loop.draw(rows, done, output, arguments.actors, arguments.address)
            _show(found)
            problems += found
        if file := output.write_errors(problems):
            print(Text("{} of {} rows have no picture: {} says why", len(problems), count, file), file=sys.stderr)
    return 1 if problems else 0


def read_rows(file: Path, seed: int, model: str) -> tuple[list[Row], list[Problem]]:
    """Read the prompts' file. Returns the rows that can be drawn, as far as can be told, and those that can't."""
    rows, problems = [], []
    folder = file.absolute().parent
    for number, values in prompts.read(file):
        try:
            if isinstance(values, InputError):
                raise values
            rows.append(make_row(number, values, folder, seed, model))
        except InputError as error:
            problems.append(Problem.of(number, error))
    return rows, problems


def _show(problems: Sequence[Problem]) -> None:
    """Print the first of the problems to stderr."""
    for problem in problems[:SHOWN]:
        name = f"{problem.input}: " * (problem.input not in ("", prompts.ROW))
        print(Text("row {}: {}{}", problem.row, name, problem.said or problem.reason), file=sys.stderr)
    if len(problems) > SHOWN:
        print(Text("... and {} more", len(problems) - SHOWN), file=sys.stderr)


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(Text("{} was given; a whole number from 1 is wanted", shown(text)))
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text[:20]) > MAX_SEED:
        raise argparse.ArgumentTypeError(Text("{} was given; a number from 0 to {} is wanted", shown(text), MAX_SEED))
    return int(text)
