"""The folder of a bulk run, written in parts, each whole or not at all. It is also the memory of a run that was killed.

    FOLDER/table/00000.parquet     one row a picture: see `drawing.COLUMNS`, and `file`
    FOLDER/pictures/00000.tar      the pictures of that part as a webdataset shard, or
    FOLDER/pictures/00000/         the same as files
    FOLDER/errors.csv              the rows without a picture, and why; only if there are any

The pictures of a part are written before its table. So a picture counts only once its table is there, and the next run
removes what a killed one left.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
import secrets
import shutil
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from bulk.drawing import COLUMNS
from bulk.rows import Problem, Row
from jsd.atomic import atomic_file, named
from jsd.errors import InputError, shown

PART_ROWS = 1000  # pictures
PART_BYTES = 1 << 27
LOCK = ".jsd-bulk"  # also tells that the folder is ours
PART = re.compile(r"[0-9]{5,}(\.tar)?")
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part")


class Output:
    """The folder of a run, made by `open_output`. It holds back pictures until a part is full, or `seconds` old."""

    def __init__(self, root: Path, as_files: bool, seconds: float):
        self.root, self.as_files, self.seconds = root, as_files, seconds
        self._table, self._pictures = root / "table", root / "pictures"
        self._held: list[pa.Table] = []
        self._since = 0.0

    def done_of(self, rows: Sequence[Row], problems: Sequence[Problem]) -> set[int]:
        """Return the numbers of the rows whose pictures are in the folder. `rows` and `problems` are the whole file of
        prompts.

        A file that a row names may have been removed since it was drawn. Raises `InputError` if a row that is there was
        drawn from other inputs than the file's.
        """
        tables = [_read_table(file) for file in sorted(self._table.glob("*.parquet"))]
        done = {row: digest for table in tables for row, digest in zip(*table.to_pydict().values(), strict=True)}
        wrong = [row.number for row in rows if done.get(row.number, row.digest) != row.digest]
        wrong += [problem.row for problem in problems if problem.row in done and not problem.unreadable]
        wrong += [number for number in done if number > len(rows) + len(problems)]
        if wrong:
            raise InputError(
                "--to",
                "row {} was drawn from other inputs, with another --seed or model; go on with the same, or give a new "
                "folder",
                wrong[0],
            )
        return set(done)

    def add(self, drawings: pa.Table) -> None:
        """Take pictures, all those of a row at once. Writes a part when it is time. Raises `OSError`."""
        if not self._held:
            self._since = time.monotonic()
        self._held.append(drawings)
        full = sum(len(table) for table in self._held) >= PART_ROWS or sum(t.nbytes for t in self._held) >= PART_BYTES
        if full or time.monotonic() - self._since >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write the pictures that are held back as a part. Raises `OSError`."""
        pictures = pa.concat_tables(self._held or [pa.table({})])
        if not len(pictures):
            return
        pictures = pictures.sort_by([("row", "ascending"), ("picture", "ascending")])
        numbers = [int(file.stem) for file in self._table.glob("*.parquet") if file.stem.isdecimal()]
        part = f"{max(numbers, default=-1) + 1:05d}"
        place = self._pictures / (part if self.as_files else f"{part}.tar")
        (_write_files if self.as_files else _write_shard)(place, pictures)
        names = [file_name(drawing) for drawing in pictures.select(["row", "picture", "suffix"]).to_pylist()]
        files = [name and f"pictures/{place.name}/{name}" for name in names]
        table = pictures.select(COLUMNS.names).append_column("file", pa.array(files, pa.string()))
        with atomic_file(self._table / f"{part}.parquet") as unfinished:
            parquet.write_table(table, unfinished)
        self._held = []

    def write_errors(self, problems: Iterable[Problem]) -> Path | None:
        """Write the table of rows without a picture, and return its path. If there are none, remove it."""
        file, problems = self.root / "errors.csv", sorted(problems, key=lambda problem: problem.row)
        if not problems:
            file.unlink(missing_ok=True)
            return None
        with atomic_file(file) as part, part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["row", "input", "reason"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(map(asdict, problems))
        return file


@contextmanager
def open_output(root: Path, as_files: bool, seconds: float) -> Iterator[Output]:
    """Context manager: make the folder of a run, or take up an earlier one. At its end what is held back is written.

    Raises `InputError` if there is something else in the folder, or if another run writes there.
    """
    if root.exists() and not (root / LOCK).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise InputError("--to", "{} has other files; give a new folder, or one of an earlier run", shown(str(root)))
    root.mkdir(parents=True, exist_ok=True)
    (root / LOCK).touch()
    with (root / LOCK).open() as lock:  # the system frees it when this process ends, also when it is killed
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("--to", "another run writes into {}; wait for its end", shown(str(root))) from None
        for folder in (root, root / "table", root / "pictures"):
            folder.mkdir(exist_ok=True)
            for path in [path for path in folder.iterdir() if UNFINISHED.match(path.name)]:
                _remove(path)
        for path in [path for path in (root / "pictures").iterdir() if PART.fullmatch(path.name)]:
            if not (root / "table" / f"{path.stem}.parquet").exists():
                _remove(path)
        output = Output(root, as_files, seconds)
        try:
            yield output
        finally:
            output.flush()


def file_name(drawing: Mapping[str, Any]) -> str | None:
    """Return the name of a picture's file, e.g. 00000001-0.png for the first of row 1. None if it was flagged."""
    return drawing["suffix"] and f"{drawing['row']:08d}-{drawing['picture']}.{drawing['suffix']}"


def _read_table(file: Path) -> pa.Table:
    """Return the columns row and digest of a part's table. Raises `InputError` if it is none."""
    try:
        return parquet.read_table(file, columns=["row", "digest"], partitioning=None)
    except pa.ArrowException as error:
        line = str(error).partition("\n")[0]
        raise InputError(
            "--to", "table/{} can't be read ({}); remove it, and its rows are drawn again", file.name, line
        ) from None


def _write_shard(place: Path, pictures: pa.Table) -> None:
    """Write the drawn pictures as a tar file. Each is a sample of webdataset: the picture, .json and .txt (prompt)."""
    with atomic_file(place) as part, tarfile.open(part, "w") as tar:
        for name, content in _contents(pictures):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _write_files(place: Path, pictures: pa.Table) -> None:
    """Write the drawn pictures as files into the folder `place`, which appears whole."""
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    _remove(place)  # of a try whose table could not be written
    part.mkdir()
    try:
        with named(place):
            for name, content in _contents(pictures, sidecars=False):
                (part / name).write_bytes(content)
        os.rename(part, place)
    finally:
        _remove(part)


def _contents(pictures: pa.Table, sidecars: bool = True) -> Iterator[tuple[str, bytes]]:
    for batch in pictures.to_batches(max_chunksize=50):
        for drawing in batch.to_pylist():
            if name := file_name(drawing):
                yield name, drawing["data"]
                if sidecars:
                    key = name.partition(".")[0]
                    yield f"{key}.json", drawing["metadata"].encode()
                    yield f"{key}.txt", drawing["prompt"].encode()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
