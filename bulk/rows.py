"""A row of a bulk run: the checked inputs of one request, with a seed, and a digest by which a later run knows it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jsd.checks import check_lora
from jsd.errors import InputError, WeightsError, shown
from jsd.inputs import FILES, NAMES, parse_inputs
from jsd.language import Text, english
from jsd.manifest import MANIFEST, find_weights, read_json, sha256
from jsd.request import MAX_LORA, MAX_OUTPUTS, MAX_SEED, Request

EMPTY_LORA = (2).to_bytes(8, "little") + b"{}"  # stands in for an adapter that is read later


class UnreadableFileError(InputError):
    """A file that a row names is not there, or can't be read."""


@dataclass(frozen=True, slots=True)
class Row:
    """`number` counts the file's rows from 1. `inputs` is a JSON object: the request's inputs that are not None, each
    file as its absolute path and its sha256. `pictures` is its num_outputs. `digest` differs between rows that give
    other pictures: it is of the model, the inputs and the content of the files.
    """

    number: int
    inputs: str
    pictures: int
    digest: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row has no picture. `input` names the input, or is "row" or empty. `reason` is in English, for files, and
    `said` in the user's language. `unreadable`: because a file that it names can't be read.
    """

    row: int
    input: str
    reason: str
    said: str = field(default="", compare=False)
    unreadable: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, row: int, error: Exception) -> Problem:
        name = getattr(error, "name", "") if isinstance(error, InputError) else ""
        message = error.message if name else Text("{}", error)
        return cls(row, name, english(message), message, isinstance(error, UnreadableFileError))


def make_row(number: int, values: Mapping[str, Any], folder: Path, seed: int, model: str) -> Row:
    """Check the values of a row, but of an image or a mask only that it can be read, and of an adapter no tensor.

    Paths of files are relative to `folder`. `seed` is the run's, `model` the `model_digest`. Raises `InputError`.
    """
    from PIL import Image

    paths = {name: _path(name, values[name], folder) for name in FILES if name in values}
    hashes = {name: _hash(name, path) for name, path in paths.items()}
    stand_ins = {name: EMPTY_LORA if name == "lora" else Image.new("L", (1, 1)) for name in paths}
    request = Request.from_dict({"seed": seed_of(number, seed), **values, **stand_ins})
    inputs = {name: getattr(request, name) for name in NAMES if name not in FILES}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    text = json.dumps(inputs | hashes, ensure_ascii=False)
    digest = hashlib.sha256(f"{model}\n{text}".encode()).hexdigest()[:16]
    files = {name: (path, hashes[name]) for name, path in paths.items()}
    return Row(number, json.dumps(inputs | files, ensure_ascii=False), request.num_outputs, digest)


def make_request(inputs: str) -> Request:
    """Return the request of a row's `inputs`, with its files read. Raises `InputError`, also if a file has changed."""
    values = json.loads(inputs)
    for name in FILES:
        if name in values:
            path, known = values[name]
            values |= parse_inputs([f"{name}=@{path}"])
            if sha256(Path(path)) != known:
                raise InputError(name, "{} has changed since the run began; run the command again", shown(path))
    return Request.from_dict(values)


def batches_of(rows: Iterable[Row], unet_rows: int) -> Iterator[list[Row]]:
    """Put rows together whose pictures, with guidance, take at most `unet_rows` in the UNet's batch."""
    batch: list[Row] = []
    for row in rows:
        if batch and 2 * (row.pictures + sum(other.pictures for other in batch)) > unet_rows:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def seed_of(row: int, seed: int) -> int:
    """Return the seed of a row that gives none: a number that depends on the row's number and the run's seed."""
    number = int.from_bytes(hashlib.sha256(f"{seed}/{row}".encode()).digest()[:8])
    return number % (MAX_SEED + 2 - MAX_OUTPUTS)


def model_digest() -> str:
    """Return a digest of the model that the environment chooses, with its adapter. Raises `WeightsError`, `OSError`."""
    parts = [json.dumps(read_json(find_weights() / MANIFEST), sort_keys=True)]
    if lora := os.environ.get("JSD_LORA"):
        from jsd.lora import find_file  # it imports torch, which takes seconds

        try:
            parts += [sha256(find_file(Path(lora))), os.environ.get("JSD_LORA_SCALE") or "1"]
        except WeightsError as error:
            raise WeightsError("{}: {}", lora, error) from error
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _path(name: str, value: object, folder: Path) -> str:
    if not isinstance(value, str):
        raise InputError(name, "the path of a file is wanted, {} was given", shown(value))
    path = os.path.join(folder, value)
    if not os.path.isfile(path):
        raise UnreadableFileError(name, "there is no file {}", shown(value))
    return path


def _hash(name: str, path: str) -> str:
    """Return the sha256 of a row's file. Raises `InputError`, for an adapter also if it is none by its beginning."""
    found = _known_hash(name, path, os.stat(path).st_mtime_ns)
    if isinstance(found, InputError):
        raise found
    return found


@cache  # many rows may have the same adapter
def _known_hash(name: str, path: str, changed: int) -> str | InputError:
    try:
        if name == "lora":
            check_lora(name, parse_inputs([f"{name}=@{path}"])[name], MAX_LORA)
        return sha256(Path(path))
    except OSError as error:
        return UnreadableFileError(name, "{} can't be read ({})", shown(path), Text(error.strerror))
    except InputError as error:
        return error
