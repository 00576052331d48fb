"""A row of a bulk run: the checked inputs of one request, with a seed, and a digest by which a later run knows it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsd.errors import InputError, shown
from jsd.inputs import FILES, NAMES
from jsd.manifest import MANIFEST, find_weights, read_json, sha256
from jsd.request import MAX_OUTPUTS, MAX_SEED, Request


@dataclass(frozen=True, slots=True)
class Row:
    """`number` counts the file's rows from 1. `inputs` is a JSON object: the request's inputs that are not None, with
    absolute paths as `image` and `mask`. `pictures` is its num_outputs.
    """

    number: int
    inputs: str
    pictures: int
    digest: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row has no picture. `input` names the input, or is "row" or empty."""

    row: int
    input: str
    reason: str

    @classmethod
    def of(cls, row: int, error: Exception) -> Problem:
        name = getattr(error, "name", "") if isinstance(error, InputError) else ""
        return cls(row, name, str(error).removeprefix(f"{name}: "))


def make_row(number: int, values: Mapping[str, Any], folder: Path, seed: int, model: str) -> Row:
    """Check the values of a row, except that its pictures can be decoded. Raises `InputError`.

    Paths of pictures are relative to `folder`. `seed` is the run's, `model` the `model_digest`.
    """
    from PIL import Image

    paths = {name: _path(name, values[name], folder) for name in FILES if name in values}
    stand_in = Image.new("L", (1, 1))
    request = Request.from_dict({"seed": seed_of(number, seed), **values, **dict.fromkeys(paths, stand_in)})
    inputs = {name: getattr(request, name) for name in NAMES if name not in FILES}
    inputs = {name: value for name, value in inputs.items() if value is not None} | paths
    text = json.dumps(inputs, ensure_ascii=False)
    digest = hashlib.sha256(f"{model}\n{text}".encode()).hexdigest()[:16]
    return Row(number, text, request.num_outputs, digest)


def make_request(inputs: str) -> Request:
    """Return the request of a row's `inputs`, with its pictures read from their files. Raises `InputError`."""
    from jsd import images

    values = json.loads(inputs)
    return Request.from_dict(values | {n: images.read_input(n, values[n]) for n in FILES if n in values})


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
        parts += [sha256(Path(lora)), os.environ.get("JSD_LORA_SCALE") or "1"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _path(name: str, value: object, folder: Path) -> str:
    if not isinstance(value, str):
        raise InputError(name, f"the path of a file is wanted, {shown(value)} was given")
    path = os.path.join(folder, value)
    if not os.path.isfile(path):
        raise InputError(name, f"there is no file {shown(value)}")
    return path
