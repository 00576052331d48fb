"""The embedded model, from nothing to a folder: `python -m jsd train embedded` (or `script/train-embedded`).

Drawings -> pictures -> closed-form latents -> an English text encoder that knows pictures -> `base` (English) ->
`stage1` -> `stage2` (Japanese; see `jsd.train.stages`) -> autoencoder -> safety checker -> `weights/embedded`. Every
stage writes its checkpoints and its curve (`*.jsonl`, `*.png`) to the work folder; run it again and it goes on where it
stopped. `--columns FOLDER` also exports what each stage left, for the evaluation.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel

from embedded import autoencoder, pictures, safety_checker, text_to_image
from embedded.captions import ENGLISH, JAPANESE, Language
from embedded.drawings import ICON_SETS, fetch, load_drawings
from embedded.studio import Studio, check_sources, encode_all
from jsd import model
from jsd.genuine.folder import check_target
from jsd.train.export import export
from jsd.train.plots import draw_curve
from jsd.train.stages import train_stage
from jsd.train.trainer import Plan, make_accelerator

DEFAULTS = {
    "width": 256,
    "height": 256,
    "num_inference_steps": 8,
    "guidance_scale": 2.0,
    "scheduler": "UNI_PC",  # these three by docs/sampling.md
}
# (plan, batch size) for the decoder up to 32, 64, 128 and 256 pixels.
DECODER = [
    (Plan(1500, 3e-3, seed=1), 32),
    (Plan(500, 2e-3, seed=2), 16),
    (Plan(400, 2e-3, seed=3), 12),
    (Plan(1200, 1.5e-3, seed=4, ema=0.995), 8),
]
ENCODER = Plan(1200, 2e-3, warmup=50, seed=6, ema=0.99)
SAFETY = Plan(2500, 2e-3, warmup=100, seed=9, ema=0.99)
TEXT = Plan(2000, 1.5e-3, seed=7)
BATCH = 64


@dataclass(frozen=True)
class Course:
    """How a stage is trained: `two` is the share of pictures of two things; timesteps, as a share of the last, are a
    uniform number from 0 to 1 to the power of `noisy`, from the first step's to the last's: 1 is all alike, less more
    of the noisy ones.
    """

    plan: Plan
    two: float
    noisy: tuple[float, float]


# A UNet that can't read yet learns to on noisy steps, where only the caption tells what the picture shows. Stage 2 has
# one that can, and wants more of the steps with little noise, which decide how clean a ground is.
STAGES = {
    "base": Course(Plan(8000, 1.5e-3, seed=8, ema=0.999, save_every=500), two=0.25, noisy=(0.2, 0.8)),
    "stage1": Course(Plan(2500, 1.5e-3, seed=10, ema=0.998, save_every=500), two=0.25, noisy=(0.2, 0.8)),
    "stage2": Course(Plan(11000, 1e-3, seed=11, ema=0.999, save_every=500), two=0.15, noisy=(0.5, 1.0)),
}


def before(name: str) -> dict[str, dict]:
    """The plans that a stage of STAGES builds on: with others it would begin from other weights."""
    earlier = list(STAGES)[: list(STAGES).index(name)]
    return {"text": TEXT.terms(), **{stage: STAGES[stage].plan.terms() for stage in earlier}}


def run_stage(
    name: str, studio: Studio, language: Language, text_encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> None:
    """Train one of STAGES on captions in `language`, with a preview and the curve drawn at every checkpoint."""
    course = STAGES[name]
    plan, data = course.plan, studio.data(language, course.two)
    scheduler = DDPMScheduler(**text_to_image.NOISE_SCHEDULE)
    last = scheduler.config.num_train_timesteps
    unet.set_attn_processor(AttnProcessor())  # on 4 x 4 positions plain attention trains faster than the fused kernel

    def timestep(t: torch.Tensor, step: int) -> torch.Tensor:
        first, final = course.noisy
        return (last * (t / last) ** (first + (final - first) * step / plan.steps)).long()

    def show(step: int) -> None:
        file = studio.work / f"{name}-preview-{step:06d}.png"
        studio.preview(language, text_encoder, unet, file)
        draw_curve(studio.work / f"{name}.jsonl", studio.work / f"{name}.png")

    train_stage(
        name,
        text_encoder,
        unet,
        scheduler,
        lambda step, rng: data.draw(BATCH, rng),
        data.ids([""])[0],
        plan,
        studio.work,
        make_accelerator(cpu=True),
        timestep=timestep,
        on_save=show,
        terms={"batch": BATCH, "two": course.two, "noisy": course.noisy, "after": before(name)},
    )
    unet.set_default_attn_processor()
    unet.requires_grad_(True)
    text_encoder.requires_grad_(True)


def about(count: int, *stages: str) -> dict:
    """What the manifest says of the training, the data and their licences."""
    steps = ", ".join(f"{name} {STAGES[name].plan.steps}" for name in stages)
    return {
        "training": f"script/train-embedded: {count} pictures; steps of {BATCH}: {steps}; v-prediction",
        "data": {name: f"{package} {version}: {licence}" for name, (package, version, licence) in ICON_SETS.items()},
        "names": "jsd/train/concepts.tsv, with Unicode CLDR annotations (Unicode-3.0) as a source",
        "licence": "Apache-2.0",
        "held_out": "one (concept, style) pair in ten, one pair of concepts in ten: embedded.pictures",
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m jsd train embedded", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="checkpoints, curves, icons (default: runs)")
    parser.add_argument("--to", type=Path, default=Path("weights/embedded"), help="where the model goes")
    parser.add_argument("--columns", type=Path, metavar="FOLDER", help="also export base and stage1 into this folder")
    args = parser.parse_args(argv)
    work = args.workdir / "embedded"
    check_target(args.to)
    fetch(args.workdir / "icons")
    drawings = load_drawings(args.workdir / "icons")
    check_sources(work, drawings)
    index = pictures.build(work, drawings)
    accelerator = make_accelerator(cpu=True)
    latents = autoencoder.LinearLatents.cached(work / "latents.pt", index.images)
    studio = Studio(work, drawings, index, latents, encode_all(latents, index.images, work / "encoded.pt"))

    torch.manual_seed(0)
    vae = autoencoder.make_vae()
    autoencoder.train_decoder(vae, index.images, latents, DECODER, work, accelerator)
    autoencoder.train_encoder(vae, index.images, latents, ENCODER, work, accelerator, batch=4)
    checker = safety_checker.train(drawings, index, SAFETY, work, accelerator)

    def write(folder: Path, text_encoder: CLIPTextModel, language: Language, *stages: str) -> None:
        scheduler = work / "scheduler"
        DDIMScheduler(**text_to_image.NOISE_SCHEDULE, set_alpha_to_one=False, steps_offset=1).save_pretrained(scheduler)
        safety_checker.image_processor().save_pretrained(work / "feature_extractor")
        copied = {
            "tokenizer": studio.tokenizer_folder(language),
            "scheduler": scheduler,
            "feature_extractor": work / "feature_extractor",
        }
        parts = {"text_encoder": text_encoder, "unet": unet, "vae": vae, "safety_checker": checker}
        name = "jsd-embedded" if stages[-1] == "stage2" else f"jsd-embedded-{stages[-1]}"
        manifest = (name, DEFAULTS, about(len(index.images), *stages))
        if stages[-1] == "stage2":
            export(work / "uncalibrated", parts, copied, *manifest)
            components = model.load(work / "uncalibrated")
            safety_checker.calibrate(components, drawings)
            parts["safety_checker"] = components.safety_checker
        export(folder, parts, copied, *manifest)
        print(f"wrote {folder}")

    torch.manual_seed(0)
    unet = text_to_image.make_unet()
    english, japanese = (
        text_to_image.make_text_encoder(studio.tokenizer(language)) for language in (ENGLISH, JAPANESE)
    )
    text_to_image.pretrain_text(english, studio.data(ENGLISH, STAGES["base"].two), TEXT, work, accelerator)
    run_stage("base", studio, ENGLISH, english, unet)
    if args.columns:
        write(args.columns / "base", english, ENGLISH, "base")
    run_stage("stage1", studio, JAPANESE, japanese, unet)
    if args.columns:
        write(args.columns / "stage1", japanese, JAPANESE, "base", "stage1")
    run_stage("stage2", studio, JAPANESE, japanese, unet)
    write(args.to, japanese, JAPANESE, "base", "stage1", "stage2")
