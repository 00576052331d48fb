"""Measure seconds and peak memory of a piece of work (a start, a drawing), each time in a new process."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from bench import PROMPTS, ROOT


def measure(names: Sequence[str], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Run functions of this module in turn, in new processes. Returns the median "seconds" and largest "peak" of each.

    They use the model in `folder`. A peak is in bytes. Every other round runs in reverse order, because on a virtual
    machine it costs less to get memory that another process has just returned.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for i in tqdm(range(rounds), ", ".join(names)):
        for name in names if i % 2 == 0 else reversed(names):
            # The child ends without waiting for the engine's threads.
            code = f"import os; from bench import phases; phases.{name}(); os._exit(0)"
            runs[name].append(run([sys.executable, "-c", code], folder))
    found = {}
    for name, rows in runs.items():
        seconds, peak = statistics.median(row["seconds"] for row in rows), max(row["peak"] for row in rows)
        found[name] = {"seconds": round(seconds, 3), "peak": peak}
        print(f"{name:22}{seconds:8.2f} s{peak / 1e9:8.2f} GB")
    return found


def run(command: Sequence[str | Path], folder: Path) -> dict[str, float]:
    """Run a command with JSD_WEIGHTS=folder. Returns "seconds" and "peak" memory in bytes. Raises CalledProcessError.

    On Linux the peak is at least that of this process so far, so call this before models are loaded here.
    """
    environment = os.environ | {"JSD_WEIGHTS": str(folder), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {"seconds": round(time.perf_counter() - began, 3), "peak": usage.ru_maxrss * 1024}


def ratio(found: dict[str, dict[str, float]], what: str, name: str, other: str) -> float:
    """Return the "seconds" or "peak" (`what`) of `name` / those of `other`. `found` is what `measure` returned."""
    return round(found[name][what] / found[other][what], 3)


def start_ours() -> None:
    """Start our Cog predictor as the container does: run its `setup`."""
    import predict

    predict.Predictor().setup()


def start_stock() -> None:
    from bench.peer import Predictor

    Predictor().setup()


def start_floor() -> None:
    """Do the least that a start can do: import the libraries, and read every byte of the weights once."""
    for name in ("jsd.model", "jsd.schedulers", "jsd.watermark"):
        import_module(name)
    buffer = bytearray(1 << 24)
    for path in Path(os.environ["JSD_WEIGHTS"]).rglob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def draw_ours() -> None:
    from jsd import sampling, settings
    from jsd.request import Request

    components = settings.load_components()
    sampling.generate(components, Request(PROMPTS[0], num_inference_steps=2, scheduler="PNDM", seed=0))


def draw_stock() -> None:
    import torch

    from bench.peer import load_pipeline

    pipeline = load_pipeline(os.environ["JSD_WEIGHTS"])
    pipeline(PROMPTS[0], num_inference_steps=2, generator=torch.Generator().manual_seed(0))
