"""Teach a model that has learnt square pictures to draw wide and tall ones, too.

    python -m embedded.proportions weights/embedded

Only the UNet is trained. Half of a batch are wide and tall scenes, under the diffusion loss. The other half are square
ones: of these the UNet has to predict what it predicted before. Otherwise a short training with small batches forgets
what a long one with large ones taught (Li and Hoiem 2016, "Learning without forgetting", arXiv 1606.09282, sec. 3).
npm fetches the icons. A run that was stopped goes on with the same command.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from embedded import workers
from embedded.replacing import check_places, replace_parts
from embedded.scenes import load_assets
from embedded.scenes.concepts import CONCEPTS_FILE
from embedded.scenes.icons import fetch
from embedded.text_to_image import MIN_SNR
from embedded.training_data import SIZES, Bucket, Scenes, digest_of, encode_all, source
from jsd.cli import CommandParser, exit_code
from jsd.cpu import cores
from jsd.errors import TrainingError
from jsd.language import Text, speak
from jsd.manifest import MANIFEST, find_weights, read_json
from jsd.tokenizer import SPELLINGS
from jsd.train import stages, trainer
from jsd.train.diffusion import Denoiser, device_draws
from jsd.train.options import number, whole
from jsd.train.parts import Parts, load_parts
from jsd.train.trainer import Plan, check_single, make_accelerator

PLAN = Plan(10**9, 1e-4, muon=3e-4, ema=0.99, seed=21, flat=0.3, warmup=30, save_every=10**9, save_seconds=300)
DROPOUT = 0.1  # the share of empty captions
NOISY = 0.7  # timesteps are T * u ** NOISY with u uniform in [0, 1): what is where is settled while there is much noise
KEEPING = 4.0  # what a change of the square pictures costs, beside an error in the others
SHARD = 250  # scenes of one size

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # x_0, ids, eps, t of a `Denoiser`


class Keeping(torch.nn.Module):
    """A module that computes the loss of a `Denoiser` for a batch, and adds how far it is from what it said before of
    another batch.
    """

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, new: Batch, known: Batch, said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both losses, scalars. `said` are the earlier predictions for `known`, (n, c, h, w)."""
        return self.denoiser(*new), self.denoiser.loss(self.denoiser.predicted(*known), said, known[-1])


def encoded_scenes(
    parts: Parts, folder: Path, icons: Path, count: int, work: Path, accelerator: Accelerator
) -> list[Bucket]:
    """Render about `count` scenes of all SIZES into `work`, and return their latents and captions, a bucket for each
    size. `folder` is the model that `parts` are of.
    """
    sprites, tokenizer = work / "sprites", work / "tokenizer"
    load_assets(icons, CONCEPTS_FILE, sprites, cores())
    # Without spellings: captions are learnt as they are.
    shutil.copytree(folder / "tokenizer", tokenizer, ignore=shutil.ignore_patterns(SPELLINGS), dirs_exist_ok=True)
    scenes = Scenes(work / "scenes", SHARD)
    with workers.start(icons, CONCEPTS_FILE, sprites, cores()) as pool:
        shards = min(max(len(SIZES), count // SHARD), scenes.affordable())
        if shards < len(SIZES):
            raise TrainingError("{}: too little room for scenes of all sizes; make room, or use another folder", work)
        scenes.start(pool, shards, {"ja": tokenizer})
        scenes.wait(None)
    return encode_all(scenes, parts.vae.to(accelerator.device), accelerator.autocast, 16)


def teach(
    denoiser: Denoiser,
    buckets: Sequence[Bucket],
    empty: torch.Tensor,
    plan: Plan,
    size: int,
    work: Path,
    accelerator: Accelerator,
) -> None:
    """Train the UNet of a denoiser in place, with `size` pictures in a step. `empty` are the ids of an empty caption.
    Checkpoints go to the folder `work`.
    """
    trainer.set_trained(denoiser, ("unet",))
    before = deepcopy(denoiser).to(accelerator.device).eval().requires_grad_(False)
    squares = [bucket for bucket in buckets if bucket.latents.shape[2] == bucket.latents.shape[3]]
    others = [bucket for bucket in buckets if bucket.latents.shape[2] != bucket.latents.shape[3]]
    draw_new, draw_known = source(others, "ja", size // 2), source(squares, "ja", size - size // 2)
    last = denoiser.scheduler.config.num_train_timesteps

    def batch(draw: stages.Source, step: int, rng: np.random.Generator) -> Batch:
        x_0, ids, _ = draw(step, rng)
        eps, t, u = device_draws(x_0, last)
        return x_0, torch.where(u[:, None] < DROPOUT, empty, ids), eps, (last * (t / last) ** NOISY).long()

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        new, known = batch(draw_new, step, rng), batch(draw_known, step, rng)
        with torch.no_grad():
            said = before.predicted(*known)
        error, change = model(new, known, said)
        return error + KEEPING * change, {"error": error.detach(), "change": change.detach()}

    trainer.train("proportions", Keeping(denoiser), loss_of, plan, work, accelerator)


def train(arguments: argparse.Namespace) -> None:
    """Train the UNet of a model as the command line says, and put it into the model's folder."""
    folder = find_weights(arguments.folder).resolve()
    check_places(folder, {"--workdir": arguments.workdir, "--icons": arguments.icons})
    accelerator = make_accelerator()
    check_single(accelerator)
    parts = load_parts("stage2", folder, None)
    denoiser = Denoiser(parts.text_encoder, parts.unet, stages.noise_schedule(parts.scheduler_config), MIN_SNR)
    fetch(arguments.icons)
    # The folder of the run is named after everything that decides the result, so only the same run is resumed.
    settings = read_json(folder / MANIFEST)["files"], arguments.scenes, arguments.minutes, arguments.batch
    work = arguments.workdir / digest_of(*settings, table=CONCEPTS_FILE)[:12]
    work.mkdir(parents=True, exist_ok=True)
    buckets = encoded_scenes(parts, folder, arguments.icons, arguments.scenes, work, accelerator)
    empty = torch.tensor(parts.tokenizer("").ids, device=accelerator.device)
    teach(denoiser, buckets, empty, replace(PLAN, seconds=60 * arguments.minutes), arguments.batch, work, accelerator)
    scenes = sum(len(bucket.latents) for bucket in buckets)
    figures = {"scenes": scenes, "minutes": arguments.minutes, "batch": arguments.batch}
    replace_parts(folder, {"unet": parts.unet.cpu()}, "proportions", figures)
    shutil.rmtree(work)
    print(Text("wrote {}", folder / "unet"))


def main(argv: Sequence[str]) -> int:
    """Train the UNet on as the command line `argv` says. Returns the exit code: 0, or 2 after an error."""
    speak()
    parser = CommandParser(
        prog="python -m embedded.proportions", description=Text("Teach a model wide and tall pictures.")
    )
    add = parser.add_argument
    add("folder", type=Path, help="the model, whose UNet is replaced")
    add("--icons", type=Path, default=Path("runs/icons"), help="icon sets (default: runs/icons)")
    add(
        "--workdir", type=Path, default=Path("runs/proportions"), help="scenes, checkpoints (default: runs/proportions)"
    )
    add("--scenes", type=whole(1), default=10_000, help="scenes to render, at least 2000 (default: 10000)")
    add("--minutes", type=number(positive=True), default=35.0, help="minutes of training (default: 35)")
    add("--batch", type=whole(2), default=48, help="pictures in a step (default: 48)")
    return exit_code(train, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
