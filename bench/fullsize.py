"""Make a model of the sizes of Stable Diffusion v1.4 with random weights (5.3 GB), or measure our code with it.

`make` writes it in the layout of 2022. `measure` measures its conversion into DIR.converted, and a start and a drawing
of ours and of stock diffusers with the converted files. Figures are seconds, peak memory in bytes, and their ratios.
"""

import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bench import ROOT, phases

TOKENIZER = ROOT / "weights" / "embedded" / "tokenizer"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("make", "measure"), help="measure converts the model into DIR.converted")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--repeats", type=int, default=3, help="drawings; starts are twice as many (default: 3)")
    parser.add_argument("--train", action="store_true", help="two steps of both stages: 22 GB of memory, 20 of disk")


def run(arguments: Namespace) -> dict[str, object]:
    folder = arguments.folder.resolve()
    if arguments.action == "measure":
        return measure(folder, arguments.repeats, arguments.train)
    from tests.genuine.full_size import write_full_size

    write_full_size(folder, TOKENIZER / "spiece.model")
    return {"folder": str(folder)}


def measure(folder: Path, repeats: int, trained: bool) -> dict[str, object]:
    converted = folder.with_name(folder.name + ".converted")
    found = {"convert": phases.run([sys.executable, "-m", "jsd", "weights", "convert", folder, converted], folder)}
    for stage in ("stage1", "stage2") if trained else ():
        found[stage] = train(stage, converted)
    found |= phases.measure(("start_ours", "start_stock", "start_floor"), converted, 2 * repeats)
    found |= phases.measure(("draw_ours", "draw_stock"), converted, repeats)
    largest = max(path.stat().st_size for path in folder.rglob("*.bin"))
    return {
        **found,
        "largest_component": largest,
        "convert_peak_ratio": round(found["convert"]["peak"] / largest, 3),
        "start_ratio_to_stock": phases.ratio(found, "seconds", "start_ours", "start_stock"),
        "start_ratio_to_read": phases.ratio(found, "seconds", "start_ours", "start_floor"),
        "memory_ratio_to_stock": phases.ratio(found, "peak", "draw_ours", "draw_stock"),
    }


def train(stage: str, folder: Path) -> dict[str, float]:
    """Run two training steps of `stage` on the CPU, batch size 1, 256 x 256. Returns "seconds" and "peak" in bytes."""
    from bench.train import make_pictures

    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        make_pictures(Path(work), size=256, pictures=8, shards=1)
        command = [sys.executable, "-m", "jsd", "train", "loop", "--stage", stage, "--model", folder, "--shards", work]
        command += ["--out", f"{work}/run", "--prompts", os.devnull, "--steps", "2", "--batch", "1", "--size", "256"]
        command += ["--workers", "0", "--cpu", "--gradient-checkpointing"]
        command += ["--tokenizer", TOKENIZER] if stage == "stage1" else []
        return phases.run(command, folder)
