"""Fetch a model from the Hugging Face hub and convert it: `python -m jsd weights pull`.

The download goes to a folder beside the target and is resumed after an interruption. It has the configs, the tokenizer,
the licences, the README and one weights file per model. The target folder appears when the converted model is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from jsd.errors import HubError, WeightsError
from jsd.genuine.convert import CONVERTED, convert
from jsd.genuine.folder import LICENCES, check_target
from jsd.genuine.tensors import TENSOR_FILES
from jsd.language import Text
from jsd.manifest import MANIFEST, read_json, sha256
from jsd.model import PARTS

GENUINE = "rinna/japanese-stable-diffusion"
CONFIGS = (
    "model_index.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
    "safety_checker/config.json",
    "scheduler/scheduler_config.json",
    "feature_extractor/preprocessor_config.json",
    "tokenizer/spiece.model",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    *LICENCES,
    "README.md",
)
AGAIN = Text("run the same command again to continue")


def pull(
    repository: str,
    folder: str | Path,
    revision: str | None = None,
    token: str | None = None,
    dtype: torch.dtype | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Fetch `repository` ("owner/name") at `revision` (a branch, tag or commit) and write it, converted, to `folder`.

    `token` is a token of the hub, by default HF_TOKEN or the one that `hf auth login` saved. `dtype` and `report` are
    those of `convert`. Raises `HubError` if the hub does not deliver the model, and everything that `convert` raises.
    """
    folder = Path(folder)
    check_target(folder)
    check_origin(folder, repository)
    token = _clean(token or os.environ.get("HF_TOKEN"))
    try:
        download, commit = _download(repository, folder, revision, token, report)
    except HFValidationError as error:
        raise HubError("{}: not the name of a repository ({}); an example is {}", repository, error, GENUINE) from None
    except (HTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise _explain(repository, revision, error) from error
    except OSError as error:
        raise HubError(
            "{}: {}; the files fetched so far are beside {}, {}", repository, error, folder, AGAIN
        ) from error
    origin = f"{repository} at {commit}"
    convert(download, folder, dtype, name=repository.rpartition("/")[2], origin=origin, report=report)
    shutil.rmtree(download)


def _download(
    repository: str, folder: Path, revision: str | None, token: str | None, report: Callable[[str], None]
) -> tuple[Path, str]:
    """Fetch the files that `choose` names, check sizes and LFS hashes, and return their folder and the commit."""
    about = HfApi(token=token).model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in about.siblings}
    hashes = {file.rfilename: file.lfs.sha256 for file in about.siblings if file.lfs}
    wanted = choose(list(sizes))
    # The commit is in the name, so the files of two commits are never mixed.
    download = folder.with_name(f"{folder.name}.{about.sha[:12]}.download")
    check_space(folder, download, [sizes[name] for name in wanted])
    size = sum(sizes[name] for name in wanted) / 1e6
    report(Text("{} at {}: {} files, {:.0f} MB", repository, about.sha, len(wanted), size))
    snapshot_download(
        repository, revision=about.sha, local_dir=download, token=token, allow_patterns=wanted, max_workers=2
    )
    for name in wanted:
        file = download / name
        if sizes[name] and file.stat().st_size != sizes[name]:
            raise HubError("{}: incomplete; remove the file, and {}", file, AGAIN)
        if name in hashes and sha256(file) != hashes[name]:
            raise HubError("{}: its sha256 is not the one on the hub; remove the file, and {}", file, AGAIN)
    return download, about.sha


def choose(files: Sequence[str]) -> list[str]:
    """Return the files of a repository to fetch: configs, tokenizer, licences, README, and one weights file per model.

    Prefers safetensors to pickles. Raises `HubError` if a model (the UNet, for example) has no weights file. There may
    be no safety checker.
    """
    wanted = [name for name in files if any(fnmatch(name, pattern) for pattern in CONFIGS)]
    for part in PARTS:
        if part == "safety_checker" and not any(name.startswith(f"{part}/") for name in files):
            continue
        found = next((f"{part}/{name}" for name in TENSOR_FILES if f"{part}/{name}" in files), None)
        if found is None:
            raise HubError("the repository has no weights of {} (none of {})", part, ", ".join(TENSOR_FILES))
        wanted.append(found)
    return wanted


def check_origin(folder: Path, repository: str) -> None:
    """Raises `HubError` if the model in `folder` did not come from `repository`, so that no other model is overwritten.

    A folder without a model passes, and so does a model that `python -m jsd weights convert` wrote.
    """
    origin = origin_of(folder)
    if origin is not None and origin.partition(" at ")[0] != repository and not origin.startswith(CONVERTED):
        raise HubError(
            "{}: is another model ({}); name another folder with --to", folder, origin or Text("not from the hub")
        )


def origin_of(folder: Path) -> str | None:
    """Return a manifest's source ("owner/name at commit"), "" if it names none, None if it can't be read."""
    try:
        return str(read_json(folder / MANIFEST).get("source", ""))
    except WeightsError:
        return None


def _clean(token: str | None) -> str | None:
    """Return a hub token without spaces around it. Raises `HubError`, which hides it, for impossible characters."""
    token = token.strip() if token else None
    if token and not (token.isascii() and token.isprintable()):
        raise HubError("the token holds characters that no token has; copy it again into HF_TOKEN (or --token)")
    return token


def check_space(folder: Path, download: Path, sizes: Sequence[int]) -> None:
    """Raises `HubError` if the disk of `folder` has too little room. `sizes` are the bytes of all files to fetch.

    Needed are the files not yet in `download`, the converted model, and for a time a copy of its largest part.
    """
    fetched = sum(path.stat().st_size for path in download.rglob("*") if path.is_file())
    needed = max(0, sum(sizes) - fetched) + sum(sizes) + max(sizes)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise HubError(
            "{}: {:.1f} GB are free there, {:.1f} GB are needed; make room", folder, free / 1e9, needed / 1e9
        )


def _explain(repository: str, revision: str | None, error: Exception) -> HubError:
    """Return a `HubError` that says what the user can do about an error of the download."""
    page = f"{constants.ENDPOINT}/{repository}"
    tokens = f"{constants.ENDPOINT}/settings/tokens"
    if isinstance(error, GatedRepoError):
        return HubError(
            "{}: its licence has to be accepted first. Visit {}, log in, read the licence and tick the "
            "box to agree. Then make a token with read access at {} and set HF_TOKEN (or pass --token)",
            repository,
            page,
            tokens,
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            "{}: not found; check the name. If {} is private, make a token that may read it at {} and "
            "set HF_TOKEN (or pass --token)",
            repository,
            page,
            tokens,
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError("{}: has no revision {}; {}/commits lists them", repository, revision, page)
    if constants.HF_HUB_OFFLINE:
        return HubError("{}: can't be fetched, because HF_HUB_OFFLINE is set; unset it", repository)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return HubError(
            "{}: the token was refused ({}); set HF_TOKEN to one that may read {}", repository, status, page
        )
    line = str(error).partition("\n")[0]
    return HubError("{}: the download broke off ({}: {}); {}", repository, type(error).__name__, line, AGAIN)
