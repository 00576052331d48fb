"""What a model folder holds: `MANIFEST.json` lists every file with its size and sha256, beside the model's name and
defaults. Files of a folder are used only when they are the listed ones, and a pickle never is.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from jsd.request import Defaults, InputError, Request, WeightsError, shown

MANIFEST = "MANIFEST.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
READ_BY_LOADERS = (".safetensors", ".json", ".model", ".txt")
PIECE = 1 << 26  # bytes read at a time
RESTORE = "restore the folder from its source"


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file of `folder` against its `MANIFEST.json`, reading each once; the manifest is returned.

    Raises `WeightsError`, naming the file, for one that is missing, truncated, altered or not listed, and for a pickle.
    """
    return begin_verification(folder).finish()


@dataclass(frozen=True)
class Verification:
    """Of the large files, under way on a thread of its own: `finish()` waits for it."""

    folder: Path
    manifest: dict[str, Any]
    hashes: Future[None]

    def finish(self) -> dict[str, Any]:
        """The manifest, when every file is as listed. Raises `WeightsError`, naming the file, when one is not."""
        self.hashes.result()
        return self.manifest

    def file(self, path: str) -> Path:
        """A file of the folder by its listed name. Raises `WeightsError` if it is not listed."""
        if path not in self.manifest["files"]:
            raise WeightsError(f"{self.folder / path}: missing, or not listed in {MANIFEST}; {RESTORE}")
        return self.folder / path

    def weights(self, part: str) -> Path:
        """The one safetensors file of a part. Raises `WeightsError` if there is another number of them."""
        found = [p for p in self.manifest["files"] if PurePosixPath(p).match(f"{part}/*.safetensors")]
        if len(found) != 1:
            raise WeightsError(f"{self.folder / part}: {len(found)} safetensors files, one is wanted; convert it again")
        return self.folder / found[0]


def begin_verification(folder: str | Path) -> Verification:
    """Check which files `folder` has, how large they are and what is in the small ones, and begin to hash the weights
    on a second thread: gigabytes take seconds, which imports can use.

    Raises `WeightsError`, naming the file, for one that is missing, truncated, altered or not listed, and for a pickle.
    """
    folder = Path(folder)
    manifest = _check_listed(folder)
    check_defaults(folder, manifest.get("defaults", {}))
    large = {path for path in manifest["files"] if path.endswith(".safetensors")}
    _check_hashes(folder, manifest, manifest["files"].keys() - large)
    hashes: Future[None] = Future()

    def run() -> None:
        try:
            hashes.set_result(_check_hashes(folder, manifest, large))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            hashes.set_exception(error)

    # A daemon: a program that ends for another reason does not wait for it.
    threading.Thread(target=run, name="jsd-verify", daemon=True).start()
    return Verification(folder, manifest, hashes)


def _check_listed(folder: Path) -> dict[str, Any]:
    """The manifest, when the files are those it lists, and as large."""
    manifest = read_json(folder / MANIFEST)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{folder / MANIFEST}: lists no files; {RESTORE}")
    for path in _files(folder):
        if path not in listed and path.endswith(READ_BY_LOADERS):
            raise WeightsError(f"{folder / path}: not listed in {MANIFEST}; remove the file, or {RESTORE}")
    # Sizes first: a truncated download is told at once, not after gigabytes of hashing.
    for path, entry in listed.items():
        _check_size(folder, path, entry)
    return manifest


def _check_hashes(folder: Path, manifest: dict[str, Any], paths: Iterable[str]) -> None:
    for path in sorted(paths):
        if sha256(folder / path) != manifest["files"][path]["sha256"]:
            raise WeightsError(f"{folder / path}: altered (its sha256 is not the one in {MANIFEST}); {RESTORE}")


def write_manifest(folder: str | Path, *, name: str, defaults: dict[str, Any], **about: Any) -> Path:
    """Write `MANIFEST.json` for the files now in `folder`, in one piece, and return its path.

    `defaults` holds width, height, num_inference_steps, guidance_scale, guidance_interval, scheduler, or some of them;
    `about` is free: training, data, licences. Raises `WeightsError` for a default out of range, or a pickle in the
    folder.
    """
    folder = Path(folder)
    check_defaults(folder, defaults)
    files = {path: {"sha256": sha256(folder / path), "size": (folder / path).stat().st_size} for path in _files(folder)}
    text = json.dumps({"name": name, "defaults": defaults, **about, "files": files}, ensure_ascii=False, indent=2)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=".manifest-", delete=False) as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, folder / MANIFEST)
    return folder / MANIFEST


def _files(folder: Path) -> list[str]:
    """Relative paths of the files of a model folder, sorted; hidden ones and the manifest aside. No pickle passes."""
    found = sorted(folder.rglob("*"))
    for path in found:
        if path.is_dir() and path.is_symlink():  # what is in there would not be listed
            raise WeightsError(f"{path}: a link to a folder; put the files themselves there")
    paths = [path.relative_to(folder).as_posix() for path in found if path.is_file()]
    for path in paths:
        if path.lower().endswith(PICKLES):
            raise WeightsError(f"{folder / path}: a pickle can run code and is never loaded; convert it to safetensors")
    return [p for p in paths if p != MANIFEST and not any(part.startswith(".") for part in PurePosixPath(p).parts)]


def _check_size(folder: Path, path: str, entry: Any) -> None:
    well_formed = isinstance(entry, dict) and isinstance(entry.get("size"), int) and "sha256" in entry
    if not well_formed or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise WeightsError(f"{folder / MANIFEST}: entry {shown(path)} is malformed; {RESTORE}")
    try:
        there = (folder / path).is_file()
    except OSError:  # a name no file can have
        there = False
    if not there:
        raise WeightsError(f"{folder / path}: missing; {RESTORE}")
    size = (folder / path).stat().st_size
    if size != entry["size"]:
        raise WeightsError(f"{folder / path}: {size} bytes, {entry['size']} expected; {RESTORE}")


def check_defaults(folder: Path, defaults: Any) -> None:
    """Raises `WeightsError` for a folder's `defaults` that are no settings of a model's, or out of range."""
    allowed = {f.name for f in fields(Defaults)} - {"cell"}
    if not isinstance(defaults, dict) or not set(defaults) <= allowed or None in defaults.values():
        raise WeightsError(f"{folder / MANIFEST}: defaults {shown(defaults)}; allowed are {', '.join(sorted(allowed))}")
    try:
        Request(prompt="defaults", **defaults)
    except InputError as error:
        raise WeightsError(f"{folder / MANIFEST}: defaults: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises `WeightsError` if there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: missing or unreadable ({error}); {RESTORE}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object; {RESTORE}")
    return value


def sha256(file: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    # In large pieces: a thread needs the interpreter for each, and waits for it while another one imports.
    digest, piece = hashlib.sha256(), memoryview(bytearray(min(PIECE, max(1, file.stat().st_size))))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()
