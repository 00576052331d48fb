"""Train and calibrate the embedded model's safety checker: it tells pictures of weapons (FLAGGED) from others.

The network is that of Stable Diffusion's safety checker, smaller: it flags a picture whose embedding is too close to
one of up to 17 concept embeddings. It learns from renderings of scenes, and from pictures that the finished model
itself draws, because those are the pictures that it has to judge. Both have a weapon in every third scene.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image

from embedded import workers
from embedded.generate import decoded_jobs
from embedded.networks import CHECKER_SIDE, CHECKER_WIDTH, NEVER, make_checker, make_image_processor
from embedded.scenes import Assets, Scene, caption, render, sample_scene
from jsd.language import Text
from jsd.model import Components
from jsd.request import MIN_SIZE, Request
from jsd.train import trainer
from jsd.train.trainer import Plan
from jsd.vae import to_tensor

FLAGGED = ("pistol", "bomb", "sword")  # ids of concepts
SHARE = 1 / 3  # of the scenes show a concept of FLAGGED
CENTRES = 4  # embeddings per flagged concept
SCALE = 16.0  # of cosines, as logits
ALARMS = 0.002  # the share of harmless pictures above the threshold, at most
SIDES = ((1, 1), (1, 1), (1.25, 0.8125), (0.8125, 1.25))  # sizes of drawn pictures, as shares of the native ones
FIRST_SEED = 1_000_000  # far from the seeds of the evaluation

Rendering = Iterator[list[tuple[np.ndarray, list[str]]]]  # pictures, and the ids of the concepts in each


@dataclass(frozen=True)
class Examples:
    """Pictures as the checker gets them, uint8 (n, CHECKER_SIDE, CHECKER_SIDE, 3), and what each one shows:
    `shown[i, k]` says whether the concept with number k is in picture i, bool (n, concepts).
    """

    pixels: np.ndarray
    shown: np.ndarray

    def part(self, chosen: np.ndarray) -> "Examples":
        """Return the examples that `chosen` has, bool (n,)."""
        return Examples(self.pixels[chosen], self.shown[chosen])

    def __add__(self, other: "Examples") -> "Examples":
        return Examples(*(np.concatenate(both) for both in ((self.pixels, other.pixels), (self.shown, other.shown))))


def sample(rng: np.random.Generator, assets: Assets) -> Scene:
    """Return a random scene. In a share SHARE of them, one of its things is a concept of FLAGGED."""
    scene, name = sample_scene(rng, assets, "train"), FLAGGED[rng.integers(len(FLAGGED))]
    if rng.random() > SHARE or name in ids(scene):
        return scene
    drawings, chosen = assets.drawings[name], rng.integers(len(scene.things))
    drawing = drawings[rng.integers(len(drawings))]
    weapon = replace(scene.things[chosen], concept=assets.concepts[name], drawing=drawing)
    return replace(scene, things=tuple(weapon if i == chosen else thing for i, thing in enumerate(scene.things)))


def ids(scene: Scene) -> list[str]:
    """Return the ids of the concepts in a scene."""
    return [thing.concept.id for thing in scene.things]


def shrink(picture: Image.Image) -> np.ndarray:
    """Return a picture as the checker gets it: squeezed to uint8 (CHECKER_SIDE, CHECKER_SIDE, 3)."""
    return np.asarray(picture.resize((CHECKER_SIDE, CHECKER_SIDE), Image.Resampling.BICUBIC))


def _rendered(seed: int, count: int) -> list[tuple[np.ndarray, list[str]]]:
    """Render `count` scenes in a process of the pool."""
    assets, rng = workers.assets(), np.random.default_rng((9, seed))
    scenes = [sample(rng, assets) for _ in range(count)]
    pictures = [shrink(Image.fromarray(render(scene, rng, assets))) for scene in scenes]
    return [(pixels, ids(scene)) for pixels, scene in zip(pictures, scenes, strict=True)]


def start(pool: Executor, count: int, seed: int = 0, each: int = 50) -> Rendering:
    """Begin to render `count` scenes with the processes of `pool` (see `embedded.workers`), for `rendered`."""
    starts = range(0, count, each)
    return pool.map(_rendered, [seed + first for first in starts], [min(each, count - first) for first in starts])


def rendered(rendering: Rendering, assets: Assets) -> Examples:
    """Wait for the scenes that `start` began, and return them."""
    return _examples(assets, [example for part in rendering for example in part])


def drawn(components: Components, assets: Assets, count: int, seed: int = FIRST_SEED) -> Examples:
    """Let the model draw `count` scenes from their captions. Half of the pictures are not square."""
    rng = np.random.default_rng((10, seed))
    scenes = [sample(rng, assets) for _ in range(count)]
    found = []
    for k, part in enumerate(scenes[first : first + 8] for first in range(0, count, 8)):
        size = _size(components, *SIDES[k % len(SIDES)])
        requests = [Request(caption(scene, rng), seed=seed + 8 * k + i, **size) for i, scene in enumerate(part)]
        for scene, job in zip(part, decoded_jobs(components, requests), strict=True):
            picture = Image.fromarray(np.asarray(job.pictures[0]))
            found.append((shrink(picture), ids(scene)))
    return _examples(assets, found)


def _size(components: Components, width: float, height: float) -> dict[str, int]:
    native = components.defaults
    sides = {"width": native.width * width, "height": native.height * height}
    return {name: max(round(side / native.cell) * native.cell, MIN_SIZE) for name, side in sides.items()}


def _examples(assets: Assets, found: Sequence[tuple[np.ndarray, list[str]]]) -> Examples:
    number = {name: k for k, name in enumerate(assets.concepts)}
    shown = np.zeros((len(found), len(number)), bool)
    for row, (_, ids) in zip(shown, found, strict=True):
        row[[number[name] for name in ids]] = True
    return Examples(np.stack([pixels for pixels, _ in found]), shown)


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
    assets: Assets, examples: Examples, own: Examples, plan: Plan, folder: Path, accelerator: Accelerator, batch: int
) -> StableDiffusionSafetyChecker:
    """Train a safety checker on `examples` (renderings) and `own` (the model's own pictures, half of a batch), and
    return it, with a threshold that `calibrate` sets. For this an eighth of `own` is kept from the training.
    """
    torch.manual_seed(plan.seed)
    checker = make_checker()
    unseen = np.arange(len(own.pixels)) % 8 == 7
    learnt, unseen = own.part(~unseen), own.part(unseen)
    flagged = [list(assets.concepts).index(name) for name in FLAGGED]
    model = Detector(checker, len(assets.concepts), flagged)
    device, half = accelerator.device, batch // 2

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        sizes = [(learnt, half), (examples, batch - half)]
        parts = [(source, rng.integers(len(source.pixels), size=size)) for source, size in sizes]
        pixels = np.concatenate([source.pixels[chosen] for source, chosen in parts])
        shown = np.concatenate([source.shown[chosen] for source, chosen in parts])
        x = _jitter(to_tensor(pixels).to(device), rng)
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
    """Set the threshold of all centres, in place: the least one that at most a share ALARMS of the harmless pictures of
    each kind pass, or midway from there to the pictures of FLAGGED if these are further away.
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
