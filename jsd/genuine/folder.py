"""Writing a model folder in the standard diffusers layout: in one piece, with clean configs and an index."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsd.atomic import write_text
from jsd.manifest import MANIFEST, check_defaults, model_files, sha256

if TYPE_CHECKING:
    import torch


def check_target(folder: Path) -> None:
    """Raises FileExistsError, before any work, if `folder` holds anything but a model, which may be replaced."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is there and is no model folder; name one that can be replaced, or a new one")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to write a model into, which takes its place, and name, when all went well.

    A model that was there is replaced; whatever goes wrong leaves it as it was. Raises FileExistsError for a folder
    that holds something else.
    """
    folder = folder.resolve()  # a link to a larger disk stays one
    check_target(folder)
    work, old = (folder.with_name(folder.name + suffix) for suffix in (".tmp", ".old"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(work, folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_part(module: torch.nn.Module, folder: Path) -> None:
    """Write a model as safetensors with its config, which names float32 whatever the file holds.

    Else transformers would load its parts in half precision, and stock diffusers the others in full. And transformers
    would go back to the names of tensors that a model had been read with.
    """
    from transformers import PreTrainedModel

    names = {"save_original_format": False} if isinstance(module, PreTrainedModel) else {}
    module.save_pretrained(folder, safe_serialization=True, **names)
    config = folder / "config.json"
    settings = json.loads(config.read_text("utf-8"))
    settings.pop("_name_or_path", None)  # of the machine it was made on
    if "dtype" in settings:
        settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def write_index(folder: Path) -> None:
    """Write diffusers' model_index.json for the parts that are there."""
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))["_class_name"]
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
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def write_manifest(folder: str | Path, *, name: str, defaults: dict[str, Any], **about: Any) -> Path:
    """Write `MANIFEST.json` for the files that are in `folder` now, and return its path.

    `defaults` may hold width, height, num_inference_steps, guidance_scale, guidance_interval and scheduler. `about` is
    any further information: training, data, licences. Raises `WeightsError` for a default out of range, and for a
    pickle in the folder.
    """
    folder = Path(folder)
    check_defaults(folder, defaults)
    files = {
        path: {"sha256": sha256(folder / path), "size": (folder / path).stat().st_size} for path in model_files(folder)
    }
    text = json.dumps({"name": name, "defaults": defaults, **about, "files": files}, ensure_ascii=False, indent=2)
    write_text(folder / MANIFEST, text + "\n")
    return folder / MANIFEST
