"""Convert a model folder in a layout of diffusers, of 2022 or later, to one that is served.

    python -m jsd weights convert SOURCE FOLDER

rinna/japanese-stable-diffusion has pickles, old names of tensors, configs that today's libraries read wrongly, and a
safety checker that would silently run with random weights. The models are converted one after the other, so that only
one is in memory. A tensor of the source that the new model has no place for is an error.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors.torch import save_file

from jsd.errors import WeightsError
from jsd.genuine.configs import convert_image_processor, convert_scheduler, convert_tokenizer
from jsd.genuine.folder import LICENCES, new_folder, save_part, write_index, write_json, write_manifest
from jsd.genuine.tensors import find_tensors, read_tensors
from jsd.language import Text
from jsd.manifest import MANIFEST, read_json
from jsd.model import PARTS, read_part

CONVERTED = "converted from"  # how the source in the manifest begins if it is not a repository
# The positions 0, 1, 2 ... of the tokens. They are no longer stored.
POSITION_IDS = ("text_model.embeddings.position_ids", "vision_model.vision_model.embeddings.position_ids")
# The settings that the README of 2022 recommends for this model.
DEFAULTS = {"num_inference_steps": 50, "guidance_scale": 7.5}
NO_LICENCE = "none came with the source; ask where it came from"


def convert(
    source: str | Path,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    origin: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Convert the model in `source`, a diffusers folder of 2022 or later, and write it to `folder`, with a manifest.

    `dtype` is the type of the stored tensors, float16 by default. `name` and `origin` (where the model comes from) go
    into the manifest. `report(line)` is called before every stage. `folder` is written whole or not at all. It has a
    safety checker if `source` has one, and the default settings of `source` if that has a manifest.

    Raises `WeightsError`, which names the file, if a file is missing or can't be read, if a pickle holds anything but
    tensors, if a tensor is missing, left over or out of the range of `dtype`, if the tokenizer does not belong to the
    text encoder, and if `folder` holds anything but a model. Raises `OSError` if the disk is full.
    """
    source, folder, dtype = Path(source), Path(folder), dtype or torch.float16
    if source.is_file():
        raise WeightsError(
            "{}: a single file. An adapter in .safetensors needs no conversion (set JSD_LORA). Make a folder of a "
            "model in Python: diffusers.StableDiffusionPipeline.from_single_file('{}', config='MODEL')"
            ".save_pretrained('FOLDER'), where MODEL is a folder of its layout and tokenizer; copy "
            "MODEL/tokenizer/spiece.model to FOLDER/tokenizer; convert FOLDER",
            source,
            source.name,
        )
    if not source.is_dir():
        raise WeightsError(
            "{}: no such folder; python -m jsd weights pull fetches a repository from the hub, and converts it", source
        )
    checked = (source / "safety_checker").is_dir()
    parts = [part for part in PARTS if checked or part != "safety_checker"]
    for part in parts:
        find_tensors(source / part)  # a missing file is reported before any work
    about = read_json(source / MANIFEST) if (source / MANIFEST).is_file() else {}
    with new_folder(folder) as work:
        report(Text("tokenizer, configs"))
        text_config = read_json(source / "text_encoder" / "config.json")
        tokenizer = convert_tokenizer(source / "tokenizer", work / "tokenizer", text_config)
        sampler = convert_scheduler(source / "scheduler", work / "scheduler")
        if checked:
            convert_image_processor(source / "feature_extractor", work / "feature_extractor")
        # The text encoder's config of 2022 has the ids of CLIP's English tokenizer.
        ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_id}
        for part in parts:
            report(part)
            _convert_part(source / part, work / part, dtype, ids if part == "text_encoder" else {})
        licences = sorted(file for pattern in LICENCES for file in source.glob(pattern))
        for file in licences:
            shutil.copyfile(file, work / file.name)
        write_index(work)
        report(Text("manifest"))
        names = ", ".join(file.name for file in licences)
        write_manifest(
            work,
            name=name or source.name,
            defaults=about.get("defaults", {**DEFAULTS, "scheduler": sampler}),
            source=origin or f"{CONVERTED} {source.name}",
            licence=f"see {names}" if names else about.get("licence", NO_LICENCE),
        )


def _convert_part(source: Path, target: Path, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    """Convert one model (a UNet, for example) from the folder `source` to the folder `target`.

    `settings` override its config. The tensors are first saved as safetensors: `from_pretrained` translates the old
    names of tensors, but must not read a pickle.
    """
    tensors = read_tensors(find_tensors(source))
    _drop_position_ids(source, tensors)
    _cast(source, tensors, dtype)
    numbers = sum(value.numel() for value in tensors.values())
    part = target.name
    with TemporaryDirectory(dir=target.parent) as name:
        old = Path(name) / part
        old.mkdir()
        config = read_json(source / "config.json")
        config.pop("torch_dtype", None)
        write_json(old / "config.json", config | settings)
        prefix = "diffusion_pytorch_" if issubclass(PARTS[part], ModelMixin) else ""
        save_file(tensors, old / f"{prefix}model.safetensors")
        del tensors  # there is room for one copy of the part only
        try:
            model = read_part(old.parent, part, dtype)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(old), str(source))) from error
    placed = sum(value.numel() for value in model.state_dict().values())
    if placed != numbers:
        kind = PARTS[part].__name__
        raise WeightsError(
            "{}: the file holds {} numbers, but a {} with this config has {}", source, numbers, kind, placed
        )
    save_part(model, target)


def _drop_position_ids(source: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Remove the tensors in POSITION_IDS from `tensors`. Raises `WeightsError` if one does not hold 0, 1, 2 ..."""
    for key in POSITION_IDS:
        ids = tensors.pop(key, None)
        if ids is not None and not torch.equal(ids.flatten(), torch.arange(ids.numel())):
            raise WeightsError("{}: {} are not 0, 1, 2 ...; this is no CLIP model of Stable Diffusion", source, key)


def _cast(source: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Convert the floating-point `tensors` to `dtype` in place. Raises `WeightsError` if a number is then not finite.

    One tensor is converted at a time, because two copies of all the tensors may not fit into memory.
    """
    for key, value in tensors.items():
        tensors[key] = (value.to(dtype) if value.is_floating_point() else value).contiguous()
        if not tensors[key].isfinite().all():
            raise WeightsError("{}: {} holds numbers that are not finite in {}; try --dtype fp32", source, key, dtype)
