"""Train one stage of a Stable Diffusion 1.x folder on webdataset shards:

    accelerate launch -m jsd.train.run_stage --stage stage1 --model weights/stable-diffusion-v1-4 \\
        --tokenizer runs/tokenizer --shards 'data/{00000..00999}.tar' --out runs/stage1 --steps 100000 --batch 16
    python -m jsd train export runs/stage1 weights/stage1

then the same with --stage stage2 --model weights/stage1. Processes, precision, DDP or FSDP are accelerate's to
configure (`accelerate config`). Run the same command again and it goes on where it stopped.
"""

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, gather_object
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from jsd import sampling
from jsd.images import sheet
from jsd.manifest import MANIFEST, verify
from jsd.model import Components, read_part
from jsd.request import Defaults, Request
from jsd.tokenizer import Tokenizer
from jsd.train.data import Shards, Stream, find_shards
from jsd.train.plots import draw_curve
from jsd.train.stages import STAGES, freeze, fresh_text_encoder, latents_of, noise_schedule, train_stage
from jsd.train.trainer import Plan, checkpoints

RUN_FILE = "run.json"
# What must not change when a run is taken up again.
SAME = (
    *("stage", "model", "tokenizer", "urls", "size", "random_crop", "batch", "accumulate", "seed"),
    *("steps", "lr", "warmup", "ema", "dropout", "min_snr"),
)
PROMPTS = "猫の肖像画 油絵|サラリーマン 油絵|富士山|東京タワー|桜|寿司"


@dataclass
class Parts:
    """What a run begins with: the parts of its model folder, with the tokenizer and text encoder of its stage."""

    tokenizer: Tokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict


def load_parts(stage: str, model: Path, tokenizer_folder: Path | None) -> Parts:
    """Read the folder `model` for `stage`, in float32.

    A stage that begins with a fresh text encoder takes only its shape from the folder. Raises WeightsError for what is
    missing or does not fit, ValueError when a stage that keeps the text encoder is given another tokenizer.
    """
    fresh = STAGES[stage].fresh_text
    if (model / MANIFEST).is_file():
        verify(model)
    if tokenizer_folder and not fresh:
        raise ValueError(f"--tokenizer: {stage} keeps the text encoder of {model}, and so its tokenizer; leave it out")
    tokenizer = Tokenizer.from_folder(tokenizer_folder or model / "tokenizer")
    if fresh:
        torch.manual_seed(0)
        text_encoder = fresh_text_encoder(CLIPTextConfig.from_pretrained(model / "text_encoder"), tokenizer)
    else:
        text_encoder = read_part(model, "text_encoder", torch.float32)
    unet = read_part(model, "unet", torch.float32)
    vae = read_part(model, "vae", torch.float32)
    config = json.loads((model / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Parts(tokenizer, text_encoder, unet, vae, config)


def check_same_run(out: Path, stage: str, settings: dict) -> None:
    """Raises ValueError if `out` has checkpoints of a run with other settings, which could only be mixed up."""
    if not (out / RUN_FILE).exists() or not checkpoints(out, stage):
        return
    before = json.loads((out / RUN_FILE).read_text("utf-8"))
    for name in SAME:
        if before.get(name) != settings[name]:
            raise ValueError(
                f"{out}: was begun with {name} {before.get(name)!r}, not {settings[name]!r}; go on with the same, or "
                "take another --out"
            )


def write_run(out: Path, settings: dict) -> None:
    """Keep what a run was begun with, in one piece."""
    work = out / f"{RUN_FILE}.tmp"
    work.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", "utf-8")
    os.replace(work, out / RUN_FILE)


def _digest(urls: Sequence[str]) -> str:
    """Which shards, by name: their order decides what a position means."""
    return hashlib.sha256("\n".join(Path(url).name for url in urls).encode()).hexdigest()[:16]


def _defaults(parts: Parts, size: int) -> Defaults:
    cell = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    return Defaults(size, size, 20, 5.0, "DPM_SOLVER_PP_2M_KARRAS", cell=cell)


def draw_samples(parts: Parts, prompts: Sequence[str], size: int, file: Path) -> None:
    """Draw the prompts, seed 0 each, into one picture."""
    device = next(parts.unet.parameters()).device
    components = Components(
        name="in training",
        defaults=_defaults(parts, size),
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        scheduler_config=parts.scheduler_config,
        safety_checker=None,
        image_processor=None,
        device=device,
        dtype=torch.float32,
    )
    held = parts.vae.dtype
    parts.vae.float()
    drawn = [sampling.generate(components, Request(prompt, seed=0)).images[0] for prompt in prompts]
    parts.vae.to(held)
    sheet(drawn, min(size, 256)).save(file)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    if args.log_with == "tensorboard":
        tracking = {"log_with": "tensorboard", "project_config": ProjectConfiguration(logging_dir=args.out / "logs")}
    else:
        tracking = {}
    accelerator = Accelerator(cpu=args.cpu, **tracking)
    urls = find_shards(args.shards)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()} | {"urls": _digest(urls)}
    check_same_run(args.out, args.stage, settings)
    parts = load_parts(args.stage, args.model, args.tokenizer)
    prompts = args.prompts.read_text("utf-8").splitlines() if args.prompts else PROMPTS.split("|")
    prompts = [prompt for prompt in prompts if prompt.strip()]
    for prompt in prompts:  # told now, and not at the first checkpoint
        Request(prompt).resolve(_defaults(parts, args.size))
    accelerator.wait_for_everyone()  # all have compared
    args.out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        write_run(args.out, settings)
    if tracking:
        accelerator.init_trackers("train")
    shards = Shards(
        urls,
        args.size,
        args.batch,
        seed=args.seed,
        random_crop=args.random_crop,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    stream = Stream(shards, args.workers, args.out / f"skipped-{accelerator.process_index}.jsonl")
    freeze(parts.vae, accelerator)
    if args.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
        parts.text_encoder.gradient_checkpointing_enable()
    plan = Plan(
        args.steps,
        args.lr or STAGES[args.stage].lr,
        warmup=args.warmup,
        betas=(0.9, 0.999),
        ema=args.ema,
        seed=args.seed,
        save_every=args.save_every,
        accumulate=args.accumulate,
    )

    def show(step: int) -> None:
        draw_curve(args.out / f"{args.stage}.jsonl", args.out / f"{args.stage}.png")
        if prompts:
            draw_samples(parts, prompts, args.size, args.out / f"sample-{step:07d}.png")

    train_stage(
        args.stage,
        parts.text_encoder,
        parts.unet,
        noise_schedule(parts.scheduler_config),
        latents_of(stream, parts.vae, parts.tokenizer, args.seed),
        torch.tensor(parts.tokenizer("").ids),
        plan,
        args.out,
        accelerator,
        dropout=args.dropout,
        min_snr=args.min_snr,
        data=stream,
        on_save=show,
    )
    skipped = sum((Counter(counts) for counts in gather_object([dict(stream.skipped)])), Counter())
    if skipped and accelerator.is_main_process:
        print("skipped, by reason:", dict(skipped))
    accelerator.end_training()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a whole number from 1 is wanted")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m jsd.train.run_stage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--stage", choices=list(STAGES), required=True)
    add("--model", type=Path, required=True, help="a diffusers folder of Stable Diffusion 1.x, or one of ours")
    add("--tokenizer", type=Path, help="the new text encoder's tokenizer (python -m jsd train tokenizer)")
    add("--shards", required=True, help="a folder of *.tar, or a pattern such as data/{00000..00099}.tar")
    add("--out", type=Path, required=True, help="checkpoints, curve, samples")
    add("--steps", type=_positive, required=True)
    add("--batch", type=_positive, default=8, help="pictures a process and step (times --accumulate)")
    add("--accumulate", type=_positive, default=1)
    add("--size", type=_positive, default=512, help="pixels a side")
    add("--lr", type=float, help="default: what suits the stage")
    add("--warmup", type=int, default=500)
    add("--dropout", type=float, default=0.1, help="share of captions left out, for guidance")
    add("--min-snr", type=float, help="gamma of min-SNR weighting, e.g. 5; default: none")
    add("--ema", type=float, default=0.9999)
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=4, help="processes that read pictures, for each that trains")
    add("--save-every", type=_positive, default=1000)
    add("--random-crop", action="store_true", help="else the middle of a picture that is not square")
    add("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    add("--prompts", type=Path, help="a file of prompts to draw at every checkpoint, one a line; empty: none")
    add("--log-with", choices=["tensorboard"])
    add("--cpu", action="store_true", help="leave a GPU aside")
    return parser


if __name__ == "__main__":
    main()
