"""The one training loop: AdamW, warm-up and cosine, EMA, mixed precision, resumable checkpoints. What is learned is the
caller's.

Every random choice of step k comes from generators seeded with (seed, k), so a run killed at any moment and resumed
gives the same curve as one that was not.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from tqdm import tqdm

Loss = Callable[[int, np.random.Generator], tuple[torch.Tensor, dict[str, float]]]


def save_atomically(value: object, file: Path) -> None:
    """`torch.save` to a temporary name, then renamed: a kill leaves the old file or the new one."""
    torch.save(value, file.with_suffix(".tmp"))
    os.replace(file.with_suffix(".tmp"), file)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. `lr` is the peak of a cosine that ends at 2%; `ema` the largest decay of
    the average.
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

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, as a share of the peak."""
        progress = min(1.0, step / self.steps)
        return min(1.0, (step + 1) / self.warmup) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * progress)))


def make_accelerator(cpu: bool = False) -> Accelerator:
    """bf16 where the hardware multiplies it fast (a GPU, or a CPU with AMX or AVX-512 BF16), else fp32.

    `cpu` leaves a GPU aside.
    """
    gpu = torch.cuda.is_available() and not cpu
    fast = gpu or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return Accelerator(mixed_precision="bf16" if fast else "no", cpu=cpu)


def fit(
    name: str,
    model: torch.nn.Module,
    loss_of: Loss,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    groups: list[dict] | None = None,
    on_save: Callable[[int], None] = lambda step: None,
) -> None:
    """Train `model` in place to its averaged weights, with `loss_of(step, rng) -> (loss, figures to log)`.

    Writes `folder`/`name`.pt (checkpoint, removed by nobody) and `name`.jsonl (the curve); resumes from them. `groups`
    are optimizer groups whose "lr_scale" multiplies the learning rate. `on_save(step)` runs after each checkpoint, with
    the averaged weights in the model. Raises FloatingPointError when the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, curve = folder / f"{name}.pt", folder / f"{name}.jsonl"
    groups = groups or [{"params": list(model.parameters()), "lr_scale": 1.0}]
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, plan.lr, plan.betas, weight_decay=plan.weight_decay, fused=True)
    ema = EMAModel(parameters, decay=plan.ema, use_ema_warmup=True, power=0.75, foreach=True)
    optimizer = accelerator.prepare(optimizer)
    start = 0
    if file.exists():
        state = torch.load(file, weights_only=True, map_location=accelerator.device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        start = state["step"]
    model.train()
    began = time.monotonic()
    bar = tqdm(range(start, plan.steps), name, initial=start, total=plan.steps, mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * plan.lr_at(step) * group.get("lr_scale", 1.0)
        torch.manual_seed(plan.seed * 1_000_003 + step)
        with accelerator.autocast():
            loss, figures = loss_of(step, np.random.default_rng((plan.seed, step)))
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{name}: the loss is {loss.item()} at step {step} ({figures}); lower lr or look at the data"
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, plan.clip)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(parameters)
        if step % 50 == 0:
            row = {"step": step, "loss": loss.item(), "seconds": round(time.monotonic() - began, 1), **figures}
            with curve.open("a") as out:
                out.write(json.dumps(row) + "\n")
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in ("step", "seconds")})
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema.state_dict(),
                "step": step + 1,
            }
            save_atomically(state, file)
            ema.store(parameters)
            ema.copy_to(parameters)
            model.eval()
            on_save(step + 1)
            model.train()
            ema.restore(parameters)
    ema.copy_to(parameters)
    model.eval()
