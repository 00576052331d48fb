"""The options of the training commands: numbers within limits, and files and folders that are checked beforehand.

`whole` and `number` make the types of argparse options. A value out of range is then an error that names the option.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsd.errors import InputError, TrainingError, shown
from jsd.language import Text

MAX_STEPS = 1_000_000_000
MAX_BATCH = 100_000
MAX_SIDE = 4096  # pixels
MAX_SEED = 2**53 - 1  # larger ones are rounded by other programs


def whole(least: int = 1, most: int = MAX_STEPS) -> Callable[[str], int]:
    """Return an argparse type that reads a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        digits = text.removeprefix("+")
        value = int(digits) if digits.isdecimal() and len(digits) <= 20 else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                Text("{} was given; a whole number from {} to {} is wanted", shown(text), least, most)
            )
        return value

    return parse


def number(least: float = -math.inf, most: float = math.inf, positive: bool = False) -> Callable[[str], float]:
    """Return an argparse type that reads a finite number from `least` to `most`. With `positive` it must be over 0."""
    if positive:
        wanted = Text("a number over 0")
    elif most < math.inf:
        wanted = Text("a number from {:g} to {:g}", least, most)
    else:
        wanted = Text("a number from {:g}", least) if least > -math.inf else Text("a number")

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most and (value > 0 or not positive)):
            raise argparse.ArgumentTypeError(Text("{} was given; {} is wanted", shown(text), wanted))
        return value

    return parse


def _shown(path: Path) -> str:
    return shown(str(path), 1000)


def check_folder(option: str, folder: Path) -> None:
    """Check that results can be written into a folder, which need not exist yet. Nothing is made.

    Raises `InputError`, which names the option, if it or the folder it would be made in is a file or read-only.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(option, "{} was given, but {} is a file; name a folder", _shown(folder), _shown(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(option, "{} can't be written to; name another folder, or change its rights", _shown(there))


def check_file(option: str, file: Path) -> None:
    """Check that a result can be written to a file. Raises `InputError` if it is a folder, or as `check_folder`."""
    if file.is_dir():
        raise InputError(option, "{} is a folder; name a file", _shown(file))
    check_folder(option, file.absolute().parent)


def read_lines(option: str, file: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without blank ones. Raises `InputError`, which names the option."""
    try:
        text = file.read_text("utf-8-sig")  # Windows begins a file with a byte order mark
    except OSError as error:
        raise InputError(
            option, "{} can't be read ({}); name a text file", _shown(file), Text(error.strerror)
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(option, "{} is not UTF-8 ({}); save it as UTF-8", _shown(file), error) from None
    return [line for line in text.splitlines() if line.strip()]


def read_record(file: Path, *wanted: str) -> dict[str, Any]:
    """Return the JSON object in a file that an earlier command wrote. It has to have the keys `wanted`.

    Raises `TrainingError` if the file is missing, unreadable or another one.
    """
    try:
        value = json.loads(file.read_text("utf-8"))
        problem = (
            "" if isinstance(value, dict) and set(wanted) <= value.keys() else Text("has no {}", ", ".join(wanted))
        )
    except FileNotFoundError:
        problem = Text("no such file")
    except (OSError, ValueError, RecursionError) as error:
        problem = Text("unreadable ({})", error)
    if problem:
        raise TrainingError("{}: {}; delete the folder that it is in, and run what wrote it again", file, problem)
    return value


def first_line(error: Exception) -> str:
    """Return the first line of an error's message. Some libraries go on for a page."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Context manager that turns the errors of a memory that is too small into a `TrainingError` with `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # of which torch's OutOfMemoryError is one
        from jsd.device import is_out_of_memory  # it imports torch, which these options do without

        if is_out_of_memory(error):
            raise TrainingError("out of memory; {}", advice) from error
        raise
