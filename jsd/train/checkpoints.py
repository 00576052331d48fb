"""Write and read the files of the training run NAME: checkpoint folders `NAME-STEP`, and losses in `NAME.jsonl`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError

from jsd.atomic import named, write_text
from jsd.errors import TrainingError
from jsd.train.options import first_line, read_record

KEPT = 2  # checkpoints
PROGRESS = "progress.json"
AVERAGE = "ema.pt"


class Data(Protocol):
    """The interface of training data that can be resumed. `place` returns, as JSON values, how far this process has
    read. `go_to` takes the places of all processes, as a checkpoint stores them, and continues from there.
    """

    def place(self) -> dict[str, Any]: ...

    def go_to(self, places: list[dict[str, Any]]) -> None: ...


def find_checkpoints(folder: Path, name: str) -> list[Path]:
    """Return the paths of the checkpoints of the run `name` in `folder`, oldest first."""
    return sorted(path for path in folder.glob(f"{name}-*") if path.is_dir() and path.name[len(name) + 1 :].isdigit())


def save_checkpoint(
    folder: Path,
    name: str,
    step: int,
    terms: dict[str, Any],
    accelerator: Accelerator,
    ema: EMAModel,
    data: Data | None,
    seconds: float = 0.0,
) -> None:
    """Write a checkpoint, whole or not at all, and keep only the run's newest two. Every process must call it.

    `seconds` is how long the run has taken so far.
    """
    target = folder / f"{name}-{step:07d}"
    work = folder / f"{name}.tmp"
    if accelerator.is_main_process:
        shutil.rmtree(work, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(work)
        places = gather_object([data.place()]) if data else []
        if accelerator.is_main_process:
            torch.save(ema.state_dict(), work / AVERAGE)
            progress = {"step": step, "seconds": round(seconds, 1), "data": places, "terms": terms}
            (work / PROGRESS).write_text(json.dumps(progress), "utf-8")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(work, target)
            for old in find_checkpoints(folder, name)[:-KEPT]:
                shutil.rmtree(old)
    except (OSError, RuntimeError, SafetensorError) as error:  # each writer has its own error for a full disk
        shutil.rmtree(work, ignore_errors=True)
        raise TrainingError(
            "{}: can't be written ({}); make room on the disk, and run the command again: it continues "
            "from the checkpoint before",
            target,
            first_line(error),
        ) from error
    accelerator.wait_for_everyone()


def load_checkpoint(checkpoint: Path, accelerator: Accelerator, ema: EMAModel, data: Data | None) -> tuple[int, float]:
    """Restore model, optimizer, `ema` and `data` from a checkpoint, in place. Returns the steps and seconds so far."""
    progress = _read_progress(checkpoint)
    with _readable(checkpoint):
        accelerator.load_state(checkpoint)
        ema.load_state_dict(torch.load(checkpoint / AVERAGE, weights_only=True, map_location="cpu"))
        ema.to(accelerator.device)
    if data:
        data.go_to(progress["data"])
    return progress["step"], progress.get("seconds", 0.0)


def check_terms(checkpoint: Path, terms: dict[str, Any]) -> None:
    """Raise `TrainingError` if a checkpoint's settings differ from `terms`: resuming it would mix two runs."""
    before = _read_progress(checkpoint)["terms"]
    for key in sorted(before.keys() | terms.keys()):
        if before.get(key) != terms.get(key):
            raise TrainingError(
                "{}: was begun with {} {}, not {}; use the same value, or move away the checkpoints of this "
                "run, and of the runs that build on it, to begin again",
                checkpoint,
                key,
                before.get(key),
                terms.get(key),
            )


def load_average(checkpoint: Path) -> list[torch.Tensor]:
    """Read the averaged weights (EMA) of a checkpoint: a list of tensors, in the order of the trained parameters."""
    with _readable(checkpoint):
        return torch.load(checkpoint / AVERAGE, weights_only=True, map_location="cpu")["shadow_params"]


def _read_progress(checkpoint: Path) -> dict[str, Any]:
    return read_record(checkpoint / PROGRESS, "step", "data", "terms")


@contextlib.contextmanager
def _readable(checkpoint: Path) -> Iterator[None]:
    """A context manager that turns whatever the loaders raise for a damaged checkpoint into a `TrainingError`."""
    try:
        yield
    except Exception as error:
        raise TrainingError(
            "{}: can't be read ({}); delete this folder, and the run continues from the one before",
            checkpoint,
            first_line(error),
        ) from error


class Curve:
    """Writes the losses of a run to `file`, one JSON object per logged step. Lines from step `start` on are removed
    first, because a run that was killed wrote them after the checkpoint from which it now continues.
    """

    def __init__(self, file: Path, start: int):
        self.file = file
        rows = [row for row in read_curve(file) if row["step"] < start] if file.exists() else []
        write_text(file, "".join(json.dumps(row) + "\n" for row in rows))

    def write(self, row: dict[str, float]) -> None:
        with named(self.file), self.file.open("a") as out:
            out.write(json.dumps(row) + "\n")


def read_curve(file: Path) -> list[dict[str, float]]:
    """Read a `Curve` file: one dict per logged step, with "step", "loss" and so on. Broken lines are left out."""
    rows = []
    for line in file.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows
