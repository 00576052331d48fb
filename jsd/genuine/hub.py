"""A model from the Hugging Face hub into a clean folder: `python -m jsd weights pull`.

Only the files that `jsd.genuine.convert` reads are fetched, beside the target. An interrupted download is resumed, and
nothing half-made ever has the target's name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from jsd.errors import WeightsError
from jsd.genuine.convert import CONVERTED, LICENCES, PARTS, STATE_FILES, convert
from jsd.genuine.folder import check_target
from jsd.manifest import MANIFEST, sha256

if TYPE_CHECKING:
    import torch

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


class HubError(WeightsError):
    """A model can't be fetched; the message says what to do."""


def pull(
    repository: str,
    folder: str | Path,
    revision: str | None = None,
    token: str | None = None,
    dtype: torch.dtype | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Fetch `repository` ("owner/name") at `revision` and convert it to `folder`.

    `token` is the hub's, by default HF_TOKEN or the one `hf auth login` saved. Raises `HubError` for what the hub
    refuses, lacks, or breaks off, and what `convert` raises.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

    folder = Path(folder)
    check_target(folder)
    check_origin(folder, repository)
    token = _clean(token or os.environ.get("HF_TOKEN"))
    try:
        about = HfApi(token=token).model_info(repository, revision=revision, files_metadata=True)
        wanted = choose([file.rfilename for file in about.siblings])
        sizes = {file.rfilename: file.size or 0 for file in about.siblings}
        # Of this commit alone: what another one left can't get mixed in.
        download = folder.with_name(f"{folder.name}.{about.sha[:12]}.download")
        _check_space(folder, download, [sizes[name] for name in wanted])
        report(f"{repository} at {about.sha}: {len(wanted)} files, {sum(sizes[n] for n in wanted) / 1e6:.0f} MB")
        snapshot_download(
            repository, revision=about.sha, local_dir=download, token=token, allow_patterns=wanted, max_workers=2
        )
    except HFValidationError as error:
        raise HubError(f"{repository}: no name of a repository ({error}); e.g. {GENUINE}") from None
    except (HTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise _explain(repository, revision, error) from error
    except OSError as error:
        raise HubError(
            f"{repository}: {error}; what came so far is in {download}, run the same again to go on"
        ) from error
    hashes = {file.rfilename: file.lfs.sha256 for file in about.siblings if file.lfs}
    for name in wanted:
        if sizes[name] and (download / name).stat().st_size != sizes[name]:
            raise HubError(f"{download / name}: incomplete; remove the file and run the same again")
        if name in hashes and sha256(download / name) != hashes[name]:
            raise HubError(f"{download / name}: not what the hub says it is; remove the file and run the same again")
    origin = f"{repository} at {about.sha}"
    convert(download, folder, dtype, name=repository.rpartition("/")[2], origin=origin, report=report)
    shutil.rmtree(download)


def choose(files: Sequence[str]) -> list[str]:
    """What of a repository's files a conversion reads: of each part's weights one file, safetensors if there is one.

    Raises `HubError` for a part that is not there.
    """
    wanted = [name for name in files if any(fnmatch(name, pattern) for pattern in CONFIGS)]
    for part in PARTS:
        found = next((f"{part}/{name}" for name in STATE_FILES if f"{part}/{name}" in files), None)
        if found is None:
            raise HubError(f"the repository has no weights of {part} (none of {', '.join(STATE_FILES)})")
        wanted.append(found)
    return wanted


def check_origin(folder: Path, repository: str) -> None:
    """Raises `HubError` if `folder` is a model that came from elsewhere: only its own repository may replace it, or
    stand for it, or one that was converted by hand.
    """
    origin = origin_of(folder)
    if origin is not None and origin.partition(" at ")[0] != repository and not origin.startswith(CONVERTED):
        raise HubError(f"{folder}: is another model ({origin or 'not from the hub'}); name another folder with --to")


def origin_of(folder: Path) -> str | None:
    """Where a model folder says it comes from, "owner/name at commit"; None if there is no model."""
    try:
        return str(json.loads((folder / MANIFEST).read_text("utf-8")).get("source", ""))
    except (OSError, ValueError, AttributeError):
        return None


def _clean(token: str | None) -> str | None:
    """The token without blanks around it. Raises `HubError`, not showing it, for one that can't be a token."""
    token = token.strip() if token else None
    if token and not (token.isascii() and token.isprintable()):
        raise HubError("the token holds characters that no token has; copy it anew into HF_TOKEN (or --token)")
    return token


def _check_space(folder: Path, download: Path, sizes: Sequence[int]) -> None:
    """The download, less what has come already, and beside it the converted model and the part that is being made."""
    come = sum(path.stat().st_size for path in download.rglob("*") if path.is_file())
    needed = max(0, sum(sizes) - come) + sum(sizes) + max(sizes)
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise HubError(f"{folder}: {free / 1e9:.1f} GB are free there, {needed / 1e9:.1f} GB are needed; make room")


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _explain(repository: str, revision: str | None, error: Exception) -> HubError:
    """The hub's refusal, with what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{repository}: its licence has to be accepted first. Visit {page}, log in, read the licence and tick the "
            f"box to agree; then make a token with read access at {constants.ENDPOINT}/settings/tokens and set "
            "HF_TOKEN (or pass --token)"
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{repository}: not found. Is the name right? If {page} is private, set HF_TOKEN (or pass --token) to a "
            f"token that may read it; tokens are made at {constants.ENDPOINT}/settings/tokens"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{repository}: has no revision {revision}; look at {page}/commits")
    if constants.HF_HUB_OFFLINE:
        return HubError(f"{repository}: HF_HUB_OFFLINE is set, so nothing can be fetched; unset it")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return HubError(f"{repository}: the token was refused ({status}); set HF_TOKEN to one that may read {page}")
    return HubError(
        f"{repository}: the download broke off ({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); "
        "run the same again to go on where it stopped"
    )
