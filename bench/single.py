"""One request at a time, ours beside stock diffusers: latency, what starting costs, memory, and how near the UNet comes
to the machine's own rate of matrix products.

`python -m bench.single PHASE FOLDER` runs a phase in a process of its own and prints one line of JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.serving import PROMPTS, ROOT

STOCK_2022 = {"scheduler": "K_LMS", "num_inference_steps": 50}  # the README of 2022
MATRIX = 2048  # rows and columns of the matrix product


def latency(folder: Path, equal: dict[str, Any], pairs: int) -> dict[str, list[float]]:
    """Seconds a picture, in turn: ours and stock at equal settings, then ours at its defaults and stock as in 2022."""
    import torch
    from diffusers import LMSDiscreteScheduler, StableDiffusionPipeline

    from jsd import model, sampling
    from jsd.request import Request
    from jsd.schedulers import make_scheduler

    components = model.load(folder)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    guidance = components.defaults.guidance_scale
    same = make_scheduler(equal["scheduler"], components.scheduler_config)
    lms = LMSDiscreteScheduler.from_config(pipeline.scheduler.config)

    def ours(i: int, **settings: Any) -> None:
        sampling.generate(components, Request(PROMPTS[i % len(PROMPTS)], seed=i, guidance_scale=guidance, **settings))

    def stock(i: int, scheduler: Any, steps: int) -> None:
        pipeline.scheduler = scheduler
        pipeline(
            PROMPTS[i % len(PROMPTS)],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(i),
        )

    contenders = {
        "ours, equal steps": lambda i: ours(i, **equal, guidance_interval=(0, 1)),
        "stock, equal steps": lambda i: stock(i, same, equal["num_inference_steps"]),
        "ours, defaults": ours,
        "stock, K_LMS 50": lambda i: stock(i, lms, STOCK_2022["num_inference_steps"]),
    }
    return in_turn(contenders, pairs, "latency")


def in_turn(contenders: dict[str, Callable[[int], Any]], rounds: int, what: str) -> dict[str, list[float]]:
    """Seconds of each in `rounds` rounds, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in tqdm(range(rounds + 1), what):
        for name, call in contenders.items():
            began = time.perf_counter()
            call(i)
            if i:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def gemm_share(folder: Path, rows: int = 2) -> dict[str, float]:
    """The rate of the UNet, GFLOP/s at its own size, and of a product of large matrices, in turn in one process."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from jsd import model

    unet = model.load(folder, safety_checker=False).unet
    size, channels = unet.config.sample_size, unet.config.in_channels
    x = torch.randn(rows, channels, size, size)
    states = torch.randn(rows, 77, unet.config.cross_attention_dim)
    a = torch.randn(MATRIX, MATRIX)

    with torch.inference_mode():
        # The fused attention of a CPU is not counted.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            unet(x, 1.0, states)
        work = counter.get_total_flops()
        products = max(1, round(work / (2 * MATRIX**3)))
        calls = {"unet": lambda _: unet(x, 1.0, states), "gemm": lambda _: [a @ a for _ in range(products)]}
        seconds = in_turn(calls, 4, "rates")
    rates = {
        "unet": work / statistics.median(seconds["unet"]) / 1e9,
        "gemm": 2 * MATRIX**3 * products / statistics.median(seconds["gemm"]) / 1e9,
    }
    return {**rates, "share": rates["unet"] / rates["gemm"]}


def start_ours(folder: Path) -> None:
    """What the container does until it is ready."""
    os.environ["JSD_WEIGHTS"] = str(folder)
    import predict

    predict.Predictor().setup()


def start_stock(folder: Path) -> None:
    from bench.peer import Predictor

    os.environ["JSD_WEIGHTS"] = str(folder)
    Predictor().setup()


def start_floor(folder: Path) -> None:
    """The imports of the models, and every byte of the weights once."""
    from jsd import model

    model.import_models()
    buffer = bytearray(1 << 24)
    for path in folder.rglob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def draw_ours(folder: Path) -> None:
    from jsd import model, sampling
    from jsd.request import Request

    sampling.generate(model.load(folder), Request(PROMPTS[0], num_inference_steps=2, scheduler="PNDM", seed=0))


def draw_stock(folder: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline(PROMPTS[0], num_inference_steps=2, generator=torch.Generator().manual_seed(0))


PHASES = {
    "start-ours": start_ours,
    "start-stock": start_stock,
    "start-floor": start_floor,
    "draw-ours": draw_ours,
    "draw-stock": draw_stock,
}


def measured(phases: Sequence[str], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The phases in turn, each in a process of its own: the median of their seconds, the largest peak in bytes.

    The first two, who are compared, change places every round: on a virtual machine memory that another process gave
    back a moment ago costs less to take.
    """
    rows: dict[str, list[dict[str, float]]] = {phase: [] for phase in phases}
    for i in tqdm(range(rounds), " ".join(phases)):
        for phase in (phases[i % 2], phases[1 - i % 2], *phases[2:]):
            command = [sys.executable, "-m", "bench.single", phase, str(folder)]
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            rows[phase].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        phase: {
            "seconds": statistics.median(row["seconds"] for row in found),
            "peak": max(row["peak"] for row in found),
        }
        for phase, found in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    began = time.perf_counter()
    PHASES[args.phase](args.folder)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": round(seconds, 3), "peak": peak}), flush=True)
    os._exit(0)  # no thread of an engine is waited for


if __name__ == "__main__":
    main()
