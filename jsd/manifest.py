"""Model folders: find one, and verify its files.

`MANIFEST.json` lists a folder's files with their sizes and sha256, and holds the model's name and default settings. A
file is used only if it is listed and unaltered. Pickles are never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from jsd.errors import InputError, WeightsError, shown
from jsd.language import Text
from jsd.request import Defaults, Request

ROOT = Path(__file__).resolve().parent.parent / "weights"
MANIFEST = "MANIFEST.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
READ_BY_LOADERS = (".safetensors", ".json", ".model", ".txt")
PIECE = 1 << 24  # bytes; with small pieces the thread waits for the interpreter while another thread imports
RESTORE = Text("restore the folder from its source")


def find_weights(folder: str | Path | None = None) -> Path:
    """Return the path of the model folder: `folder`, else `$JSD_WEIGHTS`, else `weights/japanese-stable-diffusion` if
    it exists, else `weights/embedded`. Raises `WeightsError` if the chosen folder does not exist.
    """
    chosen = folder or os.environ.get("JSD_WEIGHTS")
    candidates = [Path(chosen)] if chosen else [ROOT / "japanese-stable-diffusion", ROOT / "embedded"]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise WeightsError("{}: no such folder; set JSD_WEIGHTS to a model folder, or check out weights/", candidates[-1])


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file that the `MANIFEST.json` of `folder` lists, by size and sha256. Returns the manifest, a dict.

    Raises `WeightsError`, which names the file, if one is missing, truncated or altered, if a loader would read one
    that is not listed, and for a pickle.
    """
    return begin_verification(folder).finish()


@dataclass(frozen=True)
class Verification:
    """A model folder that is being verified: a thread hashes the weight files, and `finish` waits for it."""

    folder: Path
    manifest: dict[str, Any]
    hashes: Future[None]

    def finish(self) -> dict[str, Any]:
        """Wait until all files are hashed, and return the manifest. Raises `WeightsError`, which names a wrong file."""
        self.hashes.result()
        return self.manifest

    def config(self, path: str) -> dict[str, Any]:
        """Return the content of a JSON file of the folder. Raises `WeightsError` if it is not listed or unreadable."""
        if path not in self.manifest["files"]:
            raise WeightsError("{}: missing, or not listed in {}; {}", self.folder / path, MANIFEST, RESTORE)
        return read_json(self.folder / path)


def begin_verification(folder: str | Path) -> Verification:
    """Check a model folder, but leave the hashes of its weight files to a thread. Returns the running `Verification`.
    Hashing gigabytes takes seconds. Meanwhile the caller can import libraries. Raises `WeightsError` like `verify`.
    """
    folder = Path(folder)
    manifest = _check_listed(folder)
    check_defaults(folder, manifest.get("defaults", {}))
    large = {path for path in manifest["files"] if path.endswith(".safetensors")}
    _check_hashes(folder, manifest, manifest["files"].keys() - large)
    hashes: Future[None] = Future()

    def check() -> None:
        try:
            hashes.set_result(_check_hashes(folder, manifest, large))
        except Exception as error:  # noqa: BLE001 - `Verification.finish` raises it
            hashes.set_exception(error)

    # A daemon thread, so that a program that fails early can end at once.
    threading.Thread(target=check, name="jsd-verify", daemon=True).start()
    return Verification(folder, manifest, hashes)


def _check_listed(folder: Path) -> dict[str, Any]:
    """Return the manifest. Raises `WeightsError` if a listed size is wrong, or a loader would read an unlisted file."""
    manifest = read_json(folder / MANIFEST)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError("{}: lists no files; {}", folder / MANIFEST, RESTORE)
    for path in model_files(folder):
        if path not in listed and path.endswith(READ_BY_LOADERS):
            raise WeightsError("{}: not listed in {}; remove the file, or {}", folder / path, MANIFEST, RESTORE)
    # Sizes come first, because they show a truncated download at once.
    for path, entry in listed.items():
        _check_size(folder, path, entry)
    return manifest


def _check_hashes(folder: Path, manifest: dict[str, Any], paths: Iterable[str]) -> None:
    for path in sorted(paths):
        if sha256(folder / path) != manifest["files"][path]["sha256"]:
            raise WeightsError("{}: altered (its sha256 is not the one in {}); {}", folder / path, MANIFEST, RESTORE)


def model_files(folder: Path) -> list[str]:
    """Return the sorted relative paths of the files in a model folder, without hidden files and the manifest.

    Raises `WeightsError` for a pickle, and for a link to a folder.
    """
    found = sorted(folder.rglob("*"))
    for path in found:
        if path.is_dir() and path.is_symlink():  # rglob does not look into it
            raise WeightsError("{}: a link to a folder; put the files themselves there", path)
    paths = [path.relative_to(folder).as_posix() for path in found if path.is_file()]
    for path in paths:
        if path.lower().endswith(PICKLES):
            raise WeightsError(
                "{}: a pickle can run code and is never loaded; convert it to safetensors", folder / path
            )
    return [p for p in paths if p != MANIFEST and not any(part.startswith(".") for part in PurePosixPath(p).parts)]


def _check_size(folder: Path, path: str, entry: Any) -> None:
    well_formed = isinstance(entry, dict) and isinstance(entry.get("size"), int) and "sha256" in entry
    if not well_formed or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise WeightsError("{}: entry {} is malformed; {}", folder / MANIFEST, shown(path), RESTORE)
    try:
        there = (folder / path).is_file()
    except OSError:  # no file can have this name
        there = False
    if not there:
        raise WeightsError("{}: missing; {}", folder / path, RESTORE)
    size = (folder / path).stat().st_size
    if size != entry["size"]:
        raise WeightsError("{}: {} bytes, {} expected; {}", folder / path, size, entry["size"], RESTORE)


def check_defaults(folder: Path, defaults: Any) -> None:
    """Check the default sampling settings of a model folder. Raises `WeightsError` for an unknown or wrong one."""
    allowed = {f.name for f in fields(Defaults)} - {"cell"}
    if not isinstance(defaults, dict) or not set(defaults) <= allowed or None in defaults.values():
        raise WeightsError(
            "{}: defaults {}; allowed are {}", folder / MANIFEST, shown(defaults), ", ".join(sorted(allowed))
        )
    try:
        Request(prompt="defaults", **defaults)
    except InputError as error:
        raise WeightsError("{}: defaults: {}", folder / MANIFEST, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder, as a dict. Raises `WeightsError` if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError("{}: missing or unreadable ({}); {}", path, error, RESTORE) from error
    if not isinstance(value, dict):
        raise WeightsError("{}: not a JSON object; {}", path, RESTORE)
    return value


def sha256(file: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(PIECE))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()
