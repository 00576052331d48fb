"""Train the judge of `python -m jsd eval` anew, on renderings alone.

    python -m embedded.judge_training

A GPU takes some minutes, and two cores take days. npm fetches the drawings. The file holds the judge's accuracy on
renderings that it has not seen.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from embedded.judge import FILE, KINDS, Judge
from embedded.judge_network import CELLS, WIDTHS, Network
from embedded.references import Reference, draw_references
from embedded.scenes import COLOURS, PLACES, STYLES, THING_COLOURS, Assets, load_assets
from embedded.scenes.icons import fetch
from embedded.scores import marks, shares
from jsd.cli import CommandParser, exit_code
from jsd.language import Text, speak
from jsd.train import trainer
from jsd.train.options import check_file, check_folder, whole
from jsd.train.trainer import Plan, make_accelerator
from jsd.vae import to_tensor

PICTURES, UNSEEN = 120_000, 4000  # renderings that it learns from, and others that measure it
COLOURED = 0.2  # the share of renderings with a coloured thing
BATCH = 256
PLAN = Plan(steps=6000, lr=2e-3, warmup=200, betas=(0.9, 0.99), weight_decay=0.05, clip=5.0, ema=0.99, save_every=2000)
SPREAD = 0.7  # cells: the standard deviation of the heat that is wanted around the middle of a thing


def names_of(assets: Assets) -> dict[str, list[str]]:
    """Return what a judge of these assets knows, by KINDS."""
    known = (assets.concepts, THING_COLOURS, STYLES, (*COLOURS, *PLACES))
    return {kind: list(values) for kind, values in zip(KINDS, known, strict=True)}


class Truth:
    """The right answers of references as tensors, for the names that a judge knows."""

    def __init__(self, references: Sequence[Reference], names: dict[str, list[str]]):
        number = {kind: {name: i for i, name in enumerate(values)} for kind, values in names.items()}
        self.about = torch.tensor(
            [(number["styles"][r.scene.style], number["grounds"][r.scene.ground]) for r in references]
        )
        most = max(len(r.spots) for r in references)
        self.spots = torch.full((len(references), most, 4), -1.0)  # concept, colour, x, y; -1: none
        for row, reference in zip(self.spots, references, strict=True):
            for k, (concept, colour, x, y) in enumerate(reference.spots):
                numbers = number["concepts"][concept], number["colours"].get(colour or "", -1)
                row[k] = torch.tensor([*numbers, x, y])


def wanted(spots: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return what the network should say about spots (n, m, 4): the heat, (n, CELLS, CELLS) from 0 to 1, and for each
    thing the numbers of its picture, row, column, concept and colour.
    """
    live, (x, y) = spots[..., 0] >= 0, (spots[..., 2:] * CELLS).unbind(-1)
    middles = torch.arange(CELLS, device=spots.device) + 0.5
    far = (middles.view(1, 1, 1, -1) - x[..., None, None]) ** 2 + (middles.view(1, 1, -1, 1) - y[..., None, None]) ** 2
    heat = ((-far / (2 * SPREAD**2)).exp() * live[..., None, None]).amax(1)
    picture, k = live.nonzero(as_tuple=True)
    row, column = (value[picture, k].long().clamp(0, CELLS - 1) for value in (y, x))
    heat[picture, row, column] = 1.0
    return heat, picture, row, column, *spots[picture, k, :2].long().unbind(1)


def focal_loss(heat: torch.Tensor, target: torch.Tensor, things: int) -> torch.Tensor:
    """The loss of a heat map of logits per thing (arXiv 1904.07850, eq. 1)."""
    p = heat.sigmoid().clamp(1e-5, 1 - 1e-5)
    there = (1 - p) ** 2 * p.log()
    return -torch.where(target == 1, there, (1 - target) ** 4 * p**2 * (1 - p).log()).sum() / max(1, things)


def augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return randomly changed copies of the pictures `x`, (n, 3, h, w) in [-1, 1]: recoloured a little, half of them
    softer, all with some noise.
    """
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, *shape)).astype(np.float32)).to(x.device)

    x = x * uniform(0.9, 1.1, 3, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
    x = x + uniform(0, 1, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.5) * (soft - x)
    return (
        (x + uniform(0, 0.1, 1, 1, 1) * torch.randn_like(x)).clamp(-1, 1).contiguous(memory_format=torch.channels_last)
    )


def train(
    assets: Assets,
    folder: Path,
    plan: Plan = PLAN,
    batch: int = BATCH,
    pictures: int = PICTURES,
    widths: Sequence[int] = WIDTHS,
) -> Judge:
    """Train a judge on renderings of `assets` and return it on the CPU. Its accuracy is not measured yet. Checkpoints
    and the loss curve go to `folder`.
    """
    known = draw_references(assets, pictures, plan.seed, COLOURED)
    names = names_of(assets)
    truth, images = Truth(known, names), np.stack([reference.image for reference in known])
    accelerator = make_accelerator()
    torch.manual_seed(plan.seed)
    network = Network([len(names[kind]) for kind in KINDS], widths).to(accelerator.device)

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        chosen = rng.integers(len(images), size=batch)
        spots, about = (values[chosen].to(accelerator.device) for values in (truth.spots, truth.about))
        with torch.autocast(accelerator.device.type, enabled=False):
            x = augment(to_tensor(images[chosen], accelerator.device), rng)
        target, picture, row, column, concept, colour = wanted(spots)
        heat, style, ground, named, coloured = model(x, picture, row, column)
        losses = {
            "heat": focal_loss(heat.float(), target, len(picture)),
            "concept": F.cross_entropy(named.float(), concept, label_smoothing=0.05),
            "colour": _colour_loss(coloured.float(), colour),
            "style": 0.5 * F.cross_entropy(style.float(), about[:, 0]),
            "ground": 0.5 * F.cross_entropy(ground.float(), about[:, 1]),
        }
        return sum(losses.values()), {name: loss.detach() for name, loss in losses.items()}

    trainer.train("judge", network, loss_of, plan, folder, accelerator)
    return Judge(names, network.cpu().eval())


def _colour_loss(logits: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy of the things that have a given colour. Of others nobody says which colour they have."""
    lost = F.cross_entropy(logits, colour, ignore_index=-1, reduction="sum")
    return lost / (colour >= 0).sum().clamp(min=1)


def accuracy(judge: Judge, unseen: Sequence[Reference]) -> dict[str, float]:
    """Return the shares of the renderings `unseen` that the judge is right about, by the rows of `embedded.scores`."""
    verdicts = judge.judge(np.stack([reference.image for reference in unseen]))
    pairs = zip(unseen, verdicts, strict=True)
    return {name: value for name, value in shares(marks(r.scene, v) for r, v in pairs).items() if value is not None}


def main(argv: Sequence[str]) -> int:
    """Train the judge that the command line `argv` describes. Returns the exit code: 0, or 2 after an error."""
    speak()
    parser = CommandParser(prog="python -m embedded.judge_training", description=Text("Train the judge of eval."))
    parser.add_argument("--icons", type=Path, default=Path("runs/icons"), help="icon sets (default: runs/icons)")
    parser.add_argument("--to", type=Path, default=FILE, help="default: weights/judge/judge.safetensors")
    parser.add_argument("--workdir", type=Path, default=Path("runs/judge"), help="checkpoints (default: runs/judge)")
    parser.add_argument("--pictures", type=whole(1), default=PICTURES, help=Text("renderings (default: {})", PICTURES))
    parser.add_argument("--steps", type=whole(1), default=PLAN.steps, help=Text("default: {}", PLAN.steps))
    parser.add_argument("--batch", type=whole(2), default=BATCH, help=Text("pictures in a step (default: {})", BATCH))
    return exit_code(_make, parser.parse_args(argv))


def _make(arguments: argparse.Namespace) -> None:
    check_file("--to", arguments.to)
    check_folder("--workdir", arguments.workdir)
    fetch(arguments.icons)
    assets = load_assets(arguments.icons)
    plan = replace(PLAN, steps=arguments.steps)
    judge = train(assets, arguments.workdir, plan, arguments.batch, arguments.pictures)
    judge.save(arguments.to)
    judge = Judge.load(arguments.to)  # what counts is what the stored weights tell
    judge.accuracy = accuracy(judge, draw_references(assets, UNSEEN, plan.seed + 1))
    judge.save(arguments.to)
    print(judge.accuracy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
