"""Teach a model folder something new with little: low-rank adapters (LoRA, arXiv 2106.09685, sec. 4.1) of its UNet's
attention, on a folder of captioned pictures.

    python -m jsd train lora --model weights/embedded --images my-cat/ --to my-cat.safetensors
    JSD_LORA=my-cat.safetensors script/predict -i prompt=うちの猫

The folder holds pictures and, for each, a text file of the same name with its caption. The file that comes out opens
in stock diffusers too (`load_lora_weights`).
"""

import argparse
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from jsd.errors import SampleError, shown
from jsd.train.data import IMAGES, caption_of, crop, image_of, to_tensor
from jsd.train.diffusion import Denoiser
from jsd.train.run_stage import load_parts
from jsd.train.stages import noise_schedule, train_denoiser
from jsd.train.trainer import Plan

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def read_folder(folder: Path, size: int) -> tuple[torch.Tensor, list[str], list[str]]:
    """The pictures of a folder (n, 3, size, size) in [-1, 1], their captions, their names.

    Raises FileNotFoundError when there are none, ValueError naming the file for one that is bad or has no caption.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower().lstrip(".") in IMAGES)
    if not files:
        raise FileNotFoundError(f"{folder}: no pictures (.{', .'.join(IMAGES)}) here")
    pixels, captions = [], []
    for file in files:
        raw = {file.suffix.lower().lstrip("."): file.read_bytes()}
        if file.with_suffix(".txt").is_file():
            raw["txt"] = file.with_suffix(".txt").read_bytes()
        try:
            captions.append(caption_of(raw))
            pixels.append(to_tensor(crop(image_of(raw), size)))
        except SampleError as error:
            raise ValueError(f"{file}: {error}; each picture needs a caption in a .txt of its name") from None
    return torch.stack(pixels), captions, [file.name for file in files]


def main(argv: Sequence[str]) -> None:
    """Train an adapter and write it as one safetensors file."""
    parser = argparse.ArgumentParser(prog="python -m jsd train lora", description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="pictures and .txt captions")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--size", type=int, help="pixels a side; default: the model's own")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="leave a GPU aside")
    args = parser.parse_args(argv)
    if args.to.suffix != ".safetensors":
        raise FileNotFoundError(f"--to: {shown(str(args.to))} was given; a name ending in .safetensors is wanted")
    accelerator = Accelerator(cpu=args.cpu)
    parts = load_parts("stage2", args.model, None)
    cell = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    pixels, captions, names = read_folder(args.images, args.size or parts.unet.config.sample_size * cell)
    with torch.no_grad():
        latents = torch.cat([parts.vae.encode(x[None]).latent_dist.mean for x in pixels])
    latents = latents * parts.vae.config.scaling_factor
    ids = torch.tensor([parts.tokenizer(text).ids for text in captions])

    torch.manual_seed(args.seed)
    model = Denoiser(parts.text_encoder, parts.unet, noise_schedule(parts.scheduler_config)).requires_grad_(False)
    parts.unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=list(TARGETS)))

    def source(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        chosen = rng.integers(len(names), size=args.batch)
        return latents[chosen], ids[chosen], [f"{place} {names[i]}" for place, i in enumerate(chosen)]

    # A killed run is taken up again only for the same model, pictures and settings.
    same = repr([sorted(vars(args).items()), captions, pixels.mean((1, 2, 3)).tolist()])
    work = args.to.with_name(f"{args.to.stem}.run-{hashlib.sha256(same.encode()).hexdigest()[:8]}")
    plan = Plan(args.steps, args.lr, warmup=min(50, args.steps), ema=0.99, seed=args.seed)
    train_denoiser("lora", model, source, torch.tensor(parts.tokenizer("").ids), plan, work, accelerator)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(parts.unet))
    StableDiffusionPipeline.save_lora_weights(work / "file", unet_lora_layers=layers)
    os.replace(next((work / "file").glob("*.safetensors")), args.to)
    shutil.rmtree(work)
    print(f"wrote {args.to}; JSD_LORA={args.to} uses it")
