"""The plan of a training run: its length, its learning rates, and the optimizer that it asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from jsd.language import Text
from jsd.train import muon


@dataclass(frozen=True)
class Plan:
    """The hyperparameters of a training run.

    `lr` is the peak of the learning rate, which falls along a cosine to 2% of it, after a share `flat` of the run.
    `warmup` and `save_every` are steps. `ema` is the largest decay of the averaged weights. `accumulate` is the number
    of batches per step and process. `muon` is the peak of Muon's learning rate for the matrices within the network
    (see `jsd.train.muon`). With 0, AdamW trains them too.

    If `seconds` is not 0, the run ends after so many, and checkpoints are written every `save_seconds`. `steps` is then
    only an upper limit, and the learning rate follows the time.
    """

    steps: int
    lr: float
    warmup: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    save_every: int = 250
    accumulate: int = 1
    muon: float = 0.0
    flat: float = 0.0
    seconds: float = 0.0
    save_seconds: float = math.inf

    def terms(self) -> dict[str, Any]:
        """Return the hyperparameters that a resumed run has to share, as JSON values: all but those of time and saving.
        Newer ones are there only if they are used, so that older runs can be resumed.
        """
        values = json.loads(json.dumps(asdict(self)))
        unused = {name for name in ("muon", "flat") if not values[name]}
        return {k: v for k, v in values.items() if k not in {"save_every", "seconds", "save_seconds", *unused}}

    def progress(self, step: int, seconds: float) -> float:
        """Return which share of the run is over, 0 to 1, after `step` steps in `seconds`."""
        return min(1.0, max(step / self.steps, seconds / self.seconds if self.seconds else 0.0))

    def lr_at(self, step: int, progress: float) -> float:
        """Return the learning rate at `step` as a fraction of its peak: linear warm-up times cosine decay."""
        falling = max(0.0, progress - self.flat) / (1 - self.flat)
        return min(1.0, (step + 1) / max(1, self.warmup)) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * falling)))


def make_optimizer(model: torch.nn.Module, plan: Plan, groups: list[dict] | None = None) -> torch.optim.Optimizer:
    """Return the optimizer of a plan for the parameters of `model` that are not frozen: AdamW, or Muon with AdamW.

    `groups` are AdamW's groups of parameters. Raises ValueError for `groups` together with Muon, which has its own.
    """
    settings: dict[str, Any] = {"betas": plan.betas, "weight_decay": plan.weight_decay}
    if not plan.muon:
        groups = groups or [{"params": trained(model), "lr_scale": 1.0}]
        return torch.optim.AdamW(groups, plan.lr, fused=True, **settings)
    if groups:
        raise ValueError(Text("Muon makes its own groups of parameters; give either `groups` or `plan.muon`"))
    hidden, others = muon.split(model)
    groups = [{"params": hidden, "muon": True}, {"params": others}]
    return muon.MuonWithAdamW([group for group in groups if group["params"]], plan.lr, **settings)


def set_trained(model: torch.nn.Module, names: Iterable[str]) -> None:
    """Freeze all child modules of `model` except `names`, and unfreeze `names`, in place."""
    names = set(names)
    for name, child in model.named_children():
        child.requires_grad_(name in names)


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return a list of the parameters of a model that are not frozen."""
    return [p for p in model.parameters() if p.requires_grad]
