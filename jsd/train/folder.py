"""Read a folder of captioned pictures, in the layouts that people have.

A picture's caption is in a file beside it, called like it but with .txt, .caption or .json, or in the folder's
metadata.jsonl (Hugging Face's imagefolder): one JSON object per line, with `file_name` and `text`. If a folder itself
has no pictures, those of its folders that are called like 10_cat are read (kohya's layout). The number says how often
their pictures are shown, and the rest is the caption of those without one. Hidden files are passed over.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jsd.errors import SampleError, TrainingError
from jsd.language import Text
from jsd.train.samples import CAPTIONS, IMAGES, caption_of

METADATA = "metadata.jsonl"
REPEATED = re.compile(r"([0-9]{1,6})_(.*)", re.DOTALL)


@dataclass(frozen=True)
class Captioned:
    """A picture's file, its caption, and how often it is shown while others are shown once."""

    file: Path
    caption: str
    repeats: int = 1


def find_pictures(folder: Path) -> tuple[list[Captioned], list[Path]]:
    """Find the captioned pictures of a folder. Returns them, and the files and folders that are not read.

    Raises `TrainingError` if there is no such folder, if it has no pictures, if a picture has no caption that can be
    read, and for a broken metadata.jsonl.
    """
    if not folder.is_dir():
        wrong = Text("not a folder") if folder.exists() else Text("no such folder")
        raise TrainingError("{}: {}; name a folder of pictures", folder, wrong)
    found, left = _read(folder)
    if not found:
        for below in list(left):
            match = REPEATED.fullmatch(below.name)
            if match and int(match[1]) and below.is_dir():
                inner, unread = _read(below, int(match[1]), match[2])
                found += inner
                left = [path for path in left if path != below] + unread
    if not found:
        kinds = ", .".join(IMAGES)
        raise TrainingError("{}: no pictures (.{}) here, nor in folders with a name like 10_cat", folder, kinds)
    return found, left


def _read(folder: Path, repeats: int = 1, otherwise: str = "") -> tuple[list[Captioned], list[Path]]:
    """Read one folder, as `find_pictures` does. `otherwise` is the caption of a picture that has none, "" if none."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    beside = {(path.stem, _kind(path)): path for path in paths}
    listed = _metadata(folder / METADATA) if folder / METADATA in paths else {}
    pictures = [path for path in paths if _kind(path) in IMAGES]
    pictures += [path for name in listed if (path := folder / name).parent != folder and path.is_file()]
    found, used = [], {folder / METADATA, *pictures}
    for picture in pictures:
        name = picture.relative_to(folder).as_posix()
        files = [beside[picture.stem, kind] for kind in CAPTIONS if (picture.stem, kind) in beside]
        sample: dict[str, Any] = {}
        if files and picture.parent == folder:
            sample = {_kind(files[0]): files[0].read_bytes()}
            used.add(files[0])
        elif name in listed:
            sample = {"json": listed[name]}
        elif otherwise.strip():
            sample = {"txt": otherwise.encode()}
        try:
            found.append(Captioned(picture, caption_of(sample), repeats))
        except SampleError as error:
            raise TrainingError(
                "{}: {}; each picture needs a caption: a .txt or .caption file of the same name, or a line in "
                "metadata.jsonl",
                picture,
                error,
            ) from None
    return found, [path for path in paths if path not in used]


def _metadata(file: Path) -> dict[str, bytes]:
    """Return the lines of a metadata.jsonl by their `file_name`. Raises `TrainingError`, which names a broken line."""
    listed = {}
    for number, line in enumerate(file.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if not line.strip():
            continue
        try:
            name = PurePosixPath(json.loads(line)["file_name"])
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(Text("outside of the folder"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TrainingError(
                "{}: line {} is unreadable ({}); a JSON object is wanted, with file_name (a picture in "
                "this folder) and text (its caption)",
                file,
                number,
                repr(error),
            ) from None
        listed[name.as_posix()] = line
    return listed


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
