"""Put newly trained parts into the model folder that a training began with."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jsd.errors import InputError, shown
from jsd.genuine.folder import new_folder, save_part, write_index, write_manifest
from jsd.manifest import MANIFEST, read_json
from jsd.train.options import check_folder


def check_places(folder: Path, places: Mapping[str, Path]) -> None:
    """Check that a model folder can be replaced, and that a training can write to other folders (by option).

    Raises `InputError`, also if one of them is inside the model folder, where it would be lost. Raises `WeightsError`
    for a folder without a manifest.
    """
    check_folder("folder", folder.parent)
    read_json(folder / MANIFEST)
    for option, place in places.items():
        check_folder(option, place)
        if place.resolve().is_relative_to(folder):
            raise InputError(option, "{} is inside the model's folder; name another", shown(str(place)))


def replace_parts(folder: Path, parts: Mapping[str, Any], phase: str, figures: Mapping[str, Any]) -> None:
    """Put parts (by their names in a pipeline) into a model folder, in place of those that are there, if any. Models
    are stored in half precision. `figures` about the training go into the manifest, under the name of its phase.
    """
    with changed(folder, parts, {phase: dict(figures)}) as work:
        for name, part in parts.items():
            if isinstance(part, torch.nn.Module):
                save_part(part.half().to(memory_format=torch.contiguous_format), work / name)
            else:
                part.save_pretrained(work / name)
        write_index(work)


@contextmanager
def changed(folder: Path, parts: Iterable[str] = (), figures: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a copy of a model folder to change, without `parts`. After the block it takes the folder's place, with a
    new manifest, to whose figures `figures` are added.
    """
    about = {"name": folder.name, "defaults": {}} | read_json(folder / MANIFEST)
    if figures:
        about["figures"] = about.get("figures", {}) | figures
    del about["files"]
    with new_folder(folder) as work:
        ignore = shutil.ignore_patterns(*parts, MANIFEST)
        shutil.copytree(folder, work, ignore=ignore, copy_function=shutil.copyfile, dirs_exist_ok=True)
        yield work
        write_manifest(work, **about)
