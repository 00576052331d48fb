"""How many pictures a second our training loop takes in, beside the loop of diffusers' text-to-image example.

    script/bench-train --model weights/embedded --batch 8

Both train the UNet of the same folder on the same pictures, with the same precision, EMA and gradient clipping, in turn
(A B A B ...), from picture files to optimizer step. Ours reads webdataset shards through `jsd.train.data` and trains
with `jsd.train.trainer`. The peer follows examples/text_to_image/train_text_to_image.py of diffusers 0.42,
which is not part of the package: the same steps in the same order, its AdamW, its EMA; its reading of pictures by a
DataLoader stands for the `datasets` library and torchvision's transforms.
"""

import argparse
import itertools
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image, ImageOps
from tqdm import tqdm

from jsd.train.data import Shards, Stream, find_shards
from jsd.train.run_stage import Parts, load_parts
from jsd.train.stages import freeze, latents_of, noise_schedule, train_stage
from jsd.train.trainer import Plan, make_accelerator

WORKERS = 1


def make_pictures(folder: Path, size: int, pictures: int = 512, shards: int = 8) -> None:
    """Smooth random JPEGs with captions, as files and as webdataset shards of the same bytes."""
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


class Files(torch.utils.data.Dataset):
    """The example's data: a picture and its token ids by number."""

    def __init__(self, folder: Path, size: int, parts: Parts):
        self.files, self.size, self.parts = sorted(folder.glob("*.jpg")), size, parts

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = ImageOps.fit(Image.open(self.files[i]).convert("RGB"), (self.size, self.size), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        return pixels, torch.tensor(self.parts.tokenizer(self.files[i].with_suffix(".txt").read_text("utf-8")).ids)


class Peer:
    """The example's loop, a block of steps at a time."""

    def __init__(self, parts: Parts, folder: Path, size: int, batch: int, accelerator: Accelerator):
        self.parts, self.accelerator = parts, accelerator
        self.noise = noise_schedule(parts.scheduler_config)
        half = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        self.vae = parts.vae.requires_grad_(False).to(accelerator.device, half)
        self.text = parts.text_encoder.requires_grad_(False).to(accelerator.device, half)
        parts.unet.requires_grad_(True).train()
        optimizer = torch.optim.AdamW(parts.unet.parameters(), lr=1e-5, weight_decay=1e-2)
        loader = torch.utils.data.DataLoader(Files(folder, size, parts), batch, shuffle=True, num_workers=WORKERS)
        schedule = get_scheduler("constant", optimizer)
        self.unet, self.optimizer, self.loader, self.schedule = accelerator.prepare(
            parts.unet, optimizer, loader, schedule
        )
        self.ema = EMAModel(self.unet.parameters(), model_cls=type(parts.unet), model_config=parts.unet.config)
        self.batches = self._forever()

    def _forever(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from self.loader

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps."""
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            pixels, ids = next(self.batches)
            with self.accelerator.accumulate(self.unet):
                latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.sample()
                latents = latents * self.vae.config.scaling_factor
                noise = torch.randn_like(latents)
                t = torch.randint(0, self.noise.config.num_train_timesteps, (len(latents),), device=latents.device)
                noisy = self.noise.add_noise(latents.float(), noise.float(), t).to(latents.dtype)
                states = self.text(ids, return_dict=False)[0]
                velocity = self.noise.config.prediction_type == "v_prediction"
                target = self.noise.get_velocity(latents, noise, t) if velocity else noise
                with self.accelerator.autocast():
                    seen = self.unet(noisy, t, states, return_dict=False)[0]
                loss = F.mse_loss(seen.float(), target.float())
                self.accelerator.gather(loss.repeat(len(latents))).mean().item()
                self.accelerator.backward(loss)
                self.accelerator.clip_grad_norm_(self.unet.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()
                self.ema.step(self.unet.parameters())
            seconds.append(time.perf_counter() - began)
        return seconds


class Ours:
    """A block of steps through `train_stage`, as `jsd.train.run_stage` calls it."""

    def __init__(self, parts: Parts, folder: Path, size: int, batch: int, accelerator: Accelerator):
        self.parts, self.accelerator, self.folder = parts, accelerator, folder
        freeze(parts.vae, accelerator)
        stream = Stream(Shards(find_shards(str(folder)), size, batch), WORKERS)
        self.source = latents_of(stream, parts.vae, parts.tokenizer)
        self.block = 0

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps: from one batch asked for to the next, one step more for the last."""
        asked = []

        def source(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
            asked.append(time.perf_counter())
            return self.source(step, rng)

        self.block += 1
        train_stage(
            "base",
            self.parts.text_encoder,
            self.parts.unet,
            noise_schedule(self.parts.scheduler_config),
            source,
            torch.tensor(self.parts.tokenizer("").ids),
            Plan(count + 1, 1e-5, betas=(0.9, 0.999), save_every=10**9),
            self.folder / f"run-{self.block}",
            self.accelerator,
        )
        return [after - before for before, after in itertools.pairwise(asked)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench-train", description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("weights/embedded"), metavar="FOLDER")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=6, help="of each, in turn")
    parser.add_argument("--steps", type=int, default=12, help="a block, the first of which is left out")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU aside")
    args = parser.parse_args()
    accelerator = make_accelerator(args.cpu)
    rate: dict[str, list[float]] = {"ours": [], "diffusers example": []}
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = load_parts("base", args.model, None), load_parts("base", args.model, None)
        size = ours.unet.config.sample_size * 2 ** (len(ours.vae.config.block_out_channels) - 1)
        make_pictures(Path(name), size)
        runners = {
            "ours": Ours(ours, Path(name), size, args.batch, accelerator),
            "diffusers example": Peer(theirs, Path(name), size, args.batch, accelerator),
        }
        for _ in tqdm(range(args.blocks), "blocks"):
            for who, runner in runners.items():
                rate[who].append(args.batch / statistics.median(runner.steps(args.steps)[1:]))
    ratios = [a / b for a, b in zip(*rate.values(), strict=True)]
    for who, values in rate.items():
        print(f"{who:20}{statistics.median(values):8.2f} pictures a second (median of {len(values)} blocks)")
    print(f"ratio, median of pairs: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    print(
        json.dumps(
            {
                "model": str(args.model),
                "batch": args.batch,
                "pixels": size,
                "precision": accelerator.mixed_precision,
                "device": str(accelerator.device),
                **{who: round(statistics.median(values), 3) for who, values in rate.items()},
                "ratio": round(statistics.median(ratios), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
