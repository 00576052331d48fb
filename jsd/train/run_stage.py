"""Train a Stable Diffusion 1.x model folder on webdataset shards, in the stage base, stage1 or stage2:

    accelerate launch -m jsd train loop --stage stage1 --model weights/stable-diffusion-v1-4 \\
        --tokenizer runs/tokenizer --shards 'data/{00000..00999}.tar' --out runs/stage1 --steps 100000 --batch 16
    python -m jsd train export runs/stage1 weights/stage1

Then train --stage stage2 --model weights/stage1 in the same way. `accelerate config` sets the number of processes
(DDP) and the precision. Run the same command again to resume a run that was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import ProjectConfiguration, gather_object

from jsd import sampling
from jsd.atomic import atomic_file, write_text
from jsd.errors import InputError, TrainingError, shown
from jsd.images import sheet
from jsd.language import Text
from jsd.model import cell_of
from jsd.request import Defaults, Request
from jsd.train.checkpoints import find_checkpoints
from jsd.train.data import Shards, Stream
from jsd.train.options import (
    MAX_BATCH,
    MAX_SEED,
    MAX_SIDE,
    check_folder,
    memory_explained,
    number,
    read_lines,
    read_record,
    whole,
)
from jsd.train.parts import Parts, check_size, in_training, load_parts
from jsd.train.plots import draw_curve
from jsd.train.shards import find_shards
from jsd.train.stages import STAGES, freeze, latents_of, noise_schedule, train_stage
from jsd.train.trainer import Plan, make_accelerator

RUN_FILE = "run.json"
# The settings that a resumed run has to share.
SAME = (
    *("stage", "model", "tokenizer", "urls", "size", "random_crop", "batch", "accumulate", "seed"),
    *("steps", "lr", "warmup", "ema", "dropout", "min_snr", "muon"),
)
PROMPTS = ("猫の肖像画 油絵", "サラリーマン 油絵", "富士山", "東京タワー", "桜", "寿司")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = Text(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--stage", choices=list(STAGES), required=True, help="see docs/training.md")
    add("--model", type=Path, required=True, help="a diffusers folder of Stable Diffusion 1.x, or one of ours")
    add("--tokenizer", type=Path, help="the tokenizer of a new text encoder (python -m jsd train tokenizer)")
    add("--shards", required=True, help="a folder of *.tar, or a pattern such as data/{00000..00099}.tar")
    add("--out", type=Path, required=True, help="where checkpoints, curve and samples are written")
    add("--steps", type=whole(), required=True, help="of the whole run")
    add("--batch", type=whole(most=MAX_BATCH), default=8, help="pictures per process and batch (default: %(default)s)")
    add(
        "--accumulate",
        type=whole(most=MAX_BATCH),
        default=1,
        help="batches per process and step (default: %(default)s)",
    )
    add("--size", type=whole(most=MAX_SIDE), default=512, help="width and height in pixels (default: %(default)s)")
    add("--lr", type=number(positive=True), help="the peak of the learning rate; the default depends on the stage")
    add("--warmup", type=whole(0), default=500, help="steps until the peak of the learning rate (default: %(default)s)")
    add("--muon", type=number(positive=True), help="train matrices with Muon, at this peak of its learning rate")
    add(
        "--dropout",
        type=number(0, 1),
        default=0.1,
        help="the share of captions left out, for guidance, 0 to 1 (default: %(default)s)",
    )
    add("--min-snr", type=number(positive=True), help="gamma of min-SNR weighting, e.g. 5; default: no weighting")
    add(
        "--ema",
        type=number(0, 1),
        default=0.9999,
        help="the largest decay of the averaged weights, 0 to 1 (default: %(default)s)",
    )
    add("--seed", type=whole(0, MAX_SEED), default=0, help="default: %(default)s")
    add(
        "--workers",
        type=whole(0),
        default=4,
        help="processes that read pictures, per training process; 0: the training process (default: %(default)s)",
    )
    add("--save-every", type=whole(), default=1000, help="steps between checkpoints (default: %(default)s)")
    add("--random-crop", action="store_true", help="crop at a random place; default: the middle")
    add("--gradient-checkpointing", action="store_true", help="use less memory and a third more time")
    add("--prompts", type=Path, help="a file of prompts to draw at every checkpoint, one per line; empty: none")
    add("--log-with", choices=["tensorboard"], help="also write the curve for this program")
    add("--cpu", action="store_true", help="do not use a GPU")


def run(arguments: argparse.Namespace) -> None:
    """Train one stage, or resume it. Wrong settings and model folders raise a `JSDError` before the first step."""
    check_folder("--out", arguments.out)
    tracking: dict[str, Any] = {}
    if arguments.log_with == "tensorboard":
        logs = ProjectConfiguration(logging_dir=arguments.out / "logs")
        tracking = {"log_with": "tensorboard", "project_config": logs}
    accelerator = make_accelerator(arguments.cpu, **tracking)
    urls = find_shards(arguments.shards)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k != "run"}
    settings["urls"] = _digest(urls)
    check_same_run(arguments.out, arguments.stage, settings)
    parts = load_parts(arguments.stage, arguments.model, arguments.tokenizer)
    check_size(arguments.size, cell_of(parts.vae))
    prompts = read_lines("--prompts", arguments.prompts) if arguments.prompts else PROMPTS
    for prompt in prompts:  # so that a bad prompt is not found only at the first checkpoint
        try:
            Request(prompt).resolve(_defaults(parts, arguments.size))
        except InputError as error:
            raise InputError(
                "--prompts", "{} can't be drawn ({}); change the file, or name an empty one", shown(prompt), error
            ) from None
    shards = Shards(
        urls,
        arguments.size,
        arguments.batch,
        seed=arguments.seed,
        random_crop=arguments.random_crop,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    stream = Stream(shards, arguments.workers, arguments.out / f"skipped-{accelerator.process_index}.jsonl")
    accelerator.wait_for_everyone()  # until all processes have compared their settings with those in the folder
    arguments.out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        write_text(arguments.out / RUN_FILE, json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
    if tracking:
        accelerator.init_trackers("train")
    freeze(parts.vae, accelerator)
    if arguments.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
        parts.text_encoder.activation_checkpointing_enable()

    def show(step: int) -> None:
        draw_curve(arguments.out / f"{arguments.stage}.jsonl", arguments.out / f"{arguments.stage}.png")
        if prompts:
            draw_samples(parts, prompts, arguments.size, arguments.out / f"sample-{step:07d}.png")

    with memory_explained(Text("use a smaller --batch with more --accumulate, or --gradient-checkpointing")):
        train_stage(
            arguments.stage,
            parts.text_encoder,
            parts.unet,
            noise_schedule(parts.scheduler_config),
            latents_of(stream, parts.vae, parts.tokenizer, arguments.seed),
            torch.tensor(parts.tokenizer("").ids),
            _plan(arguments),
            arguments.out,
            accelerator,
            dropout=arguments.dropout,
            min_snr=arguments.min_snr,
            data=stream,
            on_save=show,
        )
    skipped = sum((Counter(counts) for counts in gather_object([dict(stream.skipped)])), Counter())
    if skipped and accelerator.is_main_process:
        print(Text("skipped, by reason:"), dict(skipped))
    accelerator.end_training()


def check_same_run(out: Path, stage: str, settings: dict[str, Any]) -> None:
    """Raise `TrainingError` if `out` has checkpoints of `stage` from a run whose settings (those in SAME) differ."""
    if not (out / RUN_FILE).exists() or not find_checkpoints(out, stage):
        return
    before = read_record(out / RUN_FILE)
    for name in SAME:
        if before.get(name) != settings[name]:
            raise TrainingError(
                "{}: was begun with {} {!r}, not {!r}; use the same value, or another --out",
                out,
                name,
                before.get(name),
                settings[name],
            )


def draw_samples(parts: Parts, prompts: Sequence[str], size: int, file: Path) -> None:
    """Draw a picture per prompt with the model in training, each with seed 0, and write them as one sheet to `file`."""
    components = in_training(parts, _defaults(parts, size))
    dtype = parts.vae.dtype
    parts.vae.float()
    drawn = [sampling.generate(components, Request(prompt, seed=0)).images[0] for prompt in prompts]
    parts.vae.to(dtype)
    with atomic_file(file) as part:
        sheet(drawn, min(size, 256)).save(part)


def _plan(arguments: argparse.Namespace) -> Plan:
    return Plan(
        arguments.steps,
        arguments.lr or STAGES[arguments.stage].lr,
        warmup=arguments.warmup,
        betas=(0.9, 0.999),
        ema=arguments.ema,
        seed=arguments.seed,
        save_every=arguments.save_every,
        accumulate=arguments.accumulate,
        muon=arguments.muon or 0.0,
    )


def _defaults(parts: Parts, size: int) -> Defaults:
    return Defaults(size, size, 20, 5.0, "DPM_SOLVER_PP_2M_KARRAS", cell=cell_of(parts.vae))


def _digest(urls: Sequence[str]) -> str:
    """Return a hash of the file names of the shards, in order. Data positions in a checkpoint depend on this order."""
    return hashlib.sha256("\n".join(Path(url).name for url in urls).encode()).hexdigest()[:16]
