"""Find the model that a pipeline asks for, and open it: a model folder, a repository of the hub, a folder of diffusers.

A folder of diffusers has no manifest, so nothing vouches for its files. It is opened if it holds safetensors only, and
no code.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, StableDiffusionPipeline
from diffusers.utils import logging

from jsd import manifest, model
from jsd.errors import InputError, WeightsError, shown
from jsd.genuine import hub
from jsd.genuine.configs import NOISE, read_tokenizer
from jsd.genuine.tokenizer import PipelineTokenizer
from jsd.manifest import MANIFEST, model_files, read_json
from jsd.model import PARTS, WEIGHT_FILES, check_config, read_part, stored_types
from jsd.schedulers import check_model, check_noise, make_scheduler

TYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
TYPES |= {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = set(inspect.signature(StableDiffusionPipeline.__init__).parameters) - {"self", "requires_safety_checker"}
# Where the classes of a folder's index may be from.
LIBRARIES = ("diffusers", "transformers", "stable_diffusion", PipelineTokenizer.__module__)
# What the noise is if a scheduler config does not tell.
USUAL_NOISE = {"prediction_type": "epsilon", "trained_betas": None}
USUAL_NOISE |= {"rescale_betas_zero_snr": False, "use_flow_sigmas": False}
LOG = logging.get_logger(DiffusionPipeline.__module__)  # diffusers tells there what it loads


def find(
    source: str, revision: str | None, token: bool | str | None, local_files_only: bool, force_download: bool
) -> Path:
    """Return the path of a model's folder. `source` is that folder, or a repository, which is fetched if necessary."""
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1:
        raise WeightsError(f"{source}: neither a folder nor the name of a repository, such as {hub.GENUINE}")
    folder = manifest.ROOT / source.rpartition("/")[2]
    hub.check_origin(folder, source)
    origin = hub.origin_of(folder)
    # A commit never changes. A branch or a tag may have moved, so the hub is asked again.
    again = force_download and not local_files_only
    if origin is not None and not again and (revision is None or origin.endswith(f" at {revision}")):
        return folder
    if local_files_only:
        raise WeightsError(f"{source}: not in {folder}, and local_files_only forbids fetching it")
    hub.pull(source, folder, revision, token if isinstance(token, str) else None, report=print)
    return folder


def types_of(name: str, given: Any, folder: Path) -> dict[str, torch.dtype]:
    """Return the dtype of each of PARTS, and of others as "default", for the argument `name`: dtype or torch_dtype.

    `given` is a dtype or its name, "auto" for the type that is stored, or a dict of these by part, with "default" for
    the parts that it does not name. None is float32. Raises `InputError` for anything else.
    """
    by_part = given if isinstance(given, Mapping) else {"default": given}
    if unknown := by_part.keys() - NAMES - {"default"}:
        allowed = ", ".join(sorted(NAMES))
        raise InputError(
            name, f"{shown(min(unknown, key=str))} is no part of a pipeline; allowed are default, {allowed}"
        )
    default = by_part.get("default")
    files = {part: folder / part / file for part, file in WEIGHT_FILES.items()}
    return {part: _type(name, by_part.get(part, default), files.get(part)) for part in (*PARTS, "default")}


def _type(name: str, given: Any, file: Path | None) -> torch.dtype:
    if given is None:
        return torch.float32
    if isinstance(given, str) and given == "auto":
        (stored, *others) = stored_types(file) if file and file.is_file() else [None]
        return torch.float32 if others or stored is None else stored
    chosen = TYPES.get(given.removeprefix("torch.")) if isinstance(given, str) else given
    if chosen not in TYPES.values():
        allowed = f"{', '.join(map(str, dict.fromkeys(TYPES.values())))}, their names, 'auto', or a dict of these"
        raise InputError(name, f"{shown(given)} was given; allowed are {allowed} by part")
    return chosen


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
        allowed = "allowed are 'balanced' and the devices of this machine, such as 'cpu'; all parts go to one"
        reason = str(error).partition("\n")[0]
        raise InputError("device_map", f"{shown(device_map)} was given ({reason}); {allowed}") from error


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
        raise InputError("variant", f"{shown(variant)} was given; a model folder has none, so leave it out")
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
    sentencepiece. `load` reads what else there is. Raises `WeightsError` if the folder holds more than safetensors.
    """
    index = _check_unverified(folder)
    advice = "python -m jsd weights convert makes a model folder of it, which is verified"
    warnings.warn(f"{folder}: has no {MANIFEST}, so nothing vouches for its files; {advice}", stacklevel=3)
    own: dict[str, Any] = {}
    if scheduler is not None:
        own["scheduler"] = follow(scheduler, read_json(folder / "scheduler" / "scheduler_config.json"))
    for part, kind in PARTS.items():
        plain = folder / part / WEIGHT_FILES[part]
        chosen = variant if plain.with_suffix(f".{variant}.safetensors").is_file() else None
        if part not in parts and index.get(part) == kind.__name__ and (chosen or plain.is_file()):
            own[part] = read_part(folder, part, types[part], chosen)
            LOG.info(f"Loaded {part} as {kind.__name__} from {folder}.")
    later = {"safety_checker": own.pop("safety_checker")} if "safety_checker" in own else {}
    if "tokenizer" not in parts and (folder / "tokenizer" / "spiece.model").is_file():
        text_config = read_json(folder / "text_encoder" / "config.json")
        later["tokenizer"] = PipelineTokenizer(read_tokenizer(folder / "tokenizer", text_config))
    # diffusers would refuse this tokenizer, and warn of a safety checker, where it has not read them itself.
    without: dict[str, Any] = dict.fromkeys(later)
    if "safety_checker" in later:
        without["requires_safety_checker"] = False
    options = {"dtype": dict(types), "variant": variant, "use_safetensors": True, "local_files_only": True}
    pipeline = load(folder, **options, **own | dict(parts) | without)
    pipeline.register_modules(**later)
    pipeline.scheduler = own.get("scheduler", pipeline.scheduler)  # this one, not a copy
    if "safety_checker" in later:
        pipeline.register_to_config(requires_safety_checker=parts.get("requires_safety_checker", True))
    return pipeline


def _check_unverified(folder: Path) -> dict[str, str]:
    """Return the class of each part, by the folder's index. Raises `WeightsError` if the folder is not to be opened."""
    try:
        files = model_files(folder)
        index = read_json(folder / "model_index.json")
    except WeightsError as error:
        advice = "convert it first with python -m jsd weights convert"
        raise WeightsError(f"{folder}: has no {MANIFEST}, and can't be opened as it is ({error}); {advice}") from error
    for path in files:
        if path.endswith(".py"):
            raise WeightsError(f"{folder / path}: code, which is never run; remove it")
        if path.endswith("/config.json"):
            check_config(folder / path)
    found = {part: entry for part, entry in index.items() if isinstance(entry, list)}
    for part, entry in found.items():
        if len(entry) != 2 or entry[0] not in (None, *LIBRARIES):
            allowed = ", ".join(LIBRARIES)
            raise WeightsError(f"{folder}: {part} is of {shown(entry)}; only classes of {allowed} are used")
    return {part: name for part, (_, name) in found.items()}


def follow(scheduler: SchedulerMixin, config: Mapping[str, Any]) -> SchedulerMixin:
    """Return `scheduler` with the noise settings (NOISE) of the model's scheduler config. Warns if that changes it.

    Raises `InputError` if the scheduler does not support one of them.
    """
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
    warnings.warn(f"{type(scheduler).__name__}: changed to {settings}, which this model was trained with", stacklevel=4)
    return type(scheduler).from_config(scheduler.config, **differ)
