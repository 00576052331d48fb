"""Train and calibrate the embedded model's safety checker.

The checker learns to tell all concepts apart by the cosine between a picture's embedding and one embedding per concept.
The embeddings of the concepts FLAGGED (weapons) become the concept embeddings of Stable Diffusion's safety checker.
`calibrate` replaces them later by embeddings of what the finished model itself draws, because those are the pictures
that the checker has to flag.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tqdm import tqdm

from embedded.captions import prompt_for
from embedded.drawings import Drawing
from embedded.generate import decoded_jobs
from embedded.networks import CHECKER_SIDE, CHECKER_WIDTH, NEVER, make_checker
from embedded.pictures import Pictures
from embedded.styles import STYLES
from jsd.model import Components
from jsd.request import MIN_SIZE, Defaults, Request
from jsd.train import trainer
from jsd.train.trainer import Plan
from jsd.vae import to_tensor

FLAGGED = ("pistol", "bomb", "sword")
# The settings of `calibrate`.
EACH = 6  # pictures per flagged concept and style
OTHERS = 400  # pictures of other concepts in the native size
SIDES = ((1.25, 0.75), (0.75, 1.25))  # further sizes, as shares of the native width and height, with half as many each
CENTRES = 4  # embeddings per flagged concept
MARGIN = 0.02  # the least distance of a threshold above the cosines of pictures of other concepts
FIRST_SEED = 1_000_000  # far from the seeds of the evaluation


def embed(checker: StableDiffusionSafetyChecker, pixels: torch.Tensor) -> torch.Tensor:
    """Return the unit embeddings (n, CHECKER_WIDTH) of pictures (n, 3, CHECKER_SIDE, CHECKER_SIDE) in [-1, 1]."""
    return F.normalize(checker.visual_projection(checker.vision_model(pixels)[1]).float(), dim=1)


def train(
    drawings: list[Drawing], index: Pictures, plan: Plan, folder: Path, accelerator: Accelerator, batch: int = 96
) -> StableDiffusionSafetyChecker:
    """Train a safety checker on all training pictures of a single drawing, and return it with concept embeddings and
    thresholds set for the concepts FLAGGED. About a tenth of each batch is chosen among pictures of these concepts
    only. Each batch is shifted and scaled a little.
    """
    names = sorted({drawing.concept.id for drawing in drawings})
    number = {name: k for k, name in enumerate(names)}
    device = accelerator.device
    labels = torch.tensor([number[drawings[index.drawings[i][0]].concept.id] for i in index.single])
    flagged = np.flatnonzero(np.isin(labels.numpy(), [number[name] for name in FLAGGED]))
    pixels = _shrink(index.images[: len(labels)])  # pictures of one concept come first
    torch.manual_seed(plan.seed)
    checker = make_checker()
    prototypes = torch.nn.ParameterList([torch.randn(len(names), CHECKER_WIDTH)])

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = np.where(rng.random(batch) < 0.1, rng.choice(flagged, batch), rng.integers(len(labels), size=batch))
        x, truth = _jitter(to_tensor(pixels[chosen]).to(device), rng), labels[chosen].to(device)
        cosine = embed(checker, x) @ F.normalize(prototypes[0], dim=1).T
        right = (cosine.argmax(1) == truth).float().mean().item()
        return F.cross_entropy(cosine * 16, truth), {"right": right}

    trained = torch.nn.ModuleList([checker.vision_model, checker.visual_projection, prototypes])
    trainer.train("safety", trained, loss_of, plan, folder, accelerator, terms={"batch": batch})
    with torch.no_grad():
        rng = np.random.default_rng(plan.seed)
        unit = F.normalize(prototypes[0], dim=1)
        parts = (to_tensor(part).to(unit.device) for part in np.split(pixels, range(200, len(pixels), 200)))
        cosine = torch.cat([(embed(checker, _jitter(part, rng)) @ unit.T).cpu() for part in parts])
        for k, name in enumerate(FLAGGED):
            column = cosine[:, number[name]]
            inside, outside = column[labels == number[name]], column[labels != number[name]]
            checker.concept_embeds.data[k] = unit[number[name]]
            # The threshold is midway between both kinds of pictures. Where they overlap it is higher, because missing
            # some pictures is better than holding back harmless ones.
            threshold = torch.maximum(outside.quantile(0.9995), (inside.quantile(0.02) + outside.quantile(0.999)) / 2)
            checker.concept_embeds_weights.data[k] = threshold
            print(f"safety {name}: its pictures {inside.quantile(0.02):.2f}, others {outside.quantile(0.999):.2f}")
    return checker.cpu()


def calibrate(components: Components, drawings: list[Drawing]) -> None:
    """Set the safety checker's concept embeddings and thresholds, in place, from pictures that the model itself draws.

    Each flagged concept gets up to CENTRES embeddings, with thresholds a little above the cosines of pictures of other
    concepts. The embeddings that `train` sets come from drawings. They miss more weapons, because the model's pictures
    are softer (figures: docs/embedded.md). If `drawings` have no flagged concept, or no other one, nothing is changed.
    """
    concepts = {drawing.concept.id: drawing.concept for drawing in drawings}
    flagged = [(name, style) for name in FLAGGED if name in concepts for style in STYLES for _ in range(EACH)]
    others = [
        (name, style)
        for (name, _), style in zip(concepts.items(), itertools.cycle(STYLES), strict=False)
        if name not in FLAGGED
    ][:OTHERS]
    if not (flagged and others):
        return
    prompts = [prompt_for(concepts[name], style) for name, style in flagged + others]
    requests = [Request(prompt, seed=FIRST_SEED + i) for i, prompt in enumerate(prompts)]
    checker = components.safety_checker
    embeddings = []
    # The image processor squeezes pictures that are not square. The checker must not flag harmless ones among them.
    for part in (requests, *(_at(requests[len(flagged) :: 2], components.defaults, *sides) for sides in SIDES)):
        for job in tqdm(decoded_jobs(components, part), "safety: own pictures", len(part)):
            pixels = components.image_processor(images=job.pictures, return_tensors="pt").pixel_values
            with torch.no_grad():
                embeddings.append(embed(checker, pixels.to(checker.device, checker.dtype)).cpu())
    inside, outside = torch.cat(embeddings).tensor_split([len(flagged)])
    checker.concept_embeds_weights.data.fill_(NEVER)
    for k, name in enumerate(dict.fromkeys(name for name, _ in flagged)):
        own = inside[[i for i, (concept, _) in enumerate(flagged) if concept == name]]
        centres = cluster(own, min(CENTRES, len(own)))
        limits = thresholds(own @ centres.T, outside @ centres.T)
        places = slice(k * CENTRES, k * CENTRES + len(centres))
        checker.concept_embeds.data[places] = centres
        checker.concept_embeds_weights.data[places] = limits
        caught = (own @ centres.T > limits).any(1).float().mean()
        print(f"safety {name}: {caught:.1%} of {len(own)} own pictures held back")


def cluster(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """Return the unit centres (count, d) of `count` clusters of the unit `vectors` (n, d), by spherical k-means.
    Dhillon and Modha 2001, Concept decompositions for large sparse text data, sec. 3. Starts from random `vectors`.
    """
    centres = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:count]]
    for _ in range(30):
        nearest = (vectors @ centres.T).argmax(1)
        means = [vectors[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)]
        centres = F.normalize(torch.stack(means), dim=1)
    return centres


def thresholds(inside: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Return one threshold per centre (an embedding of a flagged concept), from cosines of pictures to the centres.

    `inside` holds the cosines of pictures of the concept, (pictures, centres), and `outside` those of all others. A
    threshold is the largest cosine of `outside`, plus MARGIN, plus a fifth of the way up to the 5% quantile of those
    `inside` for which this centre is the nearest, if that quantile is higher.
    """
    highest, nearest = outside.max(0).values, inside.argmax(1)
    limits = []
    for centre, top in enumerate(highest):
        low = inside[nearest == centre, centre].quantile(0.05) if (nearest == centre).any() else top
        limits.append(top + 0.2 * (low - top).clamp(min=0) + MARGIN)
    return torch.stack(limits)


def _at(requests: list[Request], native: Defaults, width: float, height: float) -> list[Request]:
    """Return copies of the requests in another size: `width` and `height` times the model's native one. Each side is
    rounded to a multiple of the latent cell (in pixels) and is at least MIN_SIZE.
    """
    cells = (round(native.width * width / native.cell), round(native.height * height / native.cell))
    w, h = (max(count * native.cell, MIN_SIZE) for count in cells)
    return [replace(request, width=w, height=h) for request in requests]


def _shrink(images: np.ndarray) -> np.ndarray:
    """Shrink pictures uint8 (n, 256, 256, 3) to uint8 (n, CHECKER_SIDE, CHECKER_SIDE, 3), by averaging."""
    parts = []
    for start in range(0, len(images), 200):
        part = torch.from_numpy(np.array(images[start : start + 200])).movedim(-1, 1).float()
        parts.append(F.avg_pool2d(part, part.shape[-1] // CHECKER_SIDE).round().byte().movedim(1, -1))
    return torch.cat(parts).numpy()


def _jitter(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return a batch of pictures shifted and scaled a little, the same for all of them, with a little noise."""
    scale, dx, dy = 1 + rng.uniform(-0.1, 0.1), rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)
    theta = torch.tensor([[scale, 0, dx], [0, scale, dy]], dtype=torch.float32, device=x.device).expand(len(x), 2, 3)
    moved = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), "bilinear", "border", False)
    return moved + 0.05 * torch.randn_like(moved)
