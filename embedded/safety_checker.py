"""The embedded model's safety checker: a small CLIP vision model that knows the concepts, in Stable Diffusion's own
class.

It learns to tell all concepts apart by the cosine between a picture's embedding and one embedding a concept. Those of
FLAGGED become the checker's concept embeddings, with thresholds between what pictures of them and all other pictures
reach. `calibrate` then does so again with what the finished model itself draws, which is what the checker is for.
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
from transformers import CLIPConfig, CLIPImageProcessorPil

from embedded.captions import prompt_for
from embedded.drawing import decoded_jobs
from embedded.drawings import Drawing
from embedded.pictures import Pictures
from embedded.styles import STYLES
from jsd.model import Components
from jsd.request import MIN_SIZE, Defaults, Request
from jsd.train import trainer
from jsd.train.trainer import Plan

FLAGGED = ("pistol", "bomb", "sword")
SIZE, DIMENSIONS = 64, 64
NEVER = 2.0  # a threshold no cosine reaches
EACH = 6  # pictures of a flagged concept in a style, to calibrate with
CENTRES = 4  # embeddings that stand for a flagged concept after it
MARGIN = 0.02  # of a threshold above what other pictures reach, at least
FIRST_SEED = 1_000_000  # no evaluation's
OTHERS = 400  # pictures of other concepts
SIDES = ((1.25, 0.75), (0.75, 1.25))  # and half as many again in each of these sizes, as shares of the native one


def image_processor() -> CLIPImageProcessorPil:
    """256 px pictures to the checker's 64 px, values in [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_resize=True,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def make_checker() -> StableDiffusionSafetyChecker:
    """A StableDiffusionSafetyChecker of 0.4 M parameters on 64 px pictures that flags nothing yet."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": 8,
        "projection_dim": DIMENSIONS,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=DIMENSIONS))
    checker.concept_embeds_weights.data.fill_(NEVER)
    checker.special_care_embeds_weights.data.fill_(NEVER)
    return checker


def embed(checker: StableDiffusionSafetyChecker, pixels: torch.Tensor) -> torch.Tensor:
    """(n, 3, 64, 64) in [-1, 1] -> unit embeddings (n, DIMENSIONS)."""
    return F.normalize(checker.visual_projection(checker.vision_model(pixels)[1]).float(), dim=1)


def _small(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, 256, 256, 3) -> uint8 (n, 3, 64, 64) by averaging."""
    parts = []
    for start in range(0, len(images), 200):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + 200])).permute(0, 3, 1, 2).float()
        parts.append(F.avg_pool2d(part, part.shape[-1] // SIZE).round().byte())
    return torch.cat(parts)


def train(
    drawings: list[Drawing], index: Pictures, plan: Plan, folder: Path, accelerator: Accelerator, batch: int = 96
) -> StableDiffusionSafetyChecker:
    """Train the checker on all pictures, shifted and rescaled a little, a tenth of them of what it is to flag, and set
    its thresholds.
    """
    names = sorted({drawing.concept.id for drawing in drawings})
    number = {name: k for k, name in enumerate(names)}
    labels = torch.tensor([number[drawings[index.drawings[i][0]].concept.id] for i in index.single])
    ours = np.flatnonzero(np.isin(labels.numpy(), [number[name] for name in FLAGGED]))
    pixels = _small(index.images[: len(labels)])  # those of one thing come first
    torch.manual_seed(plan.seed)
    checker = make_checker()
    prototypes = torch.nn.Parameter(torch.randn(len(names), DIMENSIONS))

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = torch.from_numpy(
            np.where(rng.random(batch) < 0.1, rng.choice(ours, batch), rng.integers(len(labels), size=batch))
        )
        x = _jitter(pixels[chosen].float() / 127.5 - 1, rng)
        cosine = embed(checker, x) @ F.normalize(prototypes, dim=1).T
        right = (cosine.argmax(1) == labels[chosen]).float().mean().item()
        return F.cross_entropy(cosine * 16, labels[chosen]), {"right": right}

    trained = torch.nn.ModuleList(
        [checker.vision_model, checker.visual_projection, torch.nn.ParameterList([prototypes])]
    )
    trainer.train("safety", trained, loss_of, plan, folder, accelerator, terms={"batch": batch})
    with torch.no_grad():
        rng = np.random.default_rng(plan.seed)
        unit = F.normalize(prototypes, dim=1)
        cosine = torch.cat([embed(checker, _jitter(x.float() / 127.5 - 1, rng)) @ unit.T for x in pixels.split(200)])
        for k, name in enumerate(FLAGGED):
            column = cosine[:, number[name]]
            inside, outside = column[labels == number[name]], column[labels != number[name]]
            checker.concept_embeds.data[k] = unit[number[name]]
            # Midway between them; but where they overlap, rather miss some than hold back what is harmless.
            edge = torch.maximum(outside.quantile(0.9995), (inside.quantile(0.02) + outside.quantile(0.999)) / 2)
            checker.concept_embeds_weights.data[k] = edge
            print(f"safety {name}: its pictures {inside.quantile(0.02):.2f}, others {outside.quantile(0.999):.2f}")
    return checker


def _jitter(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each batch moved and scaled a little, with a little noise."""
    scale, dx, dy = 1 + rng.uniform(-0.1, 0.1), rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)
    theta = torch.tensor([[scale, 0, dx], [0, scale, dy]], dtype=torch.float32).expand(len(x), 2, 3)
    moved = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), "bilinear", "border", False)
    return moved + 0.05 * torch.randn_like(moved)


def calibrate(components: Components, drawings: list[Drawing]) -> None:
    """Let the checker of `components` know its flagged concepts as the model draws them: CENTRES embeddings for each,
    and thresholds a little above what pictures of other concepts reach.

    With those that `train` gives it, from drawings by hand, it misses more, because the model's pictures are softer:
    docs/embedded.md has the figures. Without a flagged concept or any other among the drawings it stays as it is.
    """
    concepts = {drawing.concept.id: drawing.concept for drawing in drawings}
    ours = [(name, style) for name in FLAGGED if name in concepts for style in STYLES for _ in range(EACH)]
    others = [
        (name, style)
        for (name, _), style in zip(concepts.items(), itertools.cycle(STYLES), strict=False)
        if name not in FLAGGED
    ][:OTHERS]
    if not (ours and others):
        return
    prompts = [prompt_for(concepts[name], style) for name, style in ours + others]
    requests = [Request(prompt, seed=FIRST_SEED + i) for i, prompt in enumerate(prompts)]
    checker = components.safety_checker
    embeddings = []
    # The checker squeezes what is not square: of harmless pictures it has to know that look, too.
    for part in (requests, *(_at(requests[len(ours) :: 2], components.defaults, *sides) for sides in SIDES)):
        for job in tqdm(decoded_jobs(components, part), "safety: own pictures", len(part)):
            pixels = components.image_processor(images=job.pictures, return_tensors="pt").pixel_values
            with torch.no_grad():
                embeddings.append(embed(checker, pixels))
    inside, outside = torch.cat(embeddings).tensor_split([len(ours)])
    checker.concept_embeds_weights.data.fill_(NEVER)
    for k, name in enumerate(dict.fromkeys(name for name, _ in ours)):
        own = inside[[i for i, (concept, _) in enumerate(ours) if concept == name]]
        centres = _centres(own, min(CENTRES, len(own)))
        edge = _edges(own @ centres.T, outside @ centres.T)
        places = slice(k * CENTRES, k * CENTRES + len(centres))
        checker.concept_embeds.data[places] = centres
        checker.concept_embeds_weights.data[places] = edge
        caught = (own @ centres.T > edge).any(1).float().mean()
        print(f"safety {name}: {caught:.1%} of {len(own)} own pictures held back")


def _at(requests: list[Request], native: Defaults, wide: float, high: float) -> list[Request]:
    """The requests for pictures of the native size times `wide` and `high`, in whole cells, none below the limit."""
    width, height = (
        max(round(side / native.cell) * native.cell, MIN_SIZE) for side in (native.width * wide, native.height * high)
    )
    return [replace(request, width=width, height=height) for request in requests]


def _edges(inside: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """A threshold a centre (column): above all of `outside` by MARGIN and a fifth of the way to its own pictures."""
    highest, nearest = outside.max(0).values, inside.argmax(1)
    edges = []
    for centre, top in enumerate(highest):
        low = inside[nearest == centre, centre].quantile(0.05) if (nearest == centre).any() else top
        edges.append(top + 0.2 * (low - top).clamp(min=0) + MARGIN)
    return torch.stack(edges)


def _centres(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """`count` unit vectors that unit `vectors` (n, d) gather around: spherical k-means (Dhillon and Modha 2001, Concept
    decompositions for large sparse text data, sec. 3), from random ones of them.
    """
    centres = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:count]]
    for _ in range(30):
        nearest = (vectors @ centres.T).argmax(1)
        means = [vectors[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)]
        centres = F.normalize(torch.stack(means), dim=1)
    return centres
