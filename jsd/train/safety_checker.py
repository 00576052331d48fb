"""The embedded model's safety checker: a small CLIP vision model that knows the concepts, in Stable Diffusion's own
class.

It learns to tell all concepts apart by the cosine between a picture's embedding and one embedding a concept. Those of
FLAGGED become the checker's concept embeddings, with thresholds between what pictures of them and all other pictures
reach.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil

from jsd.train.drawings import Drawing
from jsd.train.fit import Plan, fit
from jsd.train.pictures import Pictures

FLAGGED = ("pistol", "bomb", "sword")
SIZE, DIMENSIONS = 64, 64
NEVER = 2.0  # a threshold no cosine reaches


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
    fit("safety", trained, loss_of, plan, folder, accelerator)
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
