"""Runs of `python -m jsd train loop`: in this process, or in two that share the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from jsd import cli
from jsd.train.checkpoints import find_checkpoints, load_average


def flags(settings: dict[str, Any], **changed: Any) -> list[str]:
    """The command line of a run. A setting that is None is left out, and one that is True is a flag without a value."""
    merged = settings | {key.replace("_", "-"): value for key, value in changed.items()}
    words = ["loop", "--cpu"]
    for key, value in merged.items():
        if value is not None:
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
    return words


def run_loop(settings: dict[str, Any], **changed: Any) -> int:
    """Run the command in this process. Returns its exit code."""
    return cli.main(["train", *flags(settings, **changed)])


def run_two_processes(settings: dict[str, Any], **changed: Any) -> None:
    """Run the command in two processes, with one thread and one worker each.

    They are started by torch, because `accelerate launch` starts several processes without a GPU only under MPI.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "jsd", "train", *flags(settings, workers=1, **changed)]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})


def average_of(folder: Path, stage: str = "stage1") -> torch.Tensor:
    """All averaged weights in the newest checkpoint of a run, as one vector."""
    return torch.cat([weight.flatten() for weight in load_average(find_checkpoints(folder, stage)[-1])])
