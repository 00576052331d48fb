"""A small repository in the layout of 2022, with everything that makes a conversion difficult."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from tests.fakes import train_sentencepiece
from tests.genuine.layout_2022 import write_json, write_part, write_rest

EMBEDDINGS = 160  # of the text encoder; the tokenizer has fewer tokens
LENGTH = 16  # of a tokenized prompt
SPECIAL = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]", "bos_token": "<s>"}


@dataclass
class Models:
    """The four models of a repository, in today's classes: what a conversion must give back."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    safety_checker: StableDiffusionSafetyChecker


@dataclass
class Repository:
    """A folder in the layout of 2022, and the models in it."""

    folder: Path
    models: Models


def make_models() -> Models:
    """Make small models with random weights that are exact in half precision."""
    torch.manual_seed(5)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=EMBEDDINGS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
    vae.decoder.conv_out.weight.data *= 3  # more contrast; otherwise all pictures would be nearly grey
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={**small, "vocab_size": 8},
            vision_config={**small, "image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
    )
    models = Models(text.eval(), unet.eval(), vae.eval(), checker.eval())
    for model in vars(models).values():
        model.half().float()
    return models


def make_repository(folder: Path) -> Repository:
    """Write a repository to a new folder."""
    models = make_models()
    for part, model in vars(models).items():
        write_part(folder, part, model)
    # rinna's ids: <unk> 0, <s> 1, </s> 2. The other special tokens are user-defined.
    spiece = train_sentencepiece(
        folder / "spiece",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=["[PAD]", "[CLS]", "[SEP]", "[MASK]"],
        normalization_rule_name="nmt_nfkc",
    )
    write_rest(folder, spiece, {**SPECIAL, "extra_ids": 0, "model_max_length": 1e30}, 32)
    spiece.unlink()
    write_json(folder / "tokenizer" / "special_tokens_map.json", SPECIAL)
    (folder / "sd-v1-4.ckpt").write_bytes(b"not needed" * 1000)
    (folder / "unet" / "flax_model.msgpack").write_bytes(b"not needed" * 1000)
    return Repository(folder, models)
