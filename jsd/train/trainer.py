"""The training loop for every model: AdamW, warm-up and cosine, averaged weights (EMA), mixed precision, accumulation,
any number of processes, checkpoints to resume from. The caller gives the model and the loss.

Every random choice of step k comes from generators whose seeds depend on the run's seed and k. So a run that is killed
at any moment and resumed has the same losses as a run that is not. The configuration of accelerate decides the
precision and the number of processes (DDP). The code of the loop is the same for all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from jsd.errors import SettingError, TrainingError, shown
from jsd.train.checkpoints import Curve, Data, check_terms, find_checkpoints, load_checkpoint, save_checkpoint
from jsd.train.memory import keep_freed_memory

Loss = Callable[[torch.nn.Module, int, np.random.Generator], tuple[torch.Tensor, dict[str, float]]]
REPLICATED = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)  # every process holds the whole model
LOG_EVERY = 50  # steps
PRECISION = "ACCELERATE_MIXED_PRECISION"  # set by `accelerate launch`


@dataclass(frozen=True)
class Plan:
    """The hyperparameters of a training run.

    `lr` is the peak of the learning rate, which falls along a cosine to 2% of it. `warmup` and `save_every` are steps.
    `ema` is the largest decay of the averaged weights. `accumulate` is the number of batches per step and process.
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

    def terms(self) -> dict[str, Any]:
        """Return the hyperparameters that a resumed run has to share (all but `save_every`), as JSON values."""
        values = json.loads(json.dumps(asdict(self)))
        del values["save_every"]
        return values

    def lr_at(self, step: int) -> float:
        """Return the learning rate at `step` as a fraction of its peak: linear warm-up times cosine decay."""
        progress = min(1.0, step / self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup)) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * progress)))


def make_accelerator(cpu: bool = False, **settings: Any) -> Accelerator:
    """Return an `accelerate.Accelerator`: in the precision that `accelerate launch` was told, by default in bf16 if the
    hardware multiplies bf16 fast, and in fp32 otherwise.

    A GPU is fast from NVIDIA's Ampere on, a CPU with AMX or AVX-512 BF16. With `cpu`, a GPU is not used. `settings` are
    further arguments. Raises `SettingError` if this machine can't compute in the precision that was told.
    """
    if torch.cuda.is_available() and not cpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    precision = os.environ.get(PRECISION) or ("bf16" if fast else "no")
    try:
        return Accelerator(mixed_precision=precision, cpu=cpu, **settings)
    except (ValueError, ImportError) as error:
        raise SettingError(f"{PRECISION}: {shown(precision)} can't be used ({error}); try bf16 or no") from error


@contextlib.contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """A context manager in whose block a GPU multiplies float32 matrices in TF32, which is exact enough to train."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def set_trained(model: torch.nn.Module, names: Iterable[str]) -> None:
    """Freeze all child modules of `model` except `names`, and unfreeze `names`, in place."""
    names = set(names)
    for name, child in model.named_children():
        child.requires_grad_(name in names)


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return a list of the parameters of a model that are not frozen."""
    return [p for p in model.parameters() if p.requires_grad]


def train(
    name: str,
    model: torch.nn.Module,
    loss_of: Loss,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    groups: list[dict] | None = None,
    on_save: Callable[[int], None] = lambda step: None,
    data: Data | None = None,
    terms: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Train the parameters of `model` that are not frozen, in place. At the end they are the averaged weights (EMA).

    `loss_of(model, step, rng)` gets the model as accelerate wraps it, and returns the loss and further values to log.
    With several processes the loss has to come from a call of this model. The run writes checkpoints and logged losses
    into `folder` (see `jsd.train.checkpoints`). It resumes from the newest checkpoint there, with `data` at its place.

    `groups` are optimizer groups. Their "lr_scale" multiplies the learning rate. `on_save(step)` is called in the main
    process after every checkpoint, while the model holds the averaged weights. `terms` (JSON values) are settings that
    a resumed run has to share, besides the plan.

    Raises `TrainingError` if the loss or, without fp16, its gradient is not finite, if the checkpoint was written with
    another plan or other terms, and if the parameters are split over processes (FSDP, DeepSpeed).
    """
    if accelerator.distributed_type not in (DistributedType.NO, *REPLICATED):
        raise TrainingError(f"{accelerator.distributed_type}: the averaged weights can't be kept with it yet; use DDP")
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    groups = groups or [{"params": trained(model), "lr_scale": 1.0}]
    optimizer = torch.optim.AdamW(groups, plan.lr, plan.betas, weight_decay=plan.weight_decay, fused=True)
    terms = plan.terms() | json.loads(json.dumps(dict(terms)))
    with _prepared(accelerator, model, optimizer) as (wrapped, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        ema = EMAModel(parameters, decay=plan.ema, use_ema_warmup=True, power=0.75, foreach=True)
        start = 0
        if found := find_checkpoints(folder, name):
            check_terms(found[-1], terms)
            start = load_checkpoint(found[-1], accelerator, ema, data)
        curve = Curve(folder / f"{name}.jsonl", start) if accelerator.is_main_process else None
        wrapped.train()
        began = time.monotonic()
        hidden = not accelerator.is_main_process
        bar = tqdm(range(start, plan.steps), name, initial=start, total=plan.steps, mininterval=5, disable=hidden)
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * plan.lr_at(step) * group.get("lr_scale", 1.0)
            loss, figures = _backward(accelerator, wrapped, loss_of, plan, step)
            norm = accelerator.clip_grad_norm_(parameters, plan.clip)
            # With fp16 a gradient may overflow. Accelerate's scaler leaves such a step out.
            checked = {"loss": loss} if accelerator.scaler else {"loss": loss, "gradient's norm": float(norm)}
            for what, value in checked.items():
                if not math.isfinite(value):
                    last = (find_checkpoints(folder, name) or ["none"])[-1]
                    raise TrainingError(
                        f"{name}: the {what} is {value} at step {step} ({figures}); use a lower lr, or look at the "
                        f"data. The last checkpoint is {last}"
                    )
            optimizer.step()
            optimizer.zero_grad()
            ema.step(parameters)
            at_end = step + 1 == plan.steps
            if step % LOG_EVERY == 0 or at_end:
                mean = accelerator.reduce(torch.tensor(loss, device=accelerator.device), "mean").item()
                row = {"step": step, "loss": mean, "seconds": round(time.monotonic() - began, 1), **figures}
                accelerator.log({f"{name}/{k}": v for k, v in row.items() if k != "step"}, step)
                if curve:
                    curve.write(row)
                bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in ("step", "seconds")})
            if (step + 1) % plan.save_every == 0 or at_end:
                save_checkpoint(folder, name, step + 1, terms, accelerator, ema, data)
                with _averaged(wrapped, ema, parameters):
                    if accelerator.is_main_process:
                        on_save(step + 1)
        ema.copy_to(parameters)
        wrapped.eval()


@contextlib.contextmanager
def _prepared(accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    """A context manager that yields model and optimizer, wrapped by accelerate. It unwraps the model after the block.

    Accelerate gives the model another `forward`, which computes under autocast. If it stayed, a model that has just
    been trained would give other results than the same weights loaded from a file.
    """
    own = set(vars(model))
    try:
        yield accelerator.prepare(model, optimizer)
    finally:
        for name in set(vars(model)) - own:
            delattr(model, name)
        accelerator.free_memory()


def _backward(
    accelerator: Accelerator, wrapped: torch.nn.Module, loss_of: Loss, plan: Plan, step: int
) -> tuple[float, dict[str, float]]:
    """Add up the gradients of a step's batches. Returns the mean loss, and the last batch's further values to log.

    Only this is computed in TF32. What `on_save` draws is drawn as in serving.
    """
    loss, figures = 0.0, {}
    for part in range(plan.accumulate):
        # The seeds depend on the step and on the batch's number among the batches of all processes. So two processes
        # draw the same as one process that accumulates two batches.
        number = part * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(((plan.seed * 1_000_003 + step) * 1009 + number) % 2**64)
        rng = np.random.default_rng((plan.seed, step, number) if number else (plan.seed, step))
        last = part == plan.accumulate - 1
        with tf32(accelerator.device), contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                part_loss, figures = loss_of(wrapped, step, rng)
            accelerator.backward(part_loss / plan.accumulate)
            loss += part_loss.item() / plan.accumulate
    return loss, figures


@contextlib.contextmanager
def _averaged(wrapped: torch.nn.Module, ema: EMAModel, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """A context manager in whose block the model holds its averaged weights (EMA), in evaluation mode."""
    _swap(ema, parameters)
    wrapped.eval()
    yield
    wrapped.train()
    _swap(ema, parameters)


@torch.no_grad()
def _swap(ema: EMAModel, parameters: list[torch.nn.Parameter]) -> None:
    """Exchange weights and averages (EMA) in place. (`ema.store` would need memory for a third copy.)"""
    for parameter, average in zip(parameters, ema.shadow_params, strict=True):
        held = parameter.clone()
        parameter.copy_(average)
        average.copy_(held)
