"""Ours beside stock diffusers on a GPU, as docs/gpu.md tells: UNet calls, pictures, many requests, clients, starts.

Each part runs in a process of its own and has a time limit. A figure is printed as soon as it is there, and counts also
if its part fails later. Without --weights, a model of Stable Diffusion's size with random weights is made in the
system's folder for temporary files (12 GB, of which 2.7 GB stay). Needs no package index, and 8 minutes at most.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bench import ROOT, plot
from jsd.errors import JSDError

PARTS = {"plain": 150, "http": 90, "ready": 60, "compiled": 240}  # seconds at most; how long compilers take varies
LEAST_SECONDS = 15  # with less left, a part is not begun
Figures = dict[str, float | str | bool]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--weights", dest="folder", type=Path, metavar="FOLDER", help="default: random, of full size")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the benchmark itself (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="try the benchmark: a small round, with weights/embedded")
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"one part of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=470, help="end after so many (default: 470)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the calls and the rates")


def run(arguments: Namespace) -> Figures:
    """Run the parts, and print a table. Returns the figures: seconds, ms (UNet calls), or pictures per second.

    Raises `JSDError` if there is none.
    """
    end, figures = time.monotonic() + arguments.seconds, {}
    folder = arguments.folder or (ROOT / "weights" / "embedded" if arguments.quick else random_model())
    environment = os.environ | {"JSD_DEVICE": arguments.device, "JSD_WEIGHTS": str(folder.resolve())}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if arguments.quick:
        environment["TORCH_COMPILE_DISABLE"] = "1"
    for name, limit in PARTS.items():
        if arguments.only not in (None, name):
            continue
        limit = min(limit, end - time.monotonic())
        if limit < LEAST_SECONDS:
            print(f"{name}: left out, for want of time")
            continue
        code = f"from bench import gpu_parts; gpu_parts.run({name!r}, {arguments.quick})"
        collect(name, [sys.executable, "-c", code], environment, limit, figures)
    if not figures:
        raise JSDError("no part came to a figure; the reasons stand above")
    if not arguments.quick:
        print(table(figures))
    if arguments.plot:
        draw_plot(arguments.plot, figures)
    return figures | {"quick": arguments.quick}


def random_model() -> Path:
    """Return a converted model of full size with random weights. It is made at the first call."""
    made = Path(tempfile.gettempdir()) / "jsd-fullsize"
    converted = made.with_name(made.name + ".converted")
    if not converted.exists():
        shutil.rmtree(made, ignore_errors=True)
        for command in (["bench", "fullsize", "make", made], ["jsd", "weights", "convert", made, converted]):
            subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(made)
    return converted


def collect(name: str, command: list[str], environment: dict[str, str], limit: float, figures: Figures) -> None:
    """Run a command for at most `limit` seconds. It prints figures as lines of JSON, which are added to `figures`."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    # The part may have started servers and compilers, which belong to its session.
    timer = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    try:
        for line in process.stdout:
            print(f"{time.monotonic() - began:6.1f} s  {line}", end="", flush=True)
            if line.startswith("{"):
                figures.update(json.loads(line))
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if code:
        reason = "ended after its time limit" if code == -signal.SIGKILL else f"failed with {code}"
        print(f"{name}: {reason}; the figures so far count", flush=True)


def table(figures: Figures) -> str:
    """Return the main figures as a Markdown table: ours, ours compiled, stock, stock compiled, the floor."""
    kinds = ("ours", "ours_compiled", "stock", "stock_compiled", "floor")
    names = {
        "K_LMS": "one picture, K_LMS 50 steps, s",
        "UNI_PC": "one picture, UNI_PC 20 steps, s",
        "large": "four pictures of 1024 x 1024, 10 steps, s",
        "unet_2": "a UNet call of 2 rows, ms",
        "unet_32": "a UNet call of 32 rows, ms",
        "engine_8": "8 requests of 20 steps, pictures/s",
        "engine_32": "32 requests of 20 steps, pictures/s",
        "http_8": "8 clients, 20 steps, pictures/s",
        "ready": "until it is ready, s",
    }
    rows = [f"| {figures.get('card', '')} | {' | '.join(kind.replace('_', ' ') for kind in kinds)} |"]
    rows.append("|---" * (1 + len(kinds)) + "|")
    for name, text in names.items():
        if name.startswith("engine") and "UNI_PC_stock" in figures:  # which draws one after the other
            figures = figures | {f"{name}_stock": round(1 / figures["UNI_PC_stock"], 2)}
        rows.append(f"| {text} | {' | '.join(str(figures.get(f'{name}_{kind}', '')) for kind in kinds)} |")
    return "\n".join(rows)


def draw_plot(file: Path, figures: Figures) -> None:
    """Draw the milliseconds per row of UNet calls, and the pictures per second of requests, into an image file."""

    def curves(what: str, per: bool) -> dict[str, tuple[list[int], list[float]]]:
        found: dict[str, dict[int, float]] = {}
        for name, value in figures.items():
            if name.startswith(f"{what}_"):
                number, kind = name.removeprefix(f"{what}_").split("_", 1)
                found.setdefault(kind.replace("_", " "), {})[int(number)] = value / int(number) if per else value
        return {kind: (list(points), list(points.values())) for kind, points in found.items()}

    charts = {"UNet, ms per row": curves("unet", True), "pictures per second": curves("engine", False)}
    plot(file, "o-", "rows in a call, or requests at once", charts)
