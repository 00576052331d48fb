"""The judge of generated pictures: a small classifier that tells which concept a picture shows, and in which style.

It is trained on drawings that are rendered in the styles, held-out (concept, style) pairs included, and never on a
generated picture. Its own accuracy is measured on renderings that it has not seen (see `embedded.references`).
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from embedded import styles
from embedded.drawings import Drawing
from embedded.references import GROUNDS, MEDIA, References, draw_references, join_style, shrink, split_style
from jsd.atomic import atomic_file
from jsd.errors import TrainingError
from jsd.train import trainer
from jsd.train.options import first_line
from jsd.train.trainer import Plan, make_accelerator
from jsd.vae import to_tensor

PLAN = Plan(steps=2500, lr=3e-3, warmup=100, weight_decay=0.05, ema=0.99, save_every=500)
BATCH = 128
UNSEEN = 3000  # renderings that its accuracy is measured on


@dataclass(frozen=True)
class Verdict:
    """The judge's answer for a picture: a concept's id, and a style as `join_style` writes it ("oil", "oil+blue").
    Medium and background are told independently. So the style may be one that no picture is drawn in ("pencil+blue").
    """

    concept: str
    style: str


class Judge:
    """A classifier that tells the concept and the style of pictures. `accuracy` holds the shares of unseen renderings,
    from 0 to 1, whose concept ("top1") and style ("style") it tells right. It is empty until they are measured.
    """

    def __init__(self, concepts: Sequence[str], network: nn.Module, accuracy: dict[str, float] | None = None):
        self.concepts, self.network, self.accuracy = list(concepts), network, accuracy or {}

    def __call__(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """Return one `Verdict` (concept and style) per picture. The pictures may have any size."""
        return self.judge(np.stack([shrink(image) for image in images])) if images else []

    @torch.inference_mode()
    def judge(self, images: np.ndarray) -> list[Verdict]:
        """Return one `Verdict` (concept and style) per picture of `images`, uint8 (n, SIDE, SIDE, 3)."""
        device = next(self.network.parameters()).device
        verdicts = []
        for part in np.split(images, range(256, len(images), 256)):
            chosen = [head.argmax(1).tolist() for head in self.network(to_tensor(part).to(device))]
            verdicts += [
                Verdict(self.concepts[c], join_style(MEDIA[m], GROUNDS[g])) for c, m, g in zip(*chosen, strict=True)
            ]
        return verdicts

    def save(self, file: Path) -> None:
        """Write the judge to `file`, a safetensors file: concepts, accuracy and the network's weights."""
        about = {"concepts": json.dumps(self.concepts), "accuracy": json.dumps(self.accuracy)}
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        with atomic_file(file) as part:
            save_file(weights, part, about)

    @classmethod
    def load(cls, file: Path) -> "Judge":
        """Read a judge from a file that `save` wrote. Raises `TrainingError` if the file is unreadable."""
        try:
            with safe_open(file, "pt") as data:
                about = data.metadata()
                concepts = json.loads(about["concepts"])
                network = Network(len(concepts))
                network.load_state_dict({name: data.get_tensor(name) for name in data.keys()})  # noqa: SIM118
            return cls(concepts, network.eval(), json.loads(about["accuracy"]))
        except Exception as error:
            raise TrainingError(f"{file}: unreadable ({first_line(error)}); delete it, and it is made again") from error


def judge_pictures(
    judge: Callable[[Sequence[Image.Image]], list[Verdict]], images: Sequence[Image.Image | None]
) -> list[Verdict | None]:
    """Return one `Verdict` (concept and style) per picture, and None for a picture that is None."""
    verdicts = iter(judge([image for image in images if image is not None]))
    return [None if image is None else next(verdicts) for image in images]


class _Block(nn.Module):
    """A residual block (He et al. 2016, arXiv 1512.03385, fig. 5) that halves the resolution."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.skip = nn.Conv2d(channels_in, channels, 1, stride=2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.body(x) + self.skip(x)).relu()


class Network(nn.Module):
    """The judge's network, a ResNet of 1.0 M parameters. It has a head each for concept, medium and background.

    It maps pictures (n, 3, SIDE, SIDE) in [-1, 1] to three tensors of logits. The heads get the mean features of every
    resolution, because a medium shows in the texture and a concept in the shape.
    """

    def __init__(self, concepts: int):
        super().__init__()
        widths = (32, 64, 128, 192)
        stem = [nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        self.stages = nn.ModuleList([nn.Sequential(*stem), *(_Block(*pair) for pair in itertools.pairwise(widths))])
        features = sum(widths)
        self.concept = nn.Linear(features, concepts)
        self.style = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, len(MEDIA) + len(GROUNDS)))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        means = []
        for stage in self.stages:
            x = stage(x)
            means.append(x.mean((2, 3)))
        features = torch.cat(means, 1)
        medium, ground = self.style(features).float().split((len(MEDIA), len(GROUNDS)), 1)
        return self.concept(features).float(), medium, ground


def augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return randomly changed copies of the pictures `x`, (n, 3, h, w) in [-1, 1], as training data. Each is recoloured
    a little and gets noise. Half are shifted, scaled and turned a little, and half are blurred.
    """
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, shape or (n,)).astype(np.float32)).to(x.device)

    scale, angle = 1 / uniform(0.8, 1.15), uniform(-0.15, 0.15)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift = uniform(-0.12, 0.12, 2, n)
    matrix = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(n, 2, 3)
    # Half of the pictures keep their place, because moving a picture destroys the grid of pixel art.
    matrix[uniform(0, 1) < 0.5] = torch.eye(2, 3, device=x.device)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    x = x * uniform(0.9, 1.1, n, 3, 1, 1) + uniform(-0.08, 0.08, n, 3, 1, 1)
    amount = uniform(0, 0.7, n, 1, 1, 1) * (uniform(0, 1, n, 1, 1, 1) < 0.5)
    x = x + amount * (F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "replicate"), 3, 1) - x)
    x = x + uniform(0, 0.08, n, 1, 1, 1) * torch.randn_like(x)
    return x.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def accuracy(judge: Judge, unseen: References) -> dict[str, float]:
    """Return the shares of the renderings `unseen` whose concept ("top1") and whose "style" the judge tells right."""
    verdicts = judge.judge(unseen.images)
    concept = [verdict.concept == truth for verdict, truth in zip(verdicts, unseen.concept, strict=True)]
    style = [verdict.style == truth for verdict, truth in zip(verdicts, unseen.style, strict=True)]
    return {"top1": float(np.mean(concept)), "style": float(np.mean(style))}


def train(drawings: list[Drawing], folder: Path, plan: Plan = PLAN, batch: int = BATCH) -> Judge:
    """Train a judge on renderings of `drawings` and return it on the CPU. Its accuracy is not measured yet. Checkpoints
    and the loss curve go to `folder`.
    """
    accelerator = make_accelerator()
    known = draw_references(drawings)
    concepts = sorted(set(known.concept))
    split = [split_style(style) for style in known.style]
    answers = torch.tensor(
        [[concepts.index(c), MEDIA.index(m), GROUNDS.index(g)] for c, (m, g) in zip(known.concept, split, strict=True)]
    )
    torch.manual_seed(plan.seed)
    network = Network(len(concepts)).to(accelerator.device)

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = rng.integers(len(known.images), size=batch)
        with torch.autocast(accelerator.device.type, enabled=False):
            x = augment(to_tensor(known.images[chosen]).to(accelerator.device), rng)
        logits, truth = network(x), answers[chosen].to(accelerator.device)
        concept, medium, ground = (F.cross_entropy(y, truth[:, k], label_smoothing=0.1) for k, y in enumerate(logits))
        right = [(y.argmax(1) == truth[:, k]).float().mean().item() for k, y in enumerate(logits)]
        return concept + medium + ground, dict(zip(("top1", "medium", "ground"), right, strict=True))

    trainer.train("judge", network, loss_of, plan, folder, accelerator)
    return Judge(concepts, network.cpu().eval())


def get(drawings: list[Drawing], folder: Path) -> Judge:
    """Return the judge of these drawings from a file below `folder`.

    If there is none yet, it is trained, measured and saved first, which takes minutes. The file's folder is named by a
    hash of the drawings and of the source code of the styles and of the judge, so a change of these trains another
    judge.
    """
    sources = (Path(__file__), Path(__file__).with_name("references.py"), Path(styles.__file__))
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    for drawing in drawings:
        key.update(f"{drawing.concept.id}|{drawing.svg}|".encode())
    place = folder / f"judge-{key.hexdigest()[:12]}"
    file = place / "judge.safetensors"
    if not file.exists():
        judge = train(drawings, place, PLAN)
        judge.accuracy = accuracy(judge, draw_references(drawings, seed=1, count=UNSEEN))
        judge.save(file)
    return Judge.load(file)
