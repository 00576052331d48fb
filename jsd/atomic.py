"""Write files atomically: a file appears whole under its name, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path beside `path` to write to, and then renames that file to `path`.

    The temporary name is hidden and keeps the suffix of `path`. If the block raises, the temporary file is removed and
    `path` stays as it was.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part{path.suffix}")
    try:
        with named(path, part):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def give_usual_permissions(file: Path) -> None:
    """Give a file the permissions that new files have here (by the umask).

    safetensors 0.8 lets nobody but the owner read what it writes (safetensors issue 782). A server in a container, with
    another user, could not open such weights.
    """
    usual = file.with_name(f".{secrets.token_hex(8)}.mode")
    usual.touch()
    try:
        shutil.copymode(usual, file)
    finally:
        usual.unlink()


@contextmanager
def named(path: Path, *others: Path) -> Iterator[None]:
    """Context manager: an `OSError` of its block that names no file, or one of `others`, names `path` afterwards.

    Most errors name their file. That of a full disk does not.
    """
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, *map(str, others)):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to the file `path` atomically: whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")
