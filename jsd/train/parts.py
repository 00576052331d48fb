"""Load the parts of a model folder that training begins with: tokenizer, text encoder, UNet, VAE, noise schedule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from jsd.adapters import Adapters
from jsd.errors import InputError, WeightsError, shown
from jsd.language import Text
from jsd.manifest import MANIFEST, RESTORE, read_json, verify
from jsd.model import Components, check_parts_match, read_part
from jsd.request import Defaults
from jsd.tokenizer import Tokenizer
from jsd.train.options import first_line
from jsd.train.stages import STAGES, fresh_text_encoder, noise_schedule


@dataclass
class Parts:
    """The parts of a model that a training stage begins with, as `load_parts` returns them."""

    tokenizer: Tokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]


def load_parts(stage: str, model: Path, tokenizer_folder: Path | None) -> Parts:
    """Load the parts that `stage` begins with from the folder `model`, in float32.

    If the stage trains a new text encoder, its weights are random, and the folder's config and the tokenizer give its
    shape. If the folder has a manifest, its files are verified first. Raises `WeightsError` if a part is missing or
    wrong, or if they do not belong together, and `InputError` if there is no folder `model`, or if a stage that keeps
    the text encoder is given a `tokenizer_folder`.
    """
    fresh = STAGES[stage].fresh_text
    if tokenizer_folder and not fresh:
        raise InputError(
            "--tokenizer", "{} keeps the text encoder of {}, and its tokenizer; leave it out", stage, model
        )
    if (model / MANIFEST).is_file():
        verify(model)
    if not model.is_dir():
        raise InputError(
            "--model", "{} is no folder; name a model folder in the layout of diffusers", shown(str(model))
        )
    tokenizer = Tokenizer.from_folder(tokenizer_folder or model / "tokenizer")
    if fresh:
        torch.manual_seed(0)
        with _named(model / "text_encoder" / "config.json") as config:
            text_encoder = fresh_text_encoder(CLIPTextConfig.from_dict(config), tokenizer)
    else:
        text_encoder = read_part(model, "text_encoder", torch.float32)
    unet, vae = (read_part(model, part, torch.float32) for part in ("unet", "vae"))
    check_parts_match(model, tokenizer, text_encoder.config, unet.config, vae.config)
    with _named(model / "scheduler" / "scheduler_config.json") as config:
        noise_schedule(config)
    return Parts(tokenizer, text_encoder, unet, vae, config)


@contextmanager
def _named(file: Path) -> Iterator[dict[str, Any]]:
    """A context manager that yields the JSON object in a file. It turns errors over its values into `WeightsError`."""
    config = read_json(file)
    try:
        yield config
    except Exception as error:
        raise WeightsError("{}: can't be used ({}); {}", file, first_line(error), RESTORE) from error


def in_training(parts: Parts, defaults: Defaults) -> Components:
    """Return the parts as a model that draws, without a safety checker, in float32."""
    return Components(
        name="in training",
        defaults=defaults,
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        scheduler_config=parts.scheduler_config,
        safety_checker=None,
        image_processor=None,
        device=parts.unet.device,
        dtype=torch.float32,
        adapters=Adapters(parts.unet, parts.text_encoder),
    )


def check_size(size: int, cell: int) -> None:
    """Raise `InputError` if `size` pixels are no multiple of a model's latent cell (the VAE's downsampling factor)."""
    if size % cell:
        near = [str(side) for side in (size // cell * cell, (size // cell + 1) * cell) if side]
        raise InputError(
            "--size",
            "{} was given; this model is trained on multiples of {}, so give {}",
            size,
            cell,
            Text("{} or {}", *near) if len(near) > 1 else near[0],
        )
