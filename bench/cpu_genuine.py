"""A model of full size on a CPU: ours beside stock diffusers as it comes (float32), stock diffusers as an expert sets
it (the faster type and layouts), and OpenVINO's UNet. Also the peak memory of ours, and of ours in float32,
and how far their pictures are apart.

A picture of 20 UNI_PC or 50 K_LMS steps would take minutes. So each draws a few steps, and the sum is stated: the
seconds of a step times the steps, and all the rest. Each part runs in a process of its own and has a time limit: ten
minutes on two cores, and 16 GB of memory. Without --weights, a model of Stable Diffusion's size with random weights is
made once (12 GB in the system's folder for temporary files, of which 2.7 GB stay). OpenVINO needs
`python3.11 -m venv .venv-openvino` and `.venv-openvino/bin/pip install openvino==2026.4.1`; without it its part is left
out.
"""

import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from PIL import Image

from bench import ROOT
from bench.gpu import Figures, collect, random_model
from jsd.errors import JSDError
from jsd.train.options import whole

PARTS = {"memory": 60, "memory_fp32": 90, "pictures": 320, "openvino": 150}  # seconds at most
STEPS = {"UNI_PC": 20, "K_LMS": 50}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--weights", dest="folder", type=Path, metavar="FOLDER", help="default: random, of full size")
    parser.add_argument("--steps", type=whole(2), default=3, help="steps that are drawn, from 2 (default: 3)")
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"one part of {', '.join(PARTS)}")
    parser.add_argument(
        "--openvino", type=Path, default=ROOT / ".venv-openvino", metavar="FOLDER", help="the environment that has it"
    )


def run(arguments: Namespace) -> Figures:
    """Run the parts, and print a table. Returns the figures: seconds, GB of memory, dB, and ratios ours / theirs.

    Raises `JSDError` if there is none.
    """
    folder = arguments.folder or random_model()
    environment = os.environ | {"JSD_WEIGHTS": str(folder.resolve()), "JSD_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as place:
        for name, limit in PARTS.items():
            if arguments.only not in (None, name):
                continue
            if name == "openvino" and not arguments.openvino.is_dir():
                print(f"openvino: left out, as there is no {arguments.openvino}; --help says how it is made")
                continue
            given = {"pictures": arguments.steps, "openvino": str(arguments.openvino.resolve())}.get(name, place)
            code = f"from bench import cpu_parts; cpu_parts.run({name!r}, {given!r})"
            collect(name, [sys.executable, "-W", "ignore", "-c", code], environment, limit, figures)
        drawn = [Path(place, f"{kind}.png") for kind in ("ours", "fp32")]
        if all(file.exists() for file in drawn):
            from tests.fakes import psnr  # it imports torch, whose memory would count in the parts before

            figures["psnr_ours_to_fp32"] = round(min(99.0, psnr(*map(Image.open, drawn))), 1)
    if not figures:
        raise JSDError("no part came to a figure; the reasons stand above")
    figures |= sums(figures)
    print(table(figures))
    return figures


def sums(figures: Figures) -> Figures:
    """Return the seconds of whole pictures, added up, and the ratios of ours to the others, where they are known."""
    kinds, found = ("ours", "stock", "expert"), {}
    for sampler, steps in STEPS.items():
        for kind in kinds:
            if f"{sampler}_{kind}_rest" in figures:
                whole_picture = steps * figures[f"{sampler}_{kind}_step"] + figures[f"{sampler}_{kind}_rest"]
                found[f"{sampler}_{steps}_{kind}"] = round(whole_picture, 1)
    names = [f"{sampler}_{steps}" for sampler, steps in STEPS.items()]
    known = figures | found
    for name in (*names, "decode", "unet_call", "peak_gb"):
        for other in ("stock", "expert", "openvino", "fp32"):
            if f"{name}_ours" in known and f"{name}_{other}" in known:
                found[f"{name}_ratio_to_{other}"] = round(known[f"{name}_ours"] / known[f"{name}_{other}"], 3)
    return found


def table(figures: Figures) -> str:
    """Return the main figures as a Markdown table."""
    kinds = {"ours": "ours", "stock": "stock, float32", "expert": "stock, an expert's", "openvino": "OpenVINO"}
    rows = [f"| | {' | '.join(kinds.values())} | ours in fp32 |", "|---" * (len(kinds) + 2) + "|"]
    lines = {f"{name}_step": f"a step of {name}, measured, s" for name in STEPS}
    lines |= {"unet_call": "a UNet call of 2 rows, s", "decode": "decoding, s", "peak_gb": "peak memory, GB"}
    for sampler, steps in STEPS.items():
        lines[f"{sampler}_{steps}"] = f"{sampler}, {steps} steps, added up, s"
    for name, text in lines.items():
        sampler, step, _ = name.partition("_step")
        cells = [str(figures.get(f"{sampler}_{kind}{step}", "")) for kind in (*kinds, "fp32")]
        rows.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(rows)
