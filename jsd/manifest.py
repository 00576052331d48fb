"""What a model folder holds: `MANIFEST.json` lists every file with its size and sha256, beside the model's name and
defaults. Files of a folder are used only when they are the listed ones, and a pickle never is.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from jsd.request import Defaults, InputError, Request, WeightsError, shown

MANIFEST = "MANIFEST.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
READ_BY_LOADERS = (".safetensors", ".json", ".model", ".txt")
PIECE = 1 << 24  # bytes read at a time
RESTORE = "restore the folder from its source"


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file of `folder` against its `MANIFEST.json`, reading each once; the manifest is returned.

    Raises `WeightsError`, naming the file, for one that is missing, truncated, altered or not listed, and for a pickle.
    """
    folder = Path(folder)
    manifest = _check_listed(folder)
    _check_hashes(folder, manifest)
    return manifest


@dataclass(frozen=True)
class Verification:
    """Under way on a thread of its own: `finish()` waits for it."""

    folder: Path
    manifest: dict[str, Any]
    hashes: Future[None]

    def finish(self) -> dict[str, Any]:
        """The manifest, when every file is as listed. Raises `WeightsError`, naming the file, when one is not."""
        self.hashes.result()
        return self.manifest


def begin_verification(folder: str | Path) -> Verification:
    """Check which files `folder` has, and how large they are, and begin to hash them on a second thread: gigabytes take
    seconds, which imports and reading can use.

    Raises `WeightsError`, naming the file, for one that is missing, truncated or not listed, and for a pickle.
    """
    folder = Path(folder)
    manifest = _check_listed(folder)
    check_defaults(folder, manifest.get("defaults", {}))
    pool = ThreadPoolExecutor(1, "jsd-verify")
    hashes = pool.submit(_check_hashes, folder, manifest)
    pool.shutdown(wait=False)
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


def _check_hashes(folder: Path, manifest: dict[str, Any]) -> None:
    for path, entry in manifest["files"].items():
        if sha256(folder / path) != entry["sha256"]:
            raise WeightsError(f"{folder / path}: altered (its sha256 is not the one in {MANIFEST}); {RESTORE}")


def write_manifest(folder: str | Path, *, name: str, defaults: dict[str, Any], **about: Any) -> Path:
    """Write `MANIFEST.json` for the files now in `folder`, in one piece, and return its path.

    `defaults` holds width, height, num_inference_steps, guidance_scale, scheduler, or some of them; `about` is free:
    training, data, licences. Raises `WeightsError` for a default out of range, or a pickle in the folder.
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
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for path in paths:
        if path.lower().endswith(PICKLES):
            raise WeightsError(f"{folder / path}: a pickle can run code and is never loaded; convert it to safetensors")
    return [p for p in paths if p != MANIFEST and not any(part.startswith(".") for part in PurePosixPath(p).parts)]


def _check_size(folder: Path, path: str, entry: Any) -> None:
    well_formed = isinstance(entry, dict) and isinstance(entry.get("size"), int) and "sha256" in entry
    if not well_formed or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise WeightsError(f"{folder / MANIFEST}: entry {shown(path)} is malformed; {RESTORE}")
    if not (folder / path).is_file():
        raise WeightsError(f"{folder / path}: missing; {RESTORE}")
    size = (folder / path).stat().st_size
    if size != entry["size"]:
        raise WeightsError(f"{folder / path}: {size} bytes, {entry['size']} expected; {RESTORE}")


def check_defaults(folder: Path, defaults: Any) -> None:
    allowed = {f.name for f in fields(Defaults)} - {"cell"}
    if not isinstance(defaults, dict) or not set(defaults) <= allowed or None in defaults.values():
        raise WeightsError(f"{folder / MANIFEST}: defaults {shown(defaults)}; allowed are {', '.join(sorted(allowed))}")
    try:
        Request(prompt="defaults", **defaults)
    except InputError as error:
        raise WeightsError(f"{folder / MANIFEST}: defaults: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: missing or unreadable ({error}); {RESTORE}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object; {RESTORE}")
    return value


def sha256(file: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    # In large pieces: a thread needs the interpreter for each, and waits for it while another one imports.
    digest, piece = hashlib.sha256(), memoryview(bytearray(PIECE))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()
