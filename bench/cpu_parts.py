"""The parts of `bench.cpu_genuine`. Each prints figures as lines of JSON, from JSD_WEIGHTS."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from bench import PROMPTS, shared_guidance
from bench.gpu_parts import STOCK, inputs, tell
from bench.one import in_turn
from jsd import sampling, settings
from jsd.model import Components
from jsd.request import Request

Marks = list[float]


def run(name: str, given: int | str) -> None:
    """Run one part: "memory" or "memory_fp32" with a folder for the picture, "pictures" with a number of steps, or
    "openvino" with its environment.
    """
    folder = Path(os.environ["JSD_WEIGHTS"])
    if name == "pictures":
        pictures(folder, given)
    elif name == "openvino":
        openvino(folder, Path(given))
    else:
        memory("fp32" if name == "memory_fp32" else "ours", Path(given))


def memory(kind: str, place: Path) -> None:
    """The most memory until the model is loaded, and until a picture of two steps is drawn, which goes to `place`."""
    if kind == "fp32":
        os.environ["JSD_DTYPE"] = kind
    components = settings.load_components()
    tell(**{f"setup_peak_gb_{kind}": peak()})
    request = Request(PROMPTS[0], num_inference_steps=2, scheduler="UNI_PC", seed=0)
    sampling.generate(components, request).images[0].save(place / f"{kind}.png")
    tell(**{f"peak_gb_{kind}": peak()})


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def pictures(folder: Path, steps: int) -> None:
    """Seconds of a step and of the rest of a picture, of each contender in turn. The rest holds text, decoding, safety
    checker, ours also the watermark, and what the first step takes longer than the others.
    """
    components = settings.load_components(folder)
    tell(type=str(components.dtype).removeprefix("torch."), threads=torch.get_num_threads(), torch=torch.__version__)
    contenders = {"ours": components, "stock": stock(folder, torch.float32), "expert": expert(folder, components)}
    decoding: dict[str, list[float]] = {kind: clocked(model.vae) for kind, model in contenders.items()}
    guidance = shared_guidance(folder)
    for sampler in ("UNI_PC", "K_LMS"):
        for kind, model in contenders.items():
            marks = [time.perf_counter()]
            draw(model, sampler, steps, guidance, marks)
            marks.append(time.perf_counter())
            each = [end - begin for begin, end in pairwise(marks)]
            step = statistics.median(each[1:-1])
            tell(**{f"{sampler}_{kind}_step": step, f"{sampler}_{kind}_rest": each[0] - step + each[-1]})
            tell(**{f"decode_{kind}": statistics.median(decoding[kind])})


def stock(folder: Path, dtype: torch.dtype) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.inference_mode()
def expert(folder: Path, components: Components) -> StableDiffusionPipeline:
    """Stock diffusers in the type that is faster here, and each part in the layout that is."""
    pipeline = stock(folder, components.dtype)
    pipeline.vae.to(memory_format=torch.channels_last)
    call, seconds = inputs(components, 2), {}
    for layout in (torch.contiguous_format, torch.channels_last):
        pipeline.unet.to(memory_format=layout)
        pipeline.unet(*call)
        began = time.perf_counter()
        pipeline.unet(*call)
        seconds[layout] = time.perf_counter() - began
    best = min(seconds, key=seconds.get)
    pipeline.unet.to(memory_format=best)
    tell(unet_call_contiguous=seconds[torch.contiguous_format], unet_call_channels_last=seconds[torch.channels_last])
    return pipeline


def clocked(vae: torch.nn.Module) -> list[float]:
    """Let `vae.decode` note its seconds in the list that is returned."""
    decode, seconds = vae.decode, []

    def timed(*arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        result = decode(*arguments, **more)
        seconds.append(time.perf_counter() - began)
        return result

    vae.decode = timed
    return seconds


def draw(model: Any, sampler: str, steps: int, guidance: float, marks: Marks) -> None:
    """Draw a picture. `marks` gets the time at the end of each step."""
    common = {"num_inference_steps": steps, "guidance_scale": guidance}
    if isinstance(model, Components):
        request = Request(PROMPTS[0], seed=0, scheduler=sampler, **common)
        sampling.generate(model, request, lambda done, total: marks.append(time.perf_counter()))
        return
    model.scheduler = STOCK[sampler].from_config(model.scheduler.config)
    common["callback_on_step_end"] = lambda pipe, i, t, tensors: marks.append(time.perf_counter()) or tensors
    model(PROMPTS[0], generator=torch.Generator().manual_seed(0), **common)


class Plain(torch.nn.Module):
    """A UNet that takes and returns tensors only."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.unet(x, t, context, return_dict=False)[0]


@torch.inference_mode()
def openvino(folder: Path, environment: Path) -> None:
    """Seconds of a UNet call of two rows, ours and OpenVINO's in turn, in the type that is faster here."""
    sys.path += [str(place) for place in environment.glob("lib/python3*/site-packages")]  # after our own packages
    try:
        import openvino as ov
    except ImportError as error:
        print(f"openvino: can't be imported from {environment} ({error}); is it of the same Python?")
        return
    os.environ["JSD_SAFETY_CHECKER"] = "off"  # only the UNet is wanted
    components = settings.load_components(folder)
    call = inputs(components, 2)
    tensors = [tensor.float().numpy() for tensor in call]
    compiled, seconds = compile_unet(ov, folder, [tensor.float() for tensor in call], components.dtype)
    calls: dict[str, Callable[[int], Any]] = {
        "ours": lambda _: components.unet(*call, return_dict=False)[0].float().numpy(),
        "openvino": lambda _: compiled(tensors)[0],
    }
    ours, theirs = calls["ours"](0), calls["openvino"](0)
    found = {name: statistics.median(each) for name, each in in_turn(calls, 2, "UNet calls").items()}
    tell(openvino=ov.__version__, openvino_seconds_to_convert=seconds)
    tell(openvino_differs_by=float(abs(ours - theirs).max() / abs(ours).max()))
    tell(**{f"unet_call_{name}": each for name, each in found.items()})


def compile_unet(ov: Any, folder: Path, example: list[torch.Tensor], dtype: torch.dtype) -> tuple[Any, float]:
    """Return the UNet compiled by OpenVINO for tensors like `example`, and the seconds that this took."""
    began = time.perf_counter()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True, dtype=torch.float32)
    shapes = [ov.PartialShape(list(tensor.shape)) for tensor in example]
    converted = ov.convert_model(Plain(unet.eval()), example_input=tuple(example), input=shapes)
    options = {"INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
    options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    return ov.Core().compile_model(converted, "CPU", options), time.perf_counter() - began
