"""Train a low-rank adapter (LoRA; Hu et al. 2021, arXiv 2106.09685, sec. 4.1) of the UNet's attention, on a folder of
captioned pictures.

    python -m jsd train lora --model weights/embedded --images my-cat/ --to my-cat.safetensors
    script/predict -i prompt=うちの猫 -i lora=@my-cat.safetensors

The folder holds pictures, and beside each picture a .txt file of the same name with its caption. Stock diffusers can
also load the adapter (`load_lora_weights`).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from jsd.atomic import atomic_file
from jsd.errors import InputError, SampleError, TrainingError, shown
from jsd.model import cell_of
from jsd.train.diffusion import Denoiser
from jsd.train.parts import load_parts
from jsd.train.run_stage import positive
from jsd.train.samples import IMAGES, caption_of, pixels_of
from jsd.train.stages import noise_schedule, train_denoiser
from jsd.train.trainer import Plan

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train an adapter, and write it as one safetensors file."
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model to adapt")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="pictures and .txt captions")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.safetensors", help="where it is written")
    parser.add_argument("--size", type=positive, help="width and height in pixels; default: the model's native size")
    parser.add_argument("--rank", type=positive, default=8, help="of the adapter's matrices (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=500, help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=4, help="pictures per step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="the peak of the learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def run(arguments: argparse.Namespace) -> None:
    """Train a LoRA adapter and write it to `--to`. A killed run with the same pictures and settings is resumed.

    Raises `InputError` if `--to` does not end in .safetensors, and the errors of `load_parts` and `read_folder`.
    """
    if arguments.to.suffix != ".safetensors":
        raise InputError("--to", f"{shown(str(arguments.to))} was given; a name ending in .safetensors is wanted")
    accelerator = Accelerator(cpu=arguments.cpu)
    parts = load_parts("stage2", arguments.model, None)
    size = arguments.size or parts.unet.config.sample_size * cell_of(parts.vae)
    pixels, captions, names = read_folder(arguments.images, size)
    with torch.no_grad():
        latents = torch.cat([parts.vae.encode(x[None]).latent_dist.mean for x in pixels])
    latents = latents * parts.vae.config.scaling_factor
    ids = torch.tensor([parts.tokenizer(text).ids for text in captions])

    torch.manual_seed(arguments.seed)
    model = Denoiser(parts.text_encoder, parts.unet, noise_schedule(parts.scheduler_config)).requires_grad_(False)
    parts.unet.add_adapter(LoraConfig(r=arguments.rank, lora_alpha=arguments.rank, target_modules=list(TARGETS)))

    def source(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        chosen = rng.integers(len(names), size=arguments.batch)
        return latents[chosen], ids[chosen], [f"{place} {names[i]}" for place, i in enumerate(chosen)]

    # The folder of the run is named after everything that decides the result, so only the same run is resumed.
    settings = sorted((name, value) for name, value in vars(arguments).items() if name != "run")
    digest = hashlib.sha256(repr([settings, captions, pixels.mean((1, 2, 3)).tolist()]).encode()).hexdigest()
    work = arguments.to.with_name(f"{arguments.to.stem}.run-{digest[:8]}")
    plan = Plan(arguments.steps, arguments.lr, warmup=min(50, arguments.steps), ema=0.99, seed=arguments.seed)
    train_denoiser("lora", model, source, torch.tensor(parts.tokenizer("").ids), plan, work, accelerator)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(parts.unet))
    with atomic_file(arguments.to) as part:
        StableDiffusionPipeline.save_lora_weights(part.parent, unet_lora_layers=layers, weight_name=part.name)
    shutil.rmtree(work)
    print(f"wrote {arguments.to}; JSD_LORA={arguments.to} uses it")


def read_folder(folder: Path, size: int) -> tuple[torch.Tensor, list[str], list[str]]:
    """Read the pictures of a folder: pixels (n, 3, size, size) in [-1, 1], captions (from .txt files), file names.

    Raises `TrainingError` if the folder has no pictures, or if a picture can't be read or has no caption.
    """
    files = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower().lstrip(".") in IMAGES)
    if not files:
        raise TrainingError(f"{folder}: no pictures (.{', .'.join(IMAGES)}) here")
    pixels, captions = [], []
    for file in files:
        sample = {file.suffix.lower().lstrip("."): file.read_bytes()}
        if file.with_suffix(".txt").is_file():
            sample["txt"] = file.with_suffix(".txt").read_bytes()
        try:
            captions.append(caption_of(sample))
            pixels.append(pixels_of(sample, size))
        except SampleError as error:
            raise TrainingError(f"{file}: {error}; each picture needs a caption in a .txt of the same name") from None
    return torch.stack(pixels), captions, [file.name for file in files]
