"""Find the model that a pipeline asks for, a model folder or a repository of the hub, and open it.

Folders without a manifest: see `jsd.genuine.unverified`.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, StableDiffusionPipeline
from safetensors import SafetensorError

from jsd import manifest, model
from jsd.errors import InputError, WeightsError, shown
from jsd.genuine import hub
from jsd.genuine.configs import NOISE
from jsd.genuine.tokenizer import PipelineTokenizer
from jsd.language import Text
from jsd.model import PARTS, stored_types
from jsd.schedulers import check_model, check_noise, make_scheduler

TYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
TYPES |= {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = set(inspect.signature(StableDiffusionPipeline.__init__).parameters) - {"self", "requires_safety_checker"}
# What the noise is if a scheduler config does not tell.
USUAL_NOISE = {"prediction_type": "epsilon", "trained_betas": None}
USUAL_NOISE |= {"rescale_betas_zero_snr": False, "use_flow_sigmas": False}


def find(
    source: str, revision: str | None, token: bool | str | None, local_files_only: bool, force_download: bool
) -> Path:
    """Return the path of a model's folder. `source` is that folder, or a repository, which is fetched if necessary."""
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1:
        raise WeightsError("{}: neither a folder nor the name of a repository, such as {}", source, hub.GENUINE)
    folder = manifest.ROOT / source.rpartition("/")[2]
    hub.check_origin(folder, source)
    origin = hub.origin_of(folder)
    # A commit never changes. A branch or a tag may have moved, so the hub is asked again.
    again = force_download and not local_files_only
    if origin is not None and not again and (revision is None or origin.endswith(f" at {revision}")):
        return folder
    if local_files_only:
        raise WeightsError("{}: not in {}, and local_files_only forbids fetching it", source, folder)
    hub.pull(source, folder, revision, token if isinstance(token, str) else None, report=print)
    return folder


def types_of(name: str, given: Any, folder: Path, variant: str | None = None) -> dict[str, torch.dtype]:
    """Return the dtype of each of PARTS, and of others as "default", for the argument `name`: dtype or torch_dtype.

    `given` is a dtype or its name, "auto" for the type that is stored, or a dict of these by part, with "default" for
    the parts that it does not name. None is float32. Raises `InputError` for anything else.
    """
    by_part = given if isinstance(given, Mapping) else {"default": given}
    if unknown := by_part.keys() - NAMES - {"default"}:
        allowed = ", ".join(sorted(NAMES))
        raise InputError(
            name, "{} is no part of a pipeline; allowed are default, {}", shown(min(unknown, key=str)), allowed
        )
    default = by_part.get("default")
    return {
        part: _type(name, by_part.get(part, default), weight_files(folder / part, variant)[0])
        for part in (*PARTS, "default")
    }


def _type(name: str, given: Any, files: list[Path]) -> torch.dtype:
    if given is None:
        return torch.float32
    if isinstance(given, str) and given == "auto":
        try:
            stored = {kind for file in files for kind in stored_types(file)}
        except SafetensorError:  # whoever loads the file tells what is wrong with it
            stored = set()
        return stored.pop() if len(stored) == 1 and None not in stored else torch.float32
    chosen = TYPES.get(given.removeprefix("torch.")) if isinstance(given, str) else given
    if chosen not in TYPES.values():
        allowed = ", ".join(map(str, dict.fromkeys(TYPES.values())))
        raise InputError(
            name,
            "{} was given; allowed are {}, their names, 'auto', or a dict of these by part",
            shown(given),
            allowed,
        )
    return chosen


def weight_files(place: Path, variant: str | None) -> tuple[list[Path], str | None]:
    """Return the safetensors that are read of a part's folder, several if it is sharded, and the variant they are of.

    These are the files of `variant`, "fp16" for example, and those of none if it has no such files.
    """
    files = list(place.glob("*.safetensors"))
    marked = [file for file in files if variant and re.search(rf"\.{re.escape(variant)}[.-]", file.name)]
    return (marked, variant) if marked else ([file for file in files if file.name.count(".") == 1], None)


def device_of(device_map: Any) -> torch.device | None:
    """Return the device that a `device_map` names: "cuda", "cpu" ..., or {"": device}. None stands for None.

    "balanced" and "auto" are a GPU if there is one. The model is small enough not to be spread over several. Raises
    `InputError` for anything else, and for a device that can't be used here.
    """
    if device_map is None:
        return None
    chosen = device_map[""] if isinstance(device_map, Mapping) and list(device_map) == [""] else device_map
    if chosen in ("balanced", "auto"):
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=chosen).device
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            "device_map",
            "{} was given ({}); allowed are 'balanced' and the devices of this machine, such as 'cpu'; all parts go to "
            "one",
            shown(device_map),
            str(error).partition("\n")[0],
        ) from error


def open_verified(
    pipeline_class: type[DiffusionPipeline],
    folder: Path,
    types: Mapping[str, torch.dtype],
    variant: str | None,
    scheduler: SchedulerMixin | None,
    parts: Mapping[str, Any],
) -> DiffusionPipeline:
    """Open a model folder. `parts` replace the model's own, and so does `scheduler`, which follows its noise.

    Raises `InputError` for a `variant` other than "fp16", and everything that `jsd.model.load` and `follow` raise.
    """
    if variant not in (None, "fp16"):
        raise InputError("variant", "{} was given; a model folder has none, so leave it out", shown(variant))
    checked = parts.get("safety_checker", True) is not None and (folder / "safety_checker").is_dir()
    loaded = model.load(folder, dtype=types, safety_checker=checked)
    if scheduler is None:
        scheduler = make_scheduler(loaded.defaults.scheduler, loaded.scheduler_config)
    else:
        scheduler = follow(scheduler, loaded.scheduler_config)
    own = {
        "vae": loaded.vae,
        "text_encoder": loaded.text_encoder,
        "tokenizer": PipelineTokenizer(loaded.tokenizer),
        "unet": loaded.unet,
        "scheduler": scheduler,
        "safety_checker": loaded.safety_checker,
        "feature_extractor": loaded.image_processor,
        "requires_safety_checker": checked,
    }
    pipeline = pipeline_class(**own | dict(parts))
    pipeline.scheduler = scheduler  # this one, not a copy
    return pipeline


def follow(scheduler: SchedulerMixin, config: Mapping[str, Any]) -> SchedulerMixin:
    """Return `scheduler` with the noise settings (NOISE) of the model's scheduler config. Warns if that changes it.

    Raises `InputError` if the scheduler does not support one of them, or is none.
    """
    if isinstance(scheduler, type) or not hasattr(scheduler, "config"):
        raise InputError("scheduler", "{} was given; make one of diffusers, DDIMScheduler(...)", shown(scheduler))
    check_model(config)
    check_noise(type(scheduler).__name__, type(scheduler), config)
    wanted = {**USUAL_NOISE, **{key: config[key] for key in NOISE if config.get(key) is not None}}
    own = {
        key: list(value) if isinstance(value, tuple | np.ndarray) else value for key, value in scheduler.config.items()
    }
    differ = {key: value for key, value in wanted.items() if key in own and own[key] != value}
    if not differ:
        return scheduler
    settings = ", ".join(f"{key}={value!r}" for key, value in differ.items())
    warnings.warn(
        Text("{}: changed to {}, which this model was trained with", type(scheduler).__name__, settings), stacklevel=4
    )
    return type(scheduler).from_config(scheduler.config, **differ)
