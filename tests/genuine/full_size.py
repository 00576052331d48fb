"""A model of the sizes of Stable Diffusion v1.4 with random weights, in the layout of 2022, for `script/bench`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from tests.genuine.layout_2022 import write_part, write_rest


def write_full_size(folder: Path, spiece: Path) -> None:
    """Write a model of the sizes of Stable Diffusion v1.4 with random weights (5.3 GB), whole or not at all.

    Raises FileExistsError if `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it, or name another folder")
    torch.manual_seed(0)
    work = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    for part, model in full_size_parts():
        write_part(work, part, model)
    write_rest(work, spiece, {"do_lower_case": False, "extra_ids": 0, "model_max_length": 77}, crop=224)
    work.rename(folder)


def full_size_parts() -> Iterator[tuple[str, torch.nn.Module]]:
    """Text encoder of CLIP ViT-L with 32,000 tokens, UNet of 859.5 M parameters, VAE of 83.7 M, safety checker."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    text = CLIPTextConfig(**sizes, vocab_size=32_000, max_position_embeddings=77, hidden_act="quick_gelu")
    yield "text_encoder", CLIPTextModel(text)
    yield (
        "unet",
        UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        ),
    )
    yield (
        "vae",
        AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
    )
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 49_408},
        vision_config={**vision, "image_size": 224, "patch_size": 14},
        projection_dim=768,
    )
    yield "safety_checker", StableDiffusionSafetyChecker(config)
