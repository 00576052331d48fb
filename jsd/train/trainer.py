"""The one training loop: AdamW, warm-up and cosine, EMA, mixed precision, accumulation, any number of processes,
resumable checkpoints. What is learned is the caller's.

Every random choice of step k comes from generators seeded with (seed, k), so a run killed at any moment and resumed
gives the same curve as one that was not. accelerate's config decides precision and processes (DDP); the loop is the
same.
"""

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from jsd.train.memory import keep_freed_memory

Loss = Callable[[torch.nn.Module, int, np.random.Generator], tuple[torch.Tensor, dict[str, float]]]
KEPT = 2  # checkpoints
REPLICATED = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)  # every process holds all of the model


class Data(Protocol):
    """A stream whose place can be kept: of one process as JSON values, and again from all processes' together."""

    def place(self) -> dict[str, Any]: ...

    def go_to(self, places: list[dict[str, Any]]) -> None: ...


def save_atomically(value: object, file: Path) -> None:
    """`torch.save` to a temporary name, then renamed: a kill leaves the old file or the new one."""
    torch.save(value, file.with_suffix(".tmp"))
    os.replace(file.with_suffix(".tmp"), file)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. `lr` is the peak of a cosine that ends at 2%; `ema` the largest decay of
    the average; `accumulate` the batches a step.
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
        """What decides the result, as JSON values."""
        values = json.loads(json.dumps(asdict(self)))
        del values["save_every"]
        return values

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, as a share of the peak."""
        progress = min(1.0, step / self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup)) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * progress)))


def make_accelerator(cpu: bool = False) -> Accelerator:
    """bf16 where the hardware multiplies it fast (a GPU, or a CPU with AMX or AVX-512 BF16), else fp32.

    `cpu` leaves a GPU aside.
    """
    gpu = torch.cuda.is_available() and not cpu
    fast = gpu or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return Accelerator(mixed_precision="bf16" if fast else "no", cpu=cpu)


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters of a model that are not frozen."""
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
    """Train what is not frozen of `model` in place, to its averaged weights.

    `loss_of(model, step, rng) -> (loss, figures to log)` is called with `model` as accelerate wraps it; where there are
    several processes its forward has to be what makes the loss. Writes `folder`/`name`-STEP (checkpoints, the last
    two) and `name`.jsonl (the curve); resumes from the newest. `groups` are optimizer groups whose "lr_scale"
    multiplies the learning rate. `on_save(step)` runs in the main process after each checkpoint, with the averaged
    weights in the model. `data` is taken up where the checkpoint left it. `terms` (JSON values) are what a run has to
    share with the one it goes on from, besides the plan. Raises FloatingPointError when the loss or its gradient is not
    finite, ValueError when the checkpoint is of another plan or other terms, or where the parameters are spread over
    processes (FSDP, DeepSpeed).
    """
    if accelerator.distributed_type not in (DistributedType.NO, *REPLICATED):
        raise ValueError(
            f"{accelerator.distributed_type}: the average of weights that are spread is not kept yet; use DDP"
        )
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    groups = groups or [{"params": trained(model), "lr_scale": 1.0}]
    optimizer = torch.optim.AdamW(groups, plan.lr, plan.betas, weight_decay=plan.weight_decay, fused=True)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    ema = EMAModel(parameters, decay=plan.ema, use_ema_warmup=True, power=0.75, foreach=True)
    start, terms = 0, plan.terms() | json.loads(json.dumps(dict(terms)))
    if found := checkpoints(folder, name):
        _check_terms(found[-1], terms)
        start = _load(found[-1], accelerator, ema, data)
    curve = _Curve(folder / f"{name}.jsonl", start) if accelerator.is_main_process else None
    wrapped.train()
    began = time.monotonic()
    shown = not accelerator.is_main_process
    bar = tqdm(range(start, plan.steps), name, initial=start, total=plan.steps, mininterval=5, disable=shown)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * plan.lr_at(step) * group.get("lr_scale", 1.0)
        loss = 0.0
        for part in range(plan.accumulate):
            # Seeded by what number of batch this is among all processes' of the step: two processes draw what one
            # draws that accumulates two.
            number = part * accelerator.num_processes + accelerator.process_index
            torch.manual_seed((plan.seed * 1_000_003 + step) * 1009 + number)
            rng = np.random.default_rng((plan.seed, step, number) if number else (plan.seed, step))
            last = part == plan.accumulate - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                with accelerator.autocast():
                    part_loss, figures = loss_of(wrapped, step, rng)
                _check_finite(part_loss, "loss", name, step, figures, folder)
                accelerator.backward(part_loss / plan.accumulate)
                loss += part_loss.item() / plan.accumulate
        norm = accelerator.clip_grad_norm_(parameters, plan.clip)
        if accelerator.scaler is None:  # with fp16 the scaler leaves such steps out by itself
            _check_finite(norm, "gradient's norm", name, step, figures, folder)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(parameters)
        if step % 50 == 0 or step + 1 == plan.steps:
            mean = accelerator.reduce(torch.tensor(loss, device=accelerator.device), "mean").item()
            row = {"step": step, "loss": mean, "seconds": round(time.monotonic() - began, 1), **figures}
            accelerator.log({f"{name}/{k}": v for k, v in row.items() if k != "step"}, step)
            if curve:
                curve.write(row)
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in ("step", "seconds")})
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            _save(folder, name, step + 1, terms, accelerator, ema, data)
            _swap(ema, parameters)
            wrapped.eval()
            if accelerator.is_main_process:
                on_save(step + 1)
            wrapped.train()
            _swap(ema, parameters)
    ema.copy_to(parameters)
    wrapped.eval()
    accelerator.free_memory()


def _check_finite(
    value: torch.Tensor, what: str, name: str, step: int, figures: dict[str, float], folder: Path
) -> None:
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"{name}: the {what} is {value.item()} at step {step} ({figures}); lower lr or look at the data. The last "
            f"checkpoint is {(checkpoints(folder, name) or ['none'])[-1]}"
        )


def checkpoints(folder: Path, name: str) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob(f"{name}-*") if path.is_dir() and path.name[len(name) + 1 :].isdigit())


def load_average(checkpoint: Path) -> list[torch.Tensor]:
    """The averaged weights of a checkpoint, in the order of the parameters that were trained."""
    return torch.load(checkpoint / "ema.pt", weights_only=True, map_location="cpu")["shadow_params"]


def _save(
    folder: Path, name: str, step: int, terms: dict, accelerator: Accelerator, ema: EMAModel, data: Data | None
) -> None:
    """Write a checkpoint under a temporary name, rename it, and remove all but the last."""
    target = folder / f"{name}-{step:07d}"
    work = folder / f"{name}.tmp"
    if accelerator.is_main_process:
        shutil.rmtree(work, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(work)
    places = gather_object([data.place()]) if data else []
    if accelerator.is_main_process:
        torch.save(ema.state_dict(), work / "ema.pt")
        (work / "progress.json").write_text(json.dumps({"step": step, "data": places, "terms": terms}))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(work, target)
        for old in checkpoints(folder, name)[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _check_terms(checkpoint: Path, terms: dict) -> None:
    """Raises ValueError if a checkpoint was written under other terms: what goes on from it would be neither run."""
    before = json.loads((checkpoint / "progress.json").read_text())["terms"]
    for key in sorted(before.keys() | terms.keys()):
        if before.get(key) != terms.get(key):
            raise ValueError(
                f"{checkpoint}: was begun with {key} {before.get(key)}, not {terms.get(key)}; go on with the same, or "
                "move its checkpoints, and those of what came after, away to begin again"
            )


def _load(checkpoint: Path, accelerator: Accelerator, ema: EMAModel, data: Data | None) -> int:
    """Take up a checkpoint; returns its step."""
    accelerator.load_state(checkpoint)
    ema.load_state_dict(torch.load(checkpoint / "ema.pt", weights_only=True, map_location="cpu"))
    ema.to(accelerator.device)
    progress = json.loads((checkpoint / "progress.json").read_text())
    if data:
        data.go_to(progress["data"])
    return progress["step"]


@torch.no_grad()
def _swap(ema: EMAModel, parameters: Iterable[torch.Tensor]) -> None:
    """Exchange weights and averages in place: `ema.store` would hold a third copy of both."""
    for parameter, average in zip(parameters, ema.shadow_params, strict=True):
        held = parameter.clone()
        parameter.copy_(average)
        average.copy_(held)


class _Curve:
    """Rows of figures in a .jsonl; what a killed run wrote after its last checkpoint is dropped first."""

    def __init__(self, file: Path, start: int):
        self.file = file
        kept = [row for row in read_curve(file) if row["step"] < start] if file.exists() else []
        work = file.with_suffix(".tmp.jsonl")
        work.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(work, file)

    def write(self, row: dict[str, float]) -> None:
        with self.file.open("a") as out:
            out.write(json.dumps(row) + "\n")


def read_curve(file: Path) -> list[dict[str, float]]:
    """The rows of a curve; a last line cut off by a kill is left out."""
    rows = []
    for line in file.read_text().splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def set_trained(model: torch.nn.Module, names: Iterable[str]) -> None:
    """Freeze all children of `model` but those named."""
    names = set(names)
    for name, child in model.named_children():
        child.requires_grad_(name in names)
