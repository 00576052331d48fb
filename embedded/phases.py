"""The phases of a run, one after the other, from the scenes to the parts of a model (see `embedded.recipe`)."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from embedded import autoencoder, networks, safety_checker, safety_examples, text_to_image, workers
from embedded.budget import Budget, Scale
from embedded.preview import draw_preview, draw_restored
from embedded.safety_examples import Examples
from embedded.scenes import Assets, load_assets
from embedded.training_data import Bucket, Scenes, digest_of, encode_all, make_tokenizer
from jsd.atomic import write_text
from jsd.cpu import cores
from jsd.errors import TrainingError
from jsd.language import Text
from jsd.request import Defaults
from jsd.tokenizer import SPELLINGS
from jsd.train.parts import Parts, in_training
from jsd.train.plots import draw_curve
from jsd.train.trainer import Plan
from jsd.vae import to_pixels

STAGES = ("base", "stage1", "stage2")
AUTOENCODER = Plan(10**9, 1e-3, muon=3e-3, ema=0.998, seed=1, flat=0.6, save_every=10**9, save_seconds=200)
SOURCES, SPENT = "sources.sha256", "spent.seconds"  # files of the work folder


def spent(work: Path) -> float:
    """Return how many seconds earlier runs in the work folder took, as far as they noted it."""
    noted = work / SPENT
    return float(noted.read_text("utf-8")) if noted.exists() else 0.0


@dataclass
class Run:
    """A run in the folder `work`, with the icon sets in `icons` and a table of concepts. `defaults` are the model's.

    With `compiled`, autoencoder and UNet are compiled. stage1 is not: it is over before that would pay.
    """

    work: Path
    scale: Scale
    budget: Budget
    accelerator: Accelerator
    icons: Path
    table: Path
    defaults: Defaults
    compiled: bool = False
    figures: dict[str, Any] = field(default_factory=dict)  # of the phases, also written to figures.json

    def check_sources(self, resumed: Path | None) -> None:
        """Raise `TrainingError` if the work folder was made from other scenes, sizes, minutes or weights. Else note."""
        weights = resumed and str(resumed.resolve())
        digest = digest_of(self.scale, self.budget.total, weights, table=self.table)
        noted = self.work / SOURCES
        if noted.exists() and noted.read_text("utf-8", "replace") != digest:
            raise TrainingError(
                "{}: made from other scenes, sizes, minutes or weights; delete it, or name another --workdir", self.work
            )
        self.work.mkdir(parents=True, exist_ok=True)
        write_text(noted, digest)

    def note_spent(self) -> None:
        """Note how much of the time is over, for `spent` of a run that goes on."""
        write_text(self.work / SPENT, repr(self.budget.elapsed()))

    def train(self, resumed: Path | None, before: Parts | None, first: str, write: Callable[..., None]) -> None:
        """Train the stages from `first` on. `before` are the parts that `first` begins with, read from the folder
        `resumed`; without them all parts begin with random weights.

        `write(stage, parts, tokenizer_folder, safety_checker)` is called for every finished stage. Only the last one
        has a safety checker of its own.
        """
        assets = load_assets(self.icons, self.table, self.work / "sprites", cores())
        folders = {stage.language: self.work / f"tokenizer-{stage.language}" for stage in self._stages(first).values()}
        if resumed and text_to_image.STAGES[first].begins_with_text:
            # Without spellings: captions are learnt as they are.
            ignored = shutil.ignore_patterns(SPELLINGS)
            shutil.copytree(resumed / "tokenizer", folders["ja"], ignore=ignored, dirs_exist_ok=True)
        tokenizers = {code: make_tokenizer(path, assets, code, self.scale.captions) for code, path in folders.items()}
        scenes = Scenes(self.work / "scenes", self.scale.shard)
        processes = max(1, cores() - 2)
        with workers.start(self.icons, self.table, self.work / "sprites", processes) as pool:
            scenes.start(pool, min(self.scale.shards, scenes.affordable()), folders)
            vae = self._autoencoder(scenes, before)
            scenes.stop()
            print(Text("{} scenes", len(scenes)))
            rendering = safety_examples.start(pool, self.scale.rendered)
            buckets = encode_all(scenes, vae, self.accelerator.autocast, 2 * self.scale.pictures)
            examples = safety_examples.rendered(rendering, assets)
        torch.manual_seed(0)
        unet = before.unet if before else networks.make_unet(self.scale.sizes)
        text = before.text_encoder if before else None
        predict = torch.compile(lambda x_t, t, states: unet(x_t, t, states).sample) if self.compiled else None
        schedule = before.scheduler_config if before else dict(noise_scheduler().config)
        for name, stage in self._stages(first).items():
            tokenizer = tokenizers[stage.language]
            if text is None or not stage.begins_with_text:
                text = networks.make_text_encoder(tokenizer, self.scale.sizes)
            parts = Parts(tokenizer, text, unet, vae, schedule)
            self._stage(name, parts, buckets, first, predict)
            last = name == STAGES[-1]
            write(name, parts, folders[stage.language], self._checker(parts, assets, examples) if last else None)

    def _stages(self, first: str) -> dict[str, text_to_image.StagePlan]:
        return {name: text_to_image.STAGES[name] for name in STAGES[STAGES.index(first) :]}

    def _autoencoder(self, scenes: Scenes, before: Parts | None) -> AutoencoderKL:
        """Train the autoencoder while the scenes are rendered, or take the one from before."""
        seconds = self._seconds("autoencoder")
        if before:
            scenes.wait(seconds)
            return before.vae.to(self.accelerator.device).eval().requires_grad_(False)
        scenes.wait(0.0)
        torch.manual_seed(0)
        vae = networks.make_vae(self.scale.sizes)
        plan, batch = replace(AUTOENCODER, seconds=seconds), self.scale.pictures

        def draw(step: int) -> None:
            self.note_spent()
            draw_curve(self.work / "autoencoder.jsonl", self.work / "autoencoder.png")

        seen = min(autoencoder.STATISTICS, self.scale.shards * self.scale.shard)
        autoencoder.train(vae, scenes.batch, plan, batch, self.work, self.accelerator, draw, seen, self.compiled)
        x = scenes.batch(self.scale.previews, np.random.default_rng(0), self.accelerator.device)
        with torch.no_grad():
            y = vae.decode(vae.encode(x).latent_dist.mean).sample
        draw_restored(to_pixels(x).cpu().numpy(), to_pixels(y).cpu().numpy(), self.work / "autoencoder-samples.png")
        self._note("autoencoder", {"db": round(autoencoder.psnr(y.clamp(-1, 1), x), 2), "scenes": len(scenes)})
        return vae

    def _stage(
        self, name: str, parts: Parts, buckets: list[Bucket], first: str, predict: Callable[..., torch.Tensor] | None
    ) -> None:
        language = text_to_image.STAGES[name].language

        def preview(file: Path) -> None:
            self.note_spent()
            draw_preview(parts, self.defaults, language, self.scale.previews, file)

        earlier = {stage: text_to_image.STAGES[stage].plan.terms() for stage in self._stages(first) if stage < name}
        text_to_image.train_stage(
            name,
            parts,
            buckets,
            self.scale.samples,
            self._seconds(name),
            self.work,
            self.accelerator,
            {"after": earlier},
            preview,
            predict if "unet" in text_to_image.STAGES[name].trains else None,
        )
        self._note(name, text_to_image.worth(parts, buckets[0], language, self.accelerator))

    def _seconds(self, phase: str) -> float:
        """Return how long a phase may take. A run that goes on keeps what it had, since its learning rate follows."""
        noted = self.work / f"{phase}.seconds"
        if not noted.exists():
            write_text(noted, repr(self.budget.seconds(phase)))
        return float(noted.read_text("utf-8"))

    def _checker(self, parts: Parts, assets: Assets, examples: Examples) -> StableDiffusionSafetyChecker:
        own = safety_examples.drawn(in_training(parts, self.defaults), assets, self.scale.drawn)
        plan = replace(safety_checker.PLAN, seconds=self._seconds("safety"))
        batch = self.scale.examples
        return safety_checker.train(assets, examples, own, plan, self.work, self.accelerator, batch)

    def _note(self, phase: str, figures: dict[str, Any]) -> None:
        self.note_spent()
        self.figures[phase] = figures | {"seconds": round(self.budget.elapsed())}
        print(f"{phase}: {self.figures[phase]}")
        write_text(self.work / "figures.json", json.dumps(self.figures, indent=1) + "\n")


def noise_scheduler() -> DDIMScheduler:
    """Return the scheduler of the model folder."""
    return DDIMScheduler(**networks.NOISE_SCHEDULE, set_alpha_to_one=False, steps_offset=1)
