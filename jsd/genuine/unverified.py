"""Open a folder of diffusers that has no manifest, so that nothing vouches for its files.

It is opened by the Python pipelines, never by the server, and if it holds safetensors only, and no code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import logging

from jsd.errors import WeightsError, shown
from jsd.genuine.configs import read_tokenizer
from jsd.genuine.loading import NAMES, follow, weight_files
from jsd.genuine.tokenizer import PipelineTokenizer
from jsd.language import Text
from jsd.manifest import MANIFEST, RESTORE, model_files, read_json
from jsd.model import PARTS, check_config, read_part

# Where the classes of a folder's index may be from.
LIBRARIES = ("diffusers", "transformers", "stable_diffusion", PipelineTokenizer.__module__)
LOG = logging.get_logger(DiffusionPipeline.__module__)  # diffusers tells there what it loads


def open_unverified(
    load: Callable[..., DiffusionPipeline],
    folder: Path,
    types: Mapping[str, torch.dtype],
    variant: str | None,
    scheduler: SchedulerMixin | None,
    parts: Mapping[str, Any],
) -> DiffusionPipeline:
    """Open a folder without a manifest, with a warning. `load` is the `from_pretrained` of a diffusers pipeline.

    The models are read as those of model folders are, so that no tensor is missing, and a sentencepiece tokenizer by
    sentencepiece. `load` reads what else there is. Raises `WeightsError` if the folder holds more than safetensors, or
    can't be read.
    """
    index = _check_unverified(folder, parts)
    warning = Text(
        "{}: has no {}, so nothing vouches for its files; python -m jsd weights convert makes a model folder of it, "
        "which is verified",
        folder,
        MANIFEST,
    )
    warnings.warn(warning, stacklevel=3)
    own: dict[str, Any] = {}
    if scheduler is not None:
        own["scheduler"] = follow(scheduler, read_json(folder / "scheduler" / "scheduler_config.json"))
    for part, kind in PARTS.items():
        if part not in parts and index.get(part) == kind.__name__:
            own[part] = read_part(folder, part, types[part], weight_files(folder / part, variant)[1])
            LOG.info(f"Loaded {part} as {kind.__name__} from {folder}.")
    if "tokenizer" not in parts and (folder / "tokenizer" / "spiece.model").is_file():
        text_config = read_json(folder / "text_encoder" / "config.json")
        own["tokenizer"] = PipelineTokenizer(read_tokenizer(folder / "tokenizer", text_config))
    given = own | dict(parts) | {"requires_safety_checker": False}
    # diffusers would refuse this tokenizer, and warn of a safety checker, where it has not read them itself.
    later = {part: given[part] for part in ("tokenizer", "safety_checker") if part in given}
    options = {"dtype": dict(types), "variant": variant, "use_safetensors": True, "local_files_only": True}
    try:
        pipeline = load(folder, **options, **given | dict.fromkeys(later))
    except Exception as error:
        raise WeightsError("{}: diffusers can't open it: {}", folder, error) from error
    pipeline.register_modules(**later)
    pipeline.scheduler = own.get("scheduler", pipeline.scheduler)  # this one, not a copy
    required = parts.get("requires_safety_checker", pipeline.safety_checker is not None)
    pipeline.register_to_config(requires_safety_checker=required)
    return pipeline


def _check_unverified(folder: Path, given: Container[str]) -> dict[str, str]:
    """Return the class of each part, by the folder's index. The parts that are `given` may be missing.

    Raises `WeightsError` if the folder is not to be opened.
    """
    try:
        files = model_files(folder)
        index = read_json(folder / "model_index.json")
    except WeightsError as error:
        raise WeightsError(
            "{}: has no {}, and can't be opened as it is ({}); convert it first with python -m jsd weights convert",
            folder,
            MANIFEST,
            error,
        ) from error
    for file in (folder / path for path in files):
        if file.suffix.lower() == ".py":
            raise WeightsError("{}: code, which is never run; remove it", file)
        if file.name.endswith("config.json") and "auto_map" in read_json(file):
            raise WeightsError("{}: names code (auto_map), which is never run; remove it", file)
        if file.name == "config.json":
            check_config(file)
        if ".safetensors.index." in file.name:
            _check_shards(file)
    found = {part: entry for part, entry in index.items() if isinstance(entry, list)}
    for part, entry in found.items():
        if len(entry) != 2 or entry[0] not in (None, *LIBRARIES):
            allowed = ", ".join(LIBRARIES)
            raise WeightsError("{}: {} is of {}; only classes of {} are used", folder, part, shown(entry), allowed)
    for part in (part for part, entry in found.items() if entry[0] and part in NAMES and part not in given):
        if not (folder / part).is_dir():
            raise WeightsError("{}: missing; {}", folder / part, RESTORE)
        if (folder / part / "model_index.json").exists():  # it may name classes of any origin
            raise WeightsError("{}: a pipeline, where a part is wanted; {}", folder / part, RESTORE)
    return {part: name for part, (_, name) in found.items()}


def _check_shards(file: Path) -> None:
    """Raise `WeightsError` if the index of a sharded model names a file that would be read as a pickle."""
    shards = read_json(file).get("weight_map")
    for name in shards.values() if isinstance(shards, dict) else [shards]:
        if not (isinstance(name, str) and name.endswith(".safetensors") and "/" not in name and "\\" not in name):
            raise WeightsError("{}: names {}; only safetensors beside it are read; {}", file, shown(name), RESTORE)
