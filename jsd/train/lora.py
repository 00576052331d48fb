"""Train a low-rank adapter (LoRA; Hu et al. 2021, arXiv 2106.09685, sec. 4.1) of the UNet's attention, on a folder of
captioned pictures.

    python -m jsd train lora --model weights/embedded --images my-cat/ --to my-cat.safetensors
    script/predict -i prompt=うちの猫 -i lora=@my-cat.safetensors

`jsd.train.folder` tells which folders are read: beside each picture a caption file, or a metadata.jsonl, or kohya's
layout. Stock diffusers can also load the adapter (`load_lora_weights`).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError

from jsd.atomic import atomic_file, give_usual_permissions
from jsd.errors import InputError, SampleError, TrainingError, shown
from jsd.language import Text
from jsd.model import cell_of
from jsd.train.diffusion import Denoiser
from jsd.train.folder import Captioned, find_pictures
from jsd.train.options import MAX_BATCH, MAX_SEED, MAX_SIDE, check_file, memory_explained, number, whole
from jsd.train.parts import Parts, check_size, load_parts
from jsd.train.samples import pixels_of
from jsd.train.stages import noise_schedule, train_denoiser
from jsd.train.trainer import Plan, make_accelerator

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
MAX_RANK = 4096  # no layer of such a model has more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = Text("Train an adapter, and write it as one safetensors file.")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model to adapt")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="pictures and their captions")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.safetensors", help="where it is written")
    parser.add_argument(
        "--size", type=whole(most=MAX_SIDE), help="width and height in pixels; default: the model's native size"
    )
    parser.add_argument(
        "--rank", type=whole(most=MAX_RANK), default=8, help="of the adapter's matrices (default: %(default)s)"
    )
    parser.add_argument("--steps", type=whole(), default=500, help="default: %(default)s")
    parser.add_argument(
        "--batch", type=whole(most=MAX_BATCH), default=4, help="pictures per step (default: %(default)s)"
    )
    parser.add_argument(
        "--lr", type=number(positive=True), default=1e-3, help="the peak of the learning rate (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=0, help="default: %(default)s")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def run(arguments: argparse.Namespace) -> None:
    """Train a LoRA adapter and write it to `--to`. A killed run with the same pictures and settings is resumed.

    Raises `InputError` for a wrong option, and the errors of `load_parts`, `find_pictures` and `read_pixels`.
    """
    if arguments.to.suffix != ".safetensors":
        raise InputError("--to", "{} was given; a name ending in .safetensors is wanted", shown(str(arguments.to)))
    check_file("--to", arguments.to)
    found, left = find_pictures(arguments.images)
    accelerator = make_accelerator(arguments.cpu)
    parts = load_parts("stage2", arguments.model, None)
    size = arguments.size or _native_size(parts)
    check_size(size, cell_of(parts.vae))
    _tell(found, left)
    with memory_explained(Text("use a smaller --batch or --size")):
        _train(arguments, accelerator, parts, found, size)


def _train(
    arguments: argparse.Namespace, accelerator: Accelerator, parts: Parts, found: list[Captioned], size: int
) -> None:
    """Train the adapter on pictures of `size` x `size` pixels, and write it."""
    pixels = read_pixels([picture.file for picture in found], size)
    latents = encode(parts.vae, pixels, accelerator.device)
    captions = [picture.caption for picture in found]
    names = [picture.file.relative_to(arguments.images).as_posix() for picture in found]
    shown_as = np.repeat(np.arange(len(found)), [picture.repeats for picture in found])
    ids = torch.tensor([parts.tokenizer(text).ids for text in captions])

    torch.manual_seed(arguments.seed)
    model = Denoiser(parts.text_encoder, parts.unet, noise_schedule(parts.scheduler_config)).requires_grad_(False)
    parts.unet.add_adapter(LoraConfig(r=arguments.rank, lora_alpha=arguments.rank, target_modules=list(TARGETS)))

    def source(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        chosen = shown_as[rng.integers(len(shown_as), size=arguments.batch)]
        return latents[chosen], ids[chosen], [f"{place} {names[i]}" for place, i in enumerate(chosen)]

    # The folder of the run is named after everything that decides the result, so only the same run is resumed.
    settings = sorted((name, value) for name, value in vars(arguments).items() if name != "run")
    decisive = [settings, captions, shown_as.tolist(), pixels.mean((1, 2, 3)).tolist()]
    digest = hashlib.sha256(repr(decisive).encode()).hexdigest()
    work = arguments.to.with_name(f"{arguments.to.stem}.run-{digest[:8]}")
    plan = Plan(arguments.steps, arguments.lr, warmup=min(50, arguments.steps), ema=0.99, seed=arguments.seed)
    train_denoiser("lora", model, source, torch.tensor(parts.tokenizer("").ids), plan, work, accelerator)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(parts.unet))
    try:
        with atomic_file(arguments.to) as part:
            StableDiffusionPipeline.save_lora_weights(part.parent, unet_lora_layers=layers, weight_name=part.name)
            give_usual_permissions(part)
    except SafetensorError as error:
        raise TrainingError(
            "{}: can't be written ({}); make room, and run the command again", arguments.to, error
        ) from error
    shutil.rmtree(work)
    print(Text("wrote {}; JSD_LORA={} uses it", arguments.to, arguments.to))


def read_pixels(files: Sequence[Path], size: int) -> torch.Tensor:
    """Read picture files: float (n, 3, size, size) in [-1, 1]. Raises `TrainingError`, which names a bad one."""
    pixels = []
    for file in files:
        try:
            pixels.append(pixels_of({file.suffix.lower().removeprefix("."): file.read_bytes()}, size))
        except SampleError as error:
            raise TrainingError("{}: {}; a whole png, jpeg or webp picture is wanted", file, error) from None
    return torch.stack(pixels)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Encode pictures (n, 3, h, w) one by one on `device`, to which `vae` is moved. Returns scaled latents there."""
    vae.to(device)
    latents = torch.cat([vae.encode(x[None].to(device)).latent_dist.mean for x in pixels])
    return latents * vae.config.scaling_factor


def _native_size(parts: Parts) -> int:
    """Return a model's native size in pixels. Raises `InputError` if its config has no single number."""
    size = parts.unet.config.sample_size
    if not isinstance(size, int):
        raise InputError("--size", "the model's own size is {}; give the width and height in pixels", shown(size))
    return size * cell_of(parts.vae)


def _tell(found: Sequence[Captioned], left: Sequence[Path]) -> None:
    """Print how many pictures are read, and which files are not."""
    seen = sum(picture.repeats for picture in found)
    count = len(found)
    print(Text("{} pictures", count) if seen == count else Text("{} pictures, {} with repeats", count, seen))
    if left:
        names = ", ".join(shown(path.name) for path in left[:10])
        more = len(left) - 10
        print(Text("not read: {} and {} more", names, more) if more > 0 else Text("not read: {}", names))
