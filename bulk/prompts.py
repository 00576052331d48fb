"""Read prompts from a file: .txt with a prompt a line, or .csv, .jsonl or .parquet with inputs of a request as columns.

Text is UTF-8, with or without a byte order mark. A row that can't be read does not stop the others. A file in which no
row could be right, because it has another format or a wrong column, is refused.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsd.errors import InputError, MissingPackageError, shown
from jsd.inputs import FILES, NAMES, OTHER_NAMES, parse_inputs
from jsd.language import Text

FILE = "PROMPTS"  # what errors about the whole file are called
ROW = "row"  # what errors about a whole row are called
EMPTY = InputError(ROW, "empty; every row needs a prompt")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the byte order marks


def read(file: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Yield the number of each row, from 1, and its values by the names of the inputs, or the error that it holds.

    The header of a .csv file is not counted. `image` and `mask` are paths, as they stand in the file. An empty cell and
    a null leave an input out. Raises `InputError` for a file that is refused, and `OSError`.
    """
    if file.suffix.lower() not in READERS:
        raise InputError(FILE, "{} was given; a name ending in {} is wanted", shown(file.name), ", ".join(READERS))
    rows, parse = READERS[file.suffix.lower()]
    for number, row in enumerate(rows(file), 1):
        try:
            if isinstance(row, InputError):
                raise row
            yield number, parse(row)
        except InputError as error:
            yield number, error


def require(*packages: str) -> None:
    """Raise `MissingPackageError` if a package is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingPackageError("the package {} is missing; run script/bootstrap {}", package, "bulk")


def _lines(file: Path, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a text file. Bytes that are not UTF-8 become lone surrogates, which `_utf8` finds."""
    with file.open("rb") as stream:
        if stream.read(2) in UTF_16:
            raise InputError(FILE, "{} is UTF-16; save it as UTF-8", shown(file.name))
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as stream:
        yield from stream


def _utf8(name: str, text: str) -> str:
    """Return a text. Raises `InputError` if it held bytes that are not UTF-8."""
    if wrong := next((c for c in text if "\udc80" <= c <= "\udcff"), None):
        byte = Text("byte 0x{:02x} at character {}", ord(wrong) - 0xDC00, text.index(wrong) + 1)
        raise InputError(name, "{} is not UTF-8; save the file as UTF-8, not as Shift_JIS", byte)
    return text


def _prompt(line: str) -> dict[str, Any]:
    if not line.strip():
        raise EMPTY
    return {"prompt": _utf8("prompt", line.rstrip("\n"))}


def _records(file: Path) -> Iterator[tuple[list[str], list[str]] | InputError]:
    """Yield the names of the columns and the cells of each row of a .csv file."""
    reader = csv.reader(_lines(file, newline=""), strict=True)
    names: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = InputError(FILE if names is None else ROW, "not CSV ({})", error)
            if names is None:
                raise wrong from None
            yield wrong
            continue
        if names is None:
            names = _columns(cells)
        else:
            yield names, cells


def _from_record(record: tuple[list[str], list[str]]) -> dict[str, Any]:
    names, cells = record
    if not any(cell.strip() for cell in cells):
        raise EMPTY
    if len(cells) != len(names):
        raise InputError(ROW, "{} values were given for {} columns; quote a value with a comma", len(cells), len(names))
    given = {name: _utf8(name, cell) for name, cell in zip(names, cells, strict=True) if cell}
    paths = {name: given.pop(name) for name in FILES if name in given}
    return parse_inputs([f"{name}={cell}" for name, cell in given.items()]) | paths


def _from_json(line: str) -> dict[str, Any]:
    if not line.strip():
        raise EMPTY
    try:
        values = json.loads(_utf8(ROW, line), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(ROW, "not JSON ({})", error) from None
    if not isinstance(values, dict):
        raise InputError(ROW, '{} was given; an object is wanted, e.g. {{"prompt": "猫", "seed": 1}}', shown(values))
    return _without_nulls(values.items())


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises `InputError` if an input is given twice, also by its other name."""
    names = Counter(OTHER_NAMES.get(name, name) for name, _ in pairs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(shown(twice[0])[1:-1], "given twice")
    return dict(pairs)


def _batches(file: Path) -> Iterator[list[tuple[str, Any]]]:
    """Yield the rows of a Parquet file, each as pairs of a name and a scalar of pyarrow."""
    require("pyarrow")
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            names = _columns(table.schema_arrow.names)
            for batch in table.iter_batches():
                for i in range(batch.num_rows):
                    yield [(name, column[i]) for name, column in zip(names, batch.columns, strict=True)]
    except pyarrow.ArrowException as error:
        raise InputError(FILE, "{} can't be read as Parquet ({})", shown(file.name), error) from None


def _from_scalars(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = []
    for name, scalar in pairs:
        try:
            values.append((name, scalar.as_py()))
        except UnicodeDecodeError as error:
            byte = Text("byte 0x{:02x}", error.object[error.start])
            raise InputError(name, "{} is not UTF-8; write the file with UTF-8 strings", byte) from None
    values = _without_nulls(values)
    if not values:
        raise EMPTY
    return values


def _without_nulls(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {OTHER_NAMES.get(name, name): value for name, value in values if value is not None}


def _columns(names: Sequence[str]) -> list[str]:
    """Return the names of a table's columns as a request has them. Raises `InputError` for a wrong one."""
    names = [name.strip() for name in names]
    known = [OTHER_NAMES.get(name, name) for name in names]
    for given, name in zip(names, known, strict=True):
        if name not in NAMES:
            raise InputError(FILE, "there is no input called {}; columns may be {}", shown(given), ", ".join(NAMES))
    if twice := [name for name, count in Counter(known).items() if count > 1]:
        raise InputError(FILE, "two columns are {}", twice[0])
    if "prompt" not in known:
        raise InputError(FILE, "there is no column prompt; every row needs one")
    return known


Reader = tuple[Callable[[Path], Iterator[Any]], Callable[[Any], dict[str, Any]]]  # yields rows, parses one
READERS: dict[str, Reader] = {
    ".txt": (_lines, _prompt),
    ".csv": (_records, _from_record),
    ".jsonl": (_lines, _from_json),
    ".parquet": (_batches, _from_scalars),
}
