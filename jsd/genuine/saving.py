"""Save a pipeline as a model folder with a manifest, which the pipelines here, the server and stock diffusers open."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline, SchedulerMixin

from jsd.errors import InputError, WeightsError, shown
from jsd.genuine.configs import NOISE
from jsd.genuine.folder import LICENCES, new_folder, save_part, write_index, write_json, write_manifest
from jsd.language import Text
from jsd.manifest import MANIFEST, read_json
from jsd.model import PARTS
from jsd.schedulers import SCHEDULERS


def save_pipeline(pipeline: DiffusionPipeline, folder: Path, **options: Any) -> None:
    """Write the parts of `pipeline`, whose tokenizer is a `PipelineTokenizer`, to a model folder: whole or not at all.

    A model in `folder` is replaced. If the folder that the pipeline was loaded from is still there, its defaults and
    its licence are copied. `options` are other arguments of diffusers' `save_pretrained`.

    Raises `InputError` for an option that would write files that are not read here, and `WeightsError` if a part has an
    adapter beside its weights, if the tokenizer has added tokens, or if `folder` holds anything but a model. Raises
    `OSError` if the disk is full.
    """
    for name in ("variant", "push_to_hub", "use_flashpack"):
        if given := options.get(name):
            raise InputError(name, "{} was given; leave it out, only plain safetensors are written", shown(given))
    if pipeline.tokenizer.added:
        tokens = shown(", ".join(pipeline.tokenizer.added))
        raise WeightsError(
            "the tokenizer has the added tokens {}, which a model folder can't hold; call unload_textual_inversion() "
            "before",
            tokens,
        )
    opened = pipeline.config.get("_name_or_path")
    source = Path(opened) if opened and (Path(opened) / MANIFEST).is_file() else None
    about = read_json(source / MANIFEST) if source else {}
    parts = {part: getattr(pipeline, part) for part in PARTS if getattr(pipeline, part) is not None}
    with new_folder(folder) as work:
        for part, model in parts.items():
            if any("lora_" in name or "_ip." in name for name in model.state_dict()):
                raise WeightsError(
                    "{}: has an adapter, which a model folder can't hold; call unload_lora_weights() (after "
                    "fuse_lora(), to keep it) or unload_ip_adapter() before",
                    part,
                )
            save_part(model, work / part)
        if "safety_checker" in parts:
            pipeline.feature_extractor.save_pretrained(work / "feature_extractor")
        pipeline.tokenizer.save_pretrained(work / "tokenizer")
        sampler = _save_scheduler(pipeline.scheduler, work / "scheduler")
        for file in [file for pattern in LICENCES for file in source.glob(pattern)] if source else []:
            shutil.copyfile(file, work / file.name)
        write_index(work)
        write_manifest(
            work,
            name=folder.resolve().name,
            defaults=about.get("defaults", {}) | ({"scheduler": sampler} if sampler else {}),
            source=f"saved from {about.get('name', 'a pipeline')}",
            licence=about.get("licence", "that of the model it was made from"),
        )


def name_for_diffusers(folder: Path) -> None:
    """Name the pipeline in the index of a folder as diffusers does, so that its `DiffusionPipeline` opens it."""
    index = read_json(folder / "model_index.json")
    write_json(folder / "model_index.json", {**index, "_class_name": index["_class_name"].removeprefix("Japanese")})


def _save_scheduler(scheduler: SchedulerMixin, folder: Path) -> str | None:
    """Write the config of a scheduler, and return the name of the sampler here, None (with a warning) if it has none.

    Settings that were left at the defaults of the class are left out. With them, other samplers would draw this model
    otherwise than before.
    """
    kind = next(kind for kind in type(scheduler).__mro__ if kind.__module__.startswith("diffusers."))
    unset = set(scheduler.config.get("_use_default_values", ())) - set(NOISE)
    config = {key: value for key, value in json.loads(scheduler.to_json_string()).items() if key not in unset}
    folder.mkdir()
    write_json(folder / "scheduler_config.json", config | {"_class_name": kind.__name__})
    for name, (here, arguments) in SCHEDULERS.items():
        if issubclass(here, kind) and all(scheduler.config.get(key) == value for key, value in arguments.items()):
            return name
    text = Text("no sampler here draws like this {}; pass scheduler= when you open the folder", kind.__name__)
    warnings.warn(text, stacklevel=4)
    return None
