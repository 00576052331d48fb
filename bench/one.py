"""Compare ours with stock diffusers, one request at a time: latency, start and memory, as ratios ours / theirs.

`setup` is our start / the least possible one. `gemm_share` is the UNet's FLOP rate / that of a large matrix product.
"""

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import EQUAL, PROMPTS, add_weights, phases, shared_guidance
from jsd.train.options import whole

STEPS_2022 = 50  # with K_LMS, in the README of 2022
MATRIX, GPU_MATRIX = 2048, 8192  # rows and columns of the matrix product


def add_arguments(parser: ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("--rounds", type=whole(), default=3, help="how often each part is repeated (default: 3)")
    parser.add_argument("--pairs", type=whole(), default=9, help="pictures of each, for the latency (default: 9)")


def run(arguments: Namespace) -> dict[str, float]:
    guidance = shared_guidance(arguments.weights)
    found = phases.measure(("start_ours", "start_stock", "start_floor"), arguments.weights, arguments.rounds)
    found |= phases.measure(("draw_ours", "draw_stock"), arguments.weights, arguments.rounds)
    return {
        **latency(arguments.weights, guidance, arguments.pairs),
        "setup": phases.ratio(found, "seconds", "start_ours", "start_floor"),
        "setup_stock": phases.ratio(found, "seconds", "start_ours", "start_stock"),
        "memory": phases.ratio(found, "peak", "draw_ours", "draw_stock"),
        "gemm_share": gemm_share(arguments.weights),
    }


def latency(folder: Path, guidance: float, pairs: int) -> dict[str, float]:
    """Return two median ratios of seconds: ours / stock at EQUAL settings, our defaults / stock at 50 K_LMS steps."""
    import torch
    from diffusers import LMSDiscreteScheduler

    from bench.peer import load_pipeline
    from jsd import sampling, settings
    from jsd.request import Request
    from jsd.schedulers import make_scheduler

    components, pipeline = settings.load_components(folder), load_pipeline(folder)
    if (pipeline.device.type, pipeline.dtype) != (components.device.type, components.dtype):
        raise RuntimeError(f"not comparable: stock draws on {pipeline.device} in {pipeline.dtype}")
    pipeline.set_progress_bar_config(disable=True)
    same = make_scheduler(EQUAL["scheduler"], components.scheduler_config)
    lms = LMSDiscreteScheduler.from_config(pipeline.scheduler.config)

    def ours(i: int, **settings: Any) -> None:
        sampling.generate(components, Request(PROMPTS[i % len(PROMPTS)], seed=i, guidance_scale=guidance, **settings))

    def stock(i: int, scheduler: Any, steps: int) -> None:
        pipeline.scheduler = scheduler
        settings = {"num_inference_steps": steps, "guidance_scale": guidance}
        pipeline(PROMPTS[i % len(PROMPTS)], **settings, generator=torch.Generator().manual_seed(i))

    contenders = {
        "ours, equal steps": lambda i: ours(i, **EQUAL),
        "stock, equal steps": lambda i: stock(i, same, EQUAL["num_inference_steps"]),
        "ours, defaults": ours,
        "stock, K_LMS 50": lambda i: stock(i, lms, STEPS_2022),
    }
    ours_equal, stock_equal, ours_defaults, stock_2022 = map(np.array, in_turn(contenders, pairs, "latency").values())
    return {
        "latency_equal_steps": round(float(np.median(ours_equal / stock_equal)), 3),
        "latency_defaults": round(float(np.median(ours_defaults / stock_2022)), 3),
    }


def gemm_share(folder: Path, rows: int = 2) -> float:
    """Return the UNet's FLOP rate as a share of that of a large matrix product in the same process."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from jsd import settings

    components = settings.load_components(folder)
    unet, size = components.unet, components.unet.config.sample_size
    place = {"device": components.device, "dtype": components.dtype}
    matrix = MATRIX if components.device.type == "cpu" else GPU_MATRIX
    x, a = torch.randn(rows, unet.config.in_channels, size, size, **place), torch.randn(matrix, matrix, **place)
    states = torch.randn(rows, 77, unet.config.cross_attention_dim, **place)

    def finished(result: Any) -> None:
        if components.device.type == "cuda":
            torch.cuda.synchronize(components.device)

    with torch.inference_mode():
        # The counter does not know the fused attention of a CPU.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            unet(x, 1.0, states)
        work, product = counter.get_total_flops(), 2 * matrix**3
        products = max(1, round(work / product))  # so that both calls do about as much
        calls = {
            "unet": lambda _: finished(unet(x, 1.0, states)),
            "gemm": lambda _: finished([a @ a for _ in range(products)]),
        }
        seconds = {name: statistics.median(each) for name, each in in_turn(calls, 4, "rates").items()}
    return round((work / seconds["unet"]) / (product * products / seconds["gemm"]), 3)


def in_turn(contenders: dict[str, Callable[[int], Any]], rounds: int, what: str) -> dict[str, list[float]]:
    """Call all contenders once a round, after a warm-up round. Returns the seconds of the calls, by contender."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in tqdm(range(rounds + 1), what):
        for name, call in contenders.items():
            began = time.perf_counter()
            call(i)
            if i:
                seconds[name].append(time.perf_counter() - began)
    for name, each in seconds.items():
        print(f"{name:22}{statistics.median(each):8.3f} s")
    return seconds
