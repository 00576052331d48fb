"""How many pictures per second our training loop takes in, compared with the loop of diffusers' text-to-image example.

Both train the UNet of the same model folder on the same JPEGs in turn, reading included, with the same precision, EMA
and gradient clipping. Ours is `python -m jsd train loop`. The peer is written here after diffusers 0.42's
examples/text_to_image/train_text_to_image.py, which is not in the package: the same steps in the same order, its AdamW,
its EMA. A DataLoader of picture files replaces the `datasets` library and torchvision.
"""

import itertools
import json
import os
import statistics
import tarfile
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image, ImageOps
from tqdm import tqdm

from bench import ROOT
from jsd import cli, model
from jsd.model import Components
from jsd.train.options import MAX_BATCH, whole
from jsd.train.trainer import make_accelerator, tf32
from jsd.vae import to_tensor


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "embedded", metavar="FOLDER")
    parser.add_argument("--batch", type=whole(most=MAX_BATCH), default=8)
    parser.add_argument("--blocks", type=whole(), default=6, help="blocks of steps of each loop (default: 6)")
    steps = "steps per block; the first is left out (default: 51)"
    parser.add_argument("--steps", type=whole(2), default=51, help=steps)
    parser.add_argument("--cpu", action="store_true", help="don't use a GPU")


def run(arguments: Namespace) -> dict[str, object]:
    accelerator = make_accelerator(arguments.cpu)
    os.environ["ACCELERATE_MIXED_PRECISION"] = accelerator.mixed_precision  # ours takes it from there
    counted = arguments.batch * (arguments.steps - 1)  # pictures per block
    rates: dict[str, list[float]] = {"ours": [], "diffusers example": []}
    with tempfile.TemporaryDirectory() as name:
        components = model.load(arguments.model, safety_checker=False)
        size = components.defaults.width
        make_pictures(Path(name), size)
        peer = train_like_example(components, Path(name), size, arguments.batch, accelerator)
        for block in tqdm(range(arguments.blocks), "blocks"):
            rates["ours"].append(counted / train_ours(arguments, Path(name), size, block))
            rates["diffusers example"].append(counted / sum(list(itertools.islice(peer, arguments.steps))[1:]))
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    medians = {who: round(statistics.median(values), 3) for who, values in rates.items()}
    print(f"pictures per second: {medians}; ratios of pairs from {min(ratios):.2f} to {max(ratios):.2f}")
    about = {"model": str(arguments.model), "batch": arguments.batch, "pixels": size}
    about |= {"precision": accelerator.mixed_precision, "device": str(accelerator.device)}
    return {**about, **medians, "ratio": round(statistics.median(ratios), 3)}


def make_pictures(folder: Path, size: int, pictures: int = 512, shards: int = 8) -> None:
    """Write smooth random JPEGs with .txt captions into `folder`, and the same files again in webdataset shards."""
    rng = np.random.default_rng(0)
    for number in range(shards):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as shard:
            for i in range(number, pictures, shards):
                cells = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
                picture, caption = folder / f"{i:05d}.jpg", folder / f"{i:05d}.txt"
                cells.resize((size * 5 // 4, size), Image.Resampling.BICUBIC).save(picture, quality=90)
                caption.write_text(f"絵 {i}", "utf-8")
                for file in (picture, caption):
                    shard.add(file, file.name)


def train_ours(arguments: Namespace, folder: Path, size: int, block: int) -> float:
    """Train one block of steps with our loop. Returns the seconds that all steps but the first took."""
    out = folder / f"run-{block}"
    flags = ["--stage", "base", "--model", arguments.model, "--shards", folder, "--out", out, "--prompts", os.devnull]
    flags += ["--steps", arguments.steps, "--batch", arguments.batch, "--size", size, "--lr", 1e-5, "--workers", 1]
    if code := cli.main(["train", "loop", *map(str, flags), *(["--cpu"] if arguments.cpu else [])]):
        raise SystemExit(code)
    curve = [json.loads(line) for line in (out / "base.jsonl").read_text().splitlines()]
    return curve[-1]["seconds"] - curve[0]["seconds"]


def train_like_example(
    components: Components, folder: Path, size: int, batch: int, accelerator: Accelerator
) -> Iterator[float]:
    """Train without end, as diffusers' example does, in TF32 as ours does. Yields the seconds that each step took."""
    noise_scheduler = DDPMScheduler.from_config(components.scheduler_config)
    half = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    vae = components.vae.to(accelerator.device, half, memory_format=torch.contiguous_format)  # as diffusers loads it
    text_encoder = components.text_encoder.to(accelerator.device, half)
    unet = components.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, weight_decay=1e-2)

    def read(files: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a batch of pictures and their captions: pixels (n, 3, size, size) in [-1, 1], token ids (n, tokens)."""
        pictures = [ImageOps.fit(Image.open(f).convert("RGB"), (size, size), Image.Resampling.LANCZOS) for f in files]
        captions = [file.with_suffix(".txt").read_text("utf-8") for file in files]
        ids = [components.tokenizer(caption).ids for caption in captions]
        return torch.stack([to_tensor(picture) for picture in pictures]), torch.tensor(ids)

    files = sorted(folder.glob("*.jpg"))
    loader = torch.utils.data.DataLoader(files, batch, shuffle=True, num_workers=1, collate_fn=read)
    schedule = get_scheduler("constant", optimizer)
    unet, optimizer, loader, schedule = accelerator.prepare(unet, optimizer, loader, schedule)
    ema = EMAModel(unet.parameters(), model_cls=type(components.unet), model_config=components.unet.config)
    velocity = noise_scheduler.config.prediction_type == "v_prediction"
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    while True:
        began = time.perf_counter()
        pixels, ids = next(batches)
        with tf32(accelerator.device), accelerator.accumulate(unet):
            latents = vae.encode(pixels.to(vae.dtype)).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            t = torch.randint(0, noise_scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
            noisy = noise_scheduler.add_noise(latents.float(), noise.float(), t).to(latents.dtype)
            states = text_encoder(ids, return_dict=False)[0]
            target = noise_scheduler.get_velocity(latents, noise, t) if velocity else noise
            with accelerator.autocast():
                seen = unet(noisy, t, states, return_dict=False)[0]
            loss = F.mse_loss(seen.float(), target.float())
            accelerator.gather(loss.repeat(len(latents))).mean().item()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ema.step(unet.parameters())
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize(accelerator.device)
        yield time.perf_counter() - began
