"""A model of the true sizes of Stable Diffusion v1.4 with random weights, and what converting, loading and sampling it
costs in time and memory, beside stock diffusers with the same files.

    script/make-fullsize DIR                 the model, in the layout of 2022: 5.3 GB
    script/bench-fullsize DIR [--repeats 3] [--train]
                                             convert it into DIR.converted, then load and sample it, peers in turn;
                                             and train it for two steps a stage

Every figure comes from a process of its own; the last line is JSON.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import single
from bench.serving import ROOT

STEPS = 2
TRAIN_SIZE = 256


def make(folder: Path) -> None:
    """Write the model: UNet 859.5 M, VAE 83.7 M, text encoder of CLIP ViT-L with 32,000 tokens, its safety checker."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from tqdm import tqdm
    from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

    from tests.genuine.layout_2022 import write_part, write_rest

    if folder.exists():
        raise FileExistsError(f"{folder}: is there already; remove it or name another folder")
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    channels = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "text_encoder": lambda: CLIPTextModel(
            CLIPTextConfig(**text, vocab_size=32_000, max_position_embeddings=77, hidden_act="quick_gelu")
        ),
        "unet": lambda: UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        ),
        "vae": lambda: AutoencoderKL(
            **channels,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        "safety_checker": lambda: StableDiffusionSafetyChecker(
            CLIPConfig(
                text_config={**text, "vocab_size": 49_408},
                vision_config={**vision, "image_size": 224, "patch_size": 14},
                projection_dim=768,
            )
        ),
    }
    torch.manual_seed(0)
    work = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    for part, build in tqdm(builders.items(), "parts"):
        write_part(work, part, build())
    spiece = ROOT / "weights" / "embedded" / "tokenizer" / "spiece.model"
    write_rest(work, spiece, {"do_lower_case": False, "extra_ids": 0, "model_max_length": 77}, 224)
    work.rename(folder)


def convert(folder: Path, mark: Callable[[str], None]) -> None:
    from jsd.genuine.convert import convert

    mark("import")
    convert(folder, converted(folder))
    mark("convert")


def train(stage: str, folder: Path, mark: Callable[[str], None]) -> None:
    """Two steps of a stage on one picture of TRAIN_SIZE pixels, with gradient checkpointing, then its checkpoint."""
    import torch

    from bench.training import make_pictures
    from jsd.train import run_stage

    mark("import")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        (work / "shards").mkdir()
        make_pictures(work / "shards", TRAIN_SIZE, pictures=8, shards=1)
        (work / "prompts").write_text("")  # no samples
        flags = {
            "stage": stage,
            "model": converted(folder),
            "shards": work / "shards",
            "prompts": work / "prompts",
            "out": work / "run",
            "steps": STEPS,
            "batch": 1,
            "size": TRAIN_SIZE,
            "workers": 0,
        }
        if stage == "stage1":
            flags["tokenizer"] = ROOT / "weights" / "embedded" / "tokenizer"
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        run_stage.main([*words, "--cpu", "--gradient-checkpointing"])
        rows = [json.loads(line) for line in (work / "run" / f"{stage}.jsonl").read_text().splitlines()]
        assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)
    mark("train")


PHASES = {
    "convert": convert,
    "stage1": partial(train, "stage1"),
    "stage2": partial(train, "stage2"),
}
TRAINED = ("stage1", "stage2")


def converted(folder: Path) -> Path:
    return folder.with_name(folder.name + ".converted")


def run_phase(name: str, folder: Path) -> None:
    """In a child: seconds of each part, and the peak of the resident memory in bytes, as one line of JSON."""
    last, seconds = time.perf_counter(), {}

    def mark(part: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[part], last = round(now - last, 2), now

    PHASES[name](folder, mark)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**seconds, "peak": peak}))


def measure(folder: Path, repeats: int, trained: bool) -> dict[str, object]:
    """All phases, the peers in turn: medians of seconds, the largest peaks."""
    found: dict[str, object] = {}
    for name in ("convert", *(TRAINED if trained else ())):
        command = [sys.executable, "-m", "bench.fullsize", "phase", name, str(folder)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:8}{found[name]}", file=sys.stderr)
    start = single.measured(("start-ours", "start-stock", "start-floor"), converted(folder), 2 * repeats)
    drawn = single.measured(("draw-ours", "draw-stock"), converted(folder), repeats)
    largest = max(path.stat().st_size for path in folder.rglob("*.bin"))
    seconds = {phase.removeprefix("start-"): row["seconds"] for phase, row in start.items()}
    return {
        **found,
        **start,
        **drawn,
        "largest_component": largest,
        "convert_peak_ratio": round(found["convert"]["peak"] / largest, 3),
        "start_ratio_to_stock": round(seconds["ours"] / seconds["stock"], 3),
        "start_ratio_to_read": round(seconds["ours"] / seconds["floor"], 3),
        "memory_ratio_to_stock": round(drawn["draw-ours"]["peak"] / drawn["draw-stock"]["peak"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder", type=Path)
    phase = commands.add_parser("phase")
    phase.add_argument("name", choices=PHASES)
    phase.add_argument("folder", type=Path)
    whole = commands.add_parser("measure")
    whole.add_argument("folder", type=Path)
    whole.add_argument("--repeats", type=int, default=3)
    whole.add_argument("--train", action="store_true", help="two steps of each stage too: 22 GB of memory, 20 of disk")
    args = parser.parse_args()
    if args.command == "make":
        make(args.folder)
    elif args.command == "phase":
        run_phase(args.name, args.folder)
    else:
        print(json.dumps(measure(args.folder.resolve(), args.repeats, args.train)))


if __name__ == "__main__":
    main()
