"""The parts of `bench.gpu`. Each prints figures as lines of JSON, from JSD_WEIGHTS on JSD_DEVICE."""

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import LMSDiscreteScheduler, StableDiffusionPipeline, UniPCMultistepScheduler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench import PROMPTS, phases, shared_guidance
from bench.load import SERVED, Contender
from bench.one import in_turn
from jsd import device, images, sampling, settings
from jsd.engine import Engine
from jsd.graphs import GraphedUNet
from jsd.model import Components
from jsd.request import Request

STOCK = {"K_LMS": LMSDiscreteScheduler, "UNI_PC": UniPCMultistepScheduler}


class Plan(NamedTuple):
    """How much is measured. `calls` are the rows of the calls that are timed together. `large` is the side in pixels,
    the number of pictures, and the steps.
    """

    rounds: int
    calls: int
    steps: dict[str, int]
    rows: tuple[int, ...]
    requests: tuple[int, ...]
    large: tuple[int, int, int]
    clients: int
    matrix: int


FULL = Plan(5, 64, {"K_LMS": 50, "UNI_PC": 20}, (1, 2, 4, 8, 16, 32, 64), (1, 8, 32), (1024, 4, 10), 8, 8192)
QUICK = Plan(1, 1, {"K_LMS": 2, "UNI_PC": 2}, (1, 2), (1, 2), (320, 1, 1), 2, 256)


def run(name: str, quick: bool) -> None:
    """Run one part: "plain", "compiled", "http" or "ready"."""
    folder, plan = Path(os.environ["JSD_WEIGHTS"]), QUICK if quick else FULL
    {"plain": plain, "compiled": compiled, "http": http, "ready": ready}[name](folder, plan)


def tell(**figures: float | str) -> None:
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(rounded), flush=True)


def plain(folder: Path, plan: Plan) -> None:
    began = time.perf_counter()
    components = settings.load_components(folder)
    tell(load_ours=time.perf_counter() - began, card=card(components.device), torch=torch.__version__)
    floor(components, plan)
    graphed = isinstance(components.unet, GraphedUNet)
    unet(components, plan, {"eager": components.unet.unet if graphed else components.unet, "ours": components.unet})
    pipeline = stock(folder, components)
    pictures(folder, plan, {"ours": components, "stock": pipeline})
    engine(components, plan, "ours")
    large(folder, plan, components, pipeline)


def compiled(folder: Path, plan: Plan) -> None:
    """Ours with JSD_COMPILE, and stock diffusers as guides advise: channels_last, and the UNet compiled to graphs."""
    os.environ["JSD_COMPILE"] = "on"
    began = time.perf_counter()
    components = settings.load_components(folder)
    tell(load_ours_compiled=time.perf_counter() - began, card=card(components.device))
    unet(components, plan, {"ours_compiled": components.unet})
    pictures(folder, plan, {"ours_compiled": components})
    engine(components, plan, "ours_compiled")
    pipeline = stock(folder, components)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.unet = torch.compile(pipeline.unet, mode="reduce-overhead")
    began = time.perf_counter()
    pipeline(PROMPTS[0], num_inference_steps=3)
    tell(compile_stock=time.perf_counter() - began)
    pictures(folder, plan, {"ours_compiled": components, "stock_compiled": pipeline})


def http(folder: Path, plan: Plan) -> None:
    """Many clients of our server, and of a synchronous predictor with stock diffusers."""
    settings = {"guidance_scale": shared_guidance(folder), "scheduler": "DDIM"}
    settings["num_inference_steps"] = plan.steps["UNI_PC"]
    rates: dict[str, list[float]] = {name: [] for name in SERVED}
    with contextlib.ExitStack() as stack:
        servers = {name: Contender(stack, *place, folder, settings) for name, place in SERVED.items()}
        for server in servers.values():
            server.load(plan.clients, 2)  # a warm-up
        for _ in range(min(plan.rounds, 2)):
            for name, server in servers.items():
                rates[name].append(server.load(plan.clients, 3)[0])
                tell(**{f"http_{plan.clients}_{name}": statistics.median(rates[name])})


def ready(folder: Path, plan: Plan) -> None:
    """Seconds until our predictor is ready, and those of the imports and of reading the files."""
    found = phases.measure(("start_ours", "start_floor"), folder, min(plan.rounds, 2))
    tell(ready_ours=found["start_ours"]["seconds"], ready_floor=found["start_floor"]["seconds"])


def card(where: torch.device) -> str:
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"


def stock(folder: Path, components: Components) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=components.dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(components.device)


def seconds(where: torch.device, call: Callable[[], Any], calls: int, rounds: int) -> float:
    """Return the median seconds of a call, over `rounds` of `calls` in a row, after two that warm up."""
    found = []
    for i in range(2 + rounds):
        device.settle(where)
        began = time.perf_counter()
        for _ in range(calls if i > 1 else 1):
            call()
        device.settle(where)
        found.append((time.perf_counter() - began) / (calls if i > 1 else 1))
    return statistics.median(found[2:])


def inputs(components: Components, rows: int) -> tuple[torch.Tensor, ...]:
    """Return the arguments of a UNet call at the model's own size."""
    own, place = components.defaults, {"device": components.device, "dtype": components.dtype}
    shape = (components.unet.config.in_channels, own.height // own.cell, own.width // own.cell)
    tokens, width = components.tokenizer.max_length, components.text_encoder.config.hidden_size
    t = torch.full((rows,), 500.0, device=components.device)
    return torch.randn(rows, *shape, **place), t, torch.randn(rows, tokens, width, **place)


@torch.inference_mode()
def floor(components: Components, plan: Plan) -> None:
    """The time of a picture's products, all at the rate of one large product."""
    a = torch.randn(plan.matrix, plan.matrix, device=components.device, dtype=components.dtype)
    rate = 2 * plan.matrix**3 / seconds(components.device, lambda: a @ a, 10, plan.rounds)
    x, t, context = inputs(components, 2)
    work = []
    for call in (
        lambda: getattr(components.unet, "unet", components.unet)(x, t, context),
        lambda: components.vae.decode(x[:1]),
    ):
        # The counter does not know every fused attention.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            call()
        work.append(counter.get_total_flops())
    tell(product_tflops=rate / 1e12, tflop_unet=work[0] / 1e12, tflop_decode=work[1] / 1e12)
    floors = {f"{name}_floor": (steps * work[0] + work[1]) / rate for name, steps in plan.steps.items()}
    tell(**floors, unet_2_floor=work[0] / rate * 1e3)


@torch.inference_mode()
def unet(components: Components, plan: Plan, kinds: dict[str, Callable[..., Any]]) -> None:
    """Milliseconds of UNet calls, by rows."""
    for rows in plan.rows:
        call = inputs(components, rows)
        for kind, model in kinds.items():
            found = seconds(components.device, partial(model, *call, return_dict=False), max(1, plan.calls // rows), 3)
            tell(**{f"unet_{rows}_{kind}": found * 1e3})


def pictures(folder: Path, plan: Plan, kinds: dict[str, Components | StableDiffusionPipeline]) -> None:
    """Seconds of one picture, with the checker and the PNG file, and ours with the watermark."""
    guidance = shared_guidance(folder)
    with tempfile.TemporaryDirectory() as work:
        contenders = {
            f"{name}_{kind}": lambda i, n=name, m=model: draw(m, n, plan.steps[n], guidance, i, Path(work, "one.png"))
            for name in plan.steps
            for kind, model in kinds.items()
        }
        found = in_turn(contenders, plan.rounds, "pictures")
    tell(**{name: statistics.median(each) for name, each in found.items()})


def draw(model: Any, name: str, steps: int, guidance: float, seed: int, file: Path, **more: Any) -> None:
    """Draw with ours or with stock diffusers, and write the last picture to `file`."""
    prompt, common = PROMPTS[seed % len(PROMPTS)], {"num_inference_steps": steps, "guidance_scale": guidance, **more}
    if isinstance(model, Components):
        result = sampling.generate(model, Request(prompt, seed=seed, scheduler=name, **common))
        images.save(result.images[-1], file, "png", 90, result.metadata(len(result.images) - 1))
        return
    if "num_outputs" in common:
        common["num_images_per_prompt"] = common.pop("num_outputs")
    model.scheduler = STOCK[name].from_config(model.scheduler.config)
    model(prompt, generator=torch.Generator().manual_seed(seed), **common).images[-1].save(file)


def engine(components: Components, plan: Plan, kind: str) -> None:
    """Pictures per second of several requests at once, each from a thread that also writes its PNG file, after one
    round that warms up.
    """

    def draw_one(seed: int) -> None:
        common = {"scheduler": "UNI_PC", "num_inference_steps": plan.steps["UNI_PC"]}
        result = served.submit(Request(PROMPTS[seed % len(PROMPTS)], seed=seed, **common)).result()
        images.save(result.images[0], Path(work, f"{seed}.png"), "png", 90, result.metadata(0))

    with Engine(components) as served, tempfile.TemporaryDirectory() as work:
        for count in plan.requests:
            rates = []
            with ThreadPoolExecutor(count) as clients:
                for _ in range(3):
                    began = time.perf_counter()
                    list(clients.map(draw_one, range(count)))
                    rates.append(count / (time.perf_counter() - began))
            tell(**{f"engine_{count}_{kind}": statistics.median(rates[1:])})


def large(folder: Path, plan: Plan, components: Components, pipeline: StableDiffusionPipeline) -> None:
    """Seconds of several large pictures of one request."""
    side, count, steps = plan.large
    more = {"width": side, "height": side, "num_outputs": count}
    guidance, rounds = shared_guidance(folder), min(plan.rounds, 2)
    with tempfile.TemporaryDirectory() as work:
        contenders = {
            kind: lambda i, m=model: draw(m, "UNI_PC", steps, guidance, i, Path(work, "large.png"), **more)
            for kind, model in {"large_ours": components, "large_stock": pipeline}.items()
        }
        tell(**{kind: statistics.median(each) for kind, each in in_turn(contenders, rounds, "large").items()})
