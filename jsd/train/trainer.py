"""The training loop for every model: AdamW or Muon, warm-up and cosine, averaged weights (EMA), mixed precision,
accumulation, any number of processes, checkpoints to resume from. The caller gives the model and the loss.

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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from jsd.errors import SettingError, TrainingError, shown
from jsd.language import Text
from jsd.train.checkpoints import Curve, Data, check_terms, find_checkpoints, load_checkpoint, save_checkpoint
from jsd.train.memory import keep_freed_memory
from jsd.train.plan import Plan, make_optimizer, set_trained, trained

__all__ = ["Plan", "make_accelerator", "set_trained", "tf32", "train", "trained"]

Loss = Callable[[torch.nn.Module, int, np.random.Generator], tuple[torch.Tensor, dict[str, Any]]]
REPLICATED = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)  # every process holds the whole model
LOG_EVERY = 50  # steps
PRECISION = "ACCELERATE_MIXED_PRECISION"  # set by `accelerate launch`


def make_accelerator(cpu: bool = False, bf16_on_cpu: bool = True, **settings: Any) -> Accelerator:
    """Return an `accelerate.Accelerator`: in the precision that `accelerate launch` was told, by default in bf16 if the
    hardware multiplies bf16 fast, and in fp32 otherwise.

    A GPU is fast from NVIDIA's Ampere on, a CPU with AMX or AVX-512 BF16, unless `bf16_on_cpu` is False. With `cpu`, a
    GPU is not used. `settings` are further arguments. Raises `SettingError` if this machine can't compute in the
    precision that was told.
    """
    if torch.cuda.is_available() and not cpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = bf16_on_cpu and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    precision = os.environ.get(PRECISION) or ("bf16" if fast else "no")
    try:
        return Accelerator(mixed_precision=precision, cpu=cpu, **settings)
    except (ValueError, ImportError) as error:
        raise SettingError("{}: {} can't be used ({}); try bf16 or no", PRECISION, shown(precision), error) from error


def check_single(accelerator: Accelerator) -> None:
    """Raise `SettingError` if several processes were started, for a command that computes in one."""
    if accelerator.num_processes > 1:
        raise SettingError(
            "{} processes were started; this command uses one GPU, so start one", accelerator.num_processes
        )


@contextlib.contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """A context manager in whose block a GPU multiplies float32 matrices in TF32, which is exact enough to train."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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

    `loss_of(model, step, rng)` gets the model as accelerate wraps it, and returns the loss and further values to log
    (numbers, or tensors of one).
    With several processes the loss has to come from a call of this model. The run writes checkpoints and logged losses
    into `folder` (see `jsd.train.checkpoints`). It resumes from the newest checkpoint there, with `data` at its place.

    `groups` are optimizer groups. Their "lr_scale" multiplies the learning rate. `on_save(step)` is called in the main
    process after every checkpoint, while the model holds the averaged weights. `terms` (JSON values) are settings that
    a resumed run has to share, besides the plan.

    Raises `TrainingError` if the loss or, without fp16, its gradient is not finite (on a GPU this is looked at before
    every save and every LOG_EVERY steps), if the checkpoint was written with another plan or other terms, and if the
    parameters are split over processes (FSDP, DeepSpeed).
    """
    if accelerator.distributed_type not in (DistributedType.NO, *REPLICATED):
        raise TrainingError("{}: the averaged weights can't be kept with it yet; use DDP", accelerator.distributed_type)
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer(model, plan, groups)
    terms = plan.terms() | json.loads(json.dumps(dict(terms)))
    with _prepared(accelerator, model, optimizer) as (wrapped, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        ema = EMAModel(parameters, decay=plan.ema, use_ema_warmup=True, power=0.75, foreach=True)
        start, before = 0, 0.0
        if found := find_checkpoints(folder, name):
            check_terms(found[-1], terms)
            start, before = load_checkpoint(found[-1], accelerator, ema, data)
        curve = Curve(folder / f"{name}.jsonl", start) if accelerator.is_main_process else None
        wrapped.train()
        began = saved = time.monotonic()
        hidden = not accelerator.is_main_process
        bar = tqdm(None, name, initial=start, total=None if plan.seconds else plan.steps, mininterval=5, disable=hidden)
        step, progress = start, plan.progress(start, before)
        with bar:  # closed before an error is printed
            while progress < 1:
                for group in optimizer.param_groups:
                    peak = plan.muon if group.get("muon") else plan.lr
                    group["lr"] = peak * plan.lr_at(step, progress) * group.get("lr_scale", 1.0)
                loss, figures = _backward(accelerator, wrapped, loss_of, plan, step)
                norm = accelerator.clip_grad_norm_(parameters, plan.clip)
                now = time.monotonic()
                progress, unsaved = _shared(
                    accelerator, plan, plan.progress(step + 1, before + now - began), now - saved
                )
                at_end = progress >= 1
                save = (step + 1) % plan.save_every == 0 or unsaved > plan.save_seconds or at_end
                log = step % LOG_EVERY == 0 or at_end
                # To read a value, the CPU waits for the GPU. Then neither can work ahead.
                if save or log or accelerator.device.type == "cpu":
                    # With fp16 a gradient may overflow. Accelerate's scaler leaves such a step out.
                    checked = (
                        {Text("loss"): loss}
                        if accelerator.scaler
                        else {Text("loss"): loss, Text("gradient's norm"): norm}
                    )
                    _check(name, folder, step, checked, figures)
                optimizer.step()
                optimizer.zero_grad()
                ema.step(parameters)
                if log:
                    mean = accelerator.reduce(loss.detach().float(), "mean").item()
                    seconds = round(before + time.monotonic() - began, 1)
                    row = {"step": step, "loss": mean, "seconds": seconds} | {k: float(v) for k, v in figures.items()}
                    accelerator.log({f"{name}/{k}": v for k, v in row.items() if k != "step"}, step)
                    if curve:
                        curve.write(row)
                    bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in ("step", "seconds")})
                step += 1
                bar.update()
                if save:
                    seconds = before + time.monotonic() - began
                    save_checkpoint(folder, name, step, terms, accelerator, ema, data, seconds)
                    with _averaged(wrapped, ema, parameters):
                        if accelerator.is_main_process:
                            on_save(step)
                    saved = time.monotonic()
        ema.copy_to(parameters)
        wrapped.eval()


def _shared(accelerator: Accelerator, plan: Plan, *values: float) -> list[float]:
    """Return the largest of each value among all processes, if they have to agree: each has its own clock."""
    if not plan.seconds or accelerator.num_processes == 1:
        return list(values)
    return accelerator.gather(torch.tensor([values], device=accelerator.device)).amax(0).tolist()


def _check(name: str, folder: Path, step: int, checked: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Raise `TrainingError` if a value in `checked` is not finite."""
    for what, value in checked.items():
        if not math.isfinite(value):
            last = (find_checkpoints(folder, name) or [Text("none")])[-1]
            raise TrainingError(
                "{}: the {} is {} at step {} ({}); use a lower lr, or look at the data. The last checkpoint is {}",
                name,
                what,
                float(value),
                step,
                dict(figures),
                last,
            )


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
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Add up the gradients of a step's batches. Returns the mean loss, and the last batch's further values to log.

    Only this is computed in TF32. What `on_save` draws is drawn as in serving.
    """
    loss, figures = torch.zeros((), device=accelerator.device), {}
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
            loss = loss + part_loss.detach() / plan.accumulate
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
