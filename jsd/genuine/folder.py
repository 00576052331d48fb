"""Write a model folder in the standard diffusers layout: whole or not at all, with clean configs and a manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from jsd.atomic import give_usual_permissions, write_text
from jsd.errors import WeightsError
from jsd.language import Text
from jsd.manifest import MANIFEST, check_defaults, model_files, read_json, sha256

if TYPE_CHECKING:
    import torch

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")  # the files of a model that go with it wherever it goes


def check_target(folder: Path) -> None:
    """Raises `WeightsError` if `folder` has files, but no manifest. Only a model or an empty folder may be replaced."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise WeightsError("{}: exists and is not a model folder; name a new folder, or a model to replace", folder)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty, hidden folder beside `folder` to write a model into. After the block it is renamed to `folder`.

    A model in `folder` is replaced. If the block raises, `folder` stays as it was. Raises `WeightsError` if `folder`
    holds anything but a model, and `OSError` if the disk is full.
    """
    folder = folder.resolve()  # a link, to a larger disk for example, stays a link
    check_target(folder)
    # Hidden, so that no folder of the user's is taken for one of these.
    work, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(work, folder)
        except BaseException:
            if old.exists():
                os.replace(old, folder)
            raise
    except SafetensorError as error:
        raise OSError(Text("{}: can't be written ({})", folder, error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def save_part(module: torch.nn.Module, folder: Path) -> None:
    """Save a model (a UNet, for example) in `folder`: its config, and its weights as safetensors with today's names.

    In the config of a transformers model, `dtype` becomes float32, whatever type is stored. Otherwise transformers
    would load that model in half precision, while diffusers loads the others in float32.
    """
    from transformers import PreTrainedModel

    # Otherwise transformers would write the names of the file that the model was read from.
    names = {"save_original_format": False} if isinstance(module, PreTrainedModel) else {}
    module.save_pretrained(folder, safe_serialization=True, **names)
    for file in folder.glob("*.safetensors"):
        give_usual_permissions(file)
    config = read_json(folder / "config.json")
    config.pop("_name_or_path", None)  # a path on this machine
    if "dtype" in config:
        config["dtype"] = "float32"
    write_json(folder / "config.json", config)


def write_index(folder: Path) -> None:
    """Write diffusers' `model_index.json` into a model folder. It names a safety checker if the folder has one."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")["_class_name"]
    checked = (folder / "safety_checker").is_dir()
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": ["transformers", "CLIPImageProcessorPil"] if checked else [None, None],
        "requires_safety_checker": checked,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"] if checked else [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / "model_index.json", index)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_manifest(folder: str | Path, *, name: str, defaults: dict[str, Any], **about: Any) -> Path:
    """Write `MANIFEST.json`, with the size and sha256 of every file that is in `folder` now, and return its path.

    `defaults` may hold width, height, num_inference_steps, guidance_scale, guidance_interval and scheduler. `about` is
    any further information: training, data, licences. Raises `WeightsError` if a default is unknown or out of range,
    and if the folder holds a pickle or a link to a folder.
    """
    folder = Path(folder)
    check_defaults(folder, defaults)
    files = {
        path: {"sha256": sha256(folder / path), "size": (folder / path).stat().st_size} for path in model_files(folder)
    }
    write_json(folder / MANIFEST, {"name": name, "defaults": defaults, **about, "files": files})
    return folder / MANIFEST
