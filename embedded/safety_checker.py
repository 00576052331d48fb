"""Train and calibrate the embedded model's safety checker: it tells pictures of weapons (FLAGGED) from others.

The network is that of Stable Diffusion's safety checker, smaller: it flags a picture whose embedding is too close to
one of up to 17 concept embeddings. It learns from renderings and from the model's own pictures
(`embedded.safety_examples`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from embedded.networks import CHECKER_WIDTH, NEVER, make_checker, make_image_processor
from embedded.safety_examples import FLAGGED, Examples
from embedded.scenes import Assets
from jsd.language import Text
from jsd.train import trainer
from jsd.train.trainer import Plan
from jsd.vae import to_tensor

PLAN = Plan(10**9, 2e-3, muon=2e-3, warmup=50, ema=0.99, seed=9, flat=0.5, save_every=10**9)
CENTRES = 4  # embeddings per flagged concept
SCALE = 16.0  # of cosines, as logits
ALARMS = 0.002  # the share of harmless pictures above the threshold, about


class Detector(torch.nn.Module):
    """The checker's network, with embeddings to compare a picture's with: CENTRES for each of FLAGGED, whose numbers
    among `concepts` are `flagged`, and one for each concept.
    """

    def __init__(self, checker: StableDiffusionSafetyChecker, concepts: int, flagged: Sequence[int]):
        super().__init__()
        self.vision, self.projection = checker.vision_model, checker.visual_projection
        self.centres = torch.nn.Parameter(torch.randn(len(flagged) * CENTRES, CHECKER_WIDTH))
        self.concepts = torch.nn.Parameter(torch.randn(concepts, CHECKER_WIDTH))
        self.flagged = list(flagged)

    def forward(self, x: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Return the loss. `x`: pictures (n, 3, CHECKER_SIDE, CHECKER_SIDE). `shown`: (n, concepts), 0 or 1.

        The nearest of a flagged concept's centres tells whether the concept is in the picture: its cosine is over or
        under 0.5. To name all concepts in the picture is the other half of the task, which teaches the network to see.
        """
        embedding = F.normalize(self.projection(self.vision(x)[1]).float(), dim=1)
        nearest = (embedding @ F.normalize(self.centres, dim=1).T).unflatten(1, (-1, CENTRES)).amax(2)
        alarm = F.binary_cross_entropy_with_logits(SCALE * (nearest - 0.5), shown[:, self.flagged])
        named = F.cross_entropy(SCALE * embedding @ F.normalize(self.concepts, dim=1).T, F.normalize(shown, 1.0))
        return alarm + 0.03 * named


def train(
    assets: Assets,
    examples: Examples,
    own: Examples,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    batch: int,
    before: StableDiffusionSafetyChecker | None = None,
) -> StableDiffusionSafetyChecker:
    """Train a safety checker on `examples` (renderings) and `own` (the model's own pictures, half of a batch), and
    return it, with a threshold that `calibrate` sets. For this an eighth of `own` is kept from the training.

    It begins with random weights, or with those of the checker `before`, which this function made. That one is changed.
    """
    torch.manual_seed(plan.seed)
    checker = before or make_checker()
    unseen = np.arange(len(own.pixels)) % 8 == 7
    learnt, unseen = own.part(~unseen), own.part(unseen)
    flagged = [list(assets.concepts).index(name) for name in FLAGGED]
    model = Detector(checker, len(assets.concepts), flagged)
    if before:
        model.centres.data.copy_(before.concept_embeds[: len(model.centres)])
    device, half = accelerator.device, batch // 2

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        sizes = [(learnt, half), (examples, batch - half)]
        parts = [(source, rng.integers(len(source.pixels), size=size)) for source, size in sizes]
        pixels = np.concatenate([source.pixels[chosen] for source, chosen in parts])
        shown = np.concatenate([source.shown[chosen] for source, chosen in parts])
        x = _jitter(to_tensor(pixels, device), rng)
        return model(x, torch.from_numpy(shown).float().to(device)), {}

    trainer.train("safety", model, loss_of, plan, folder, accelerator, terms={"batch": batch})
    used = len(model.centres)
    checker.concept_embeds_weights.data.fill_(NEVER)
    checker.concept_embeds.data[:used] = F.normalize(model.centres.detach().cpu(), dim=1)
    checker = checker.cpu().eval()
    calibrate(checker, flagged, examples, unseen)
    return checker


def cosines(checker: StableDiffusionSafetyChecker, pixels: np.ndarray) -> torch.Tensor:
    """Return for each picture, uint8 (n, CHECKER_SIDE, CHECKER_SIDE, 3), the cosine of the nearest centre: (n,)."""
    used = len(FLAGGED) * CENTRES
    centres, found = F.normalize(checker.concept_embeds[:used].float(), dim=1), []
    for x in _batches(pixels):
        with torch.no_grad():
            embedding = checker.visual_projection(checker.vision_model(x.to(checker.dtype))[1]).float()
            found.append((F.normalize(embedding, dim=1) @ centres.T).amax(1))
    return torch.cat(found)


def calibrate(checker: StableDiffusionSafetyChecker, flagged: Sequence[int], *kinds: Examples) -> None:
    """Set the threshold of all centres, in place: the one that about a share ALARMS of the harmless pictures of each
    kind pass, or midway from there to the pictures of FLAGGED if these are further away.
    """
    limits, judged = [], []
    for kind in kinds:
        found, shown = cosines(checker, kind.pixels), torch.from_numpy(kind.shown[:, list(flagged)].any(1))
        inside, outside = found[shown], found[~shown]
        high = outside.quantile(1 - ALARMS) if len(outside) else torch.tensor(0.5)
        low = inside.quantile(0.02) if len(inside) else high
        limits.append(torch.maximum(high, (high + low) / 2))
        judged.append((inside, outside))
    threshold = torch.stack(limits).max()
    checker.concept_embeds_weights.data[: len(FLAGGED) * CENTRES] = threshold
    for pair in judged:
        for what, part in zip((Text("weapons"), Text("others")), pair, strict=True):
            print(
                Text(
                    "safety: over {:.2f} are {:.1%} of {} {}",
                    threshold,
                    (part > threshold).float().mean(),
                    len(part),
                    what,
                )
            )


def _batches(pixels: np.ndarray, size: int = 200) -> Iterator[torch.Tensor]:
    processor = make_image_processor()
    for first in range(0, len(pixels), size):
        yield processor(images=list(pixels[first : first + size]), return_tensors="pt").pixel_values


def _jitter(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return a batch of pictures, each shifted, scaled, turned, mirrored and tinted in its own way, with some noise."""

    def random(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(x), *shape))).to(x)

    scale, angle = random(0.85, 1.15), random(-0.15, 0.15)
    flip = random(-1, 1).sign()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [flip * cos, -sin, random(-0.1, 0.1), flip * sin, cos, random(-0.1, 0.1)]
    grid = F.affine_grid(torch.stack(rows, 1).unflatten(1, (2, 3)), list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, "bilinear", "border", False)
    grey = moved.mean(1, keepdim=True)
    tinted = grey + random(0.4, 1.2, 1, 1, 1) * (moved - grey)
    return tinted * random(0.8, 1.1, 3, 1, 1) + random(-0.1, 0.1, 3, 1, 1) + 0.05 * torch.randn_like(moved)
