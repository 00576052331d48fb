"""Load the parts of a model folder that training begins with: tokenizer, text encoder, UNet, VAE, noise schedule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from jsd.errors import InputError
from jsd.manifest import MANIFEST, read_json, verify
from jsd.model import read_part
from jsd.tokenizer import Tokenizer
from jsd.train.stages import STAGES, fresh_text_encoder


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
    shape. Raises `WeightsError` if a part is missing or wrong, and `InputError` if a stage that keeps the text
    encoder is given a `tokenizer_folder`. If the folder has a manifest, its files are verified first.
    """
    fresh = STAGES[stage].fresh_text
    if tokenizer_folder and not fresh:
        raise InputError("--tokenizer", f"{stage} keeps the text encoder of {model}, and its tokenizer; leave it out")
    if (model / MANIFEST).is_file():
        verify(model)
    tokenizer = Tokenizer.from_folder(tokenizer_folder or model / "tokenizer")
    if fresh:
        torch.manual_seed(0)
        config = CLIPTextConfig.from_dict(read_json(model / "text_encoder" / "config.json"))
        text_encoder = fresh_text_encoder(config, tokenizer)
    else:
        text_encoder = read_part(model, "text_encoder", torch.float32)
    return Parts(
        tokenizer,
        text_encoder,
        unet=read_part(model, "unet", torch.float32),
        vae=read_part(model, "vae", torch.float32),
        scheduler_config=read_json(model / "scheduler" / "scheduler_config.json"),
    )
