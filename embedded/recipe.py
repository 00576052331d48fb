"""Train a model like `weights/embedded` from nothing: `python -m jsd train embedded`, or `script/train-embedded`.

The steps: drawings, rendered pictures, closed-form latents, autoencoder, safety checker, an English text encoder, the
stage `base` on English captions, `stage1` and `stage2` on Japanese captions (see `jsd.train.stages`), the model folder.
Every training writes its checkpoints and its curve (`*.jsonl`) into the work folder. A run that was stopped resumes
when the command is given again. docs/embedded.md tells how long each step takes.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler

from embedded import autoencoder, networks, safety_checker
from embedded.captions import ENGLISH, JAPANESE, Language
from embedded.drawings import ICON_SETS, fetch, load_drawings
from embedded.text_to_image import BATCH, StagePlan, pretrain_text, train_stage
from embedded.training_data import TrainingData
from jsd import model
from jsd.genuine.folder import check_target
from jsd.train.export import export
from jsd.train.options import check_folder
from jsd.train.trainer import Plan, make_accelerator

DEFAULTS = {
    "width": 256,
    "height": 256,
    "num_inference_steps": 8,  # this and the next two were chosen by docs/sampling.md
    "guidance_scale": 2.0,
    "scheduler": "UNI_PC",
}
# Plan and batch size for each segment of the decoder: up to 32, 64, 128 and 256 pixels.
DECODER = [
    (Plan(1500, 3e-3, seed=1), 32),
    (Plan(500, 2e-3, seed=2), 16),
    (Plan(400, 2e-3, seed=3), 12),
    (Plan(1200, 1.5e-3, seed=4, ema=0.995), 8),
]
ENCODER = Plan(1200, 2e-3, warmup=50, seed=6, ema=0.99)
SAFETY = Plan(2500, 2e-3, warmup=100, seed=9, ema=0.99)
TEXT = Plan(2000, 1.5e-3, seed=7)
# A UNet learns to use the caption at noisy timesteps, where only the caption says what the picture shows. In stage 2 it
# already can. There it needs more of the timesteps with little noise, which decide how clean the background becomes.
STAGES = {
    "base": StagePlan(Plan(8000, 1.5e-3, seed=8, ema=0.999, save_every=500), share_of_two=0.25, noisy=(0.2, 0.8)),
    "stage1": StagePlan(Plan(2500, 1.5e-3, seed=10, ema=0.998, save_every=500), share_of_two=0.25, noisy=(0.2, 0.8)),
    "stage2": StagePlan(Plan(11000, 1e-3, seed=11, ema=0.999, save_every=500), share_of_two=0.15, noisy=(0.5, 1.0)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m jsd train embedded` to `parser`."""
    parser.description = "Train the model of weights/embedded from nothing to a model folder."
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="checkpoints, curves, icons (default: runs)")
    parser.add_argument(
        "--to", type=Path, default=Path("weights/embedded"), help="where the model goes (default: weights/embedded)"
    )
    parser.add_argument("--columns", type=Path, metavar="FOLDER", help="also export base and stage1 into this folder")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def run(arguments: argparse.Namespace) -> None:
    """Run all steps of the training and write the model folder. Raises `InputError` or `WeightsError` for a folder that
    can't be written, and `TrainingError` if the work folder was made from other drawings, names, styles or captions.
    """
    check_folder("--workdir", arguments.workdir)
    targets = {"--to": arguments.to}
    if arguments.columns:
        targets |= {f"--columns ({name})": arguments.columns / name for name in ("base", "stage1")}
    for option, folder in targets.items():  # now, because it takes hours until they are written
        check_folder(option, folder)
        check_target(folder)
    fetch(arguments.workdir / "icons")
    drawings = load_drawings(arguments.workdir / "icons")
    accelerator = make_accelerator(arguments.cpu)
    data = TrainingData.prepare(arguments.workdir / "embedded", drawings, accelerator.device)

    torch.manual_seed(0)
    vae = networks.make_vae()
    autoencoder.train_decoder(vae, data.index.images, data.latents, DECODER, data.work, accelerator)
    autoencoder.train_encoder(vae, data.index.images, data.latents, ENCODER, data.work, accelerator, batch=4)
    checker = safety_checker.train(data.drawings, data.index, SAFETY, data.work, accelerator)

    torch.manual_seed(0)
    unet = networks.make_unet()
    english, japanese = (networks.make_text_encoder(data.tokenizer(language)) for language in (ENGLISH, JAPANESE))
    pretrain_text(english, data.batches(ENGLISH, STAGES["base"].share_of_two), TEXT, data.work, accelerator)
    parts = {"unet": unet, "vae": vae, "safety_checker": checker}
    for name, text_encoder, language in (
        ("base", english, ENGLISH),
        ("stage1", japanese, JAPANESE),
        ("stage2", japanese, JAPANESE),
    ):
        train_stage(name, STAGES[name], data, language, text_encoder, unet, accelerator, terms_before(name))
        if name == "stage2":
            _write(arguments.to, data, {"text_encoder": text_encoder, **parts}, language, name, accelerator.device)
        elif arguments.columns:
            folder = arguments.columns / name
            _write(folder, data, {"text_encoder": text_encoder, **parts}, language, name, accelerator.device)


def terms_before(name: str) -> dict[str, dict]:
    """Return a dict from the name of each training before stage `name` to its terms (steps, learning rate ...). The
    stage's checkpoints record this dict, because the weights that the stage starts from depend on these trainings.
    """
    return {"text": TEXT.terms(), **{stage: STAGES[stage].plan.terms() for stage in _stages_until(name)[:-1]}}


def _stages_until(name: str) -> list[str]:
    return list(STAGES)[: list(STAGES).index(name) + 1]


def _write(
    folder: Path,
    data: TrainingData,
    parts: dict[str, torch.nn.Module],
    language: Language,
    stage: str,
    device: torch.device,
) -> None:
    """Write the model folder of a stage. For the last stage the safety checker is calibrated first, on `device`."""
    scheduler, processor = data.work / "scheduler", data.work / "feature_extractor"
    DDIMScheduler(**networks.NOISE_SCHEDULE, set_alpha_to_one=False, steps_offset=1).save_pretrained(scheduler)
    networks.make_image_processor().save_pretrained(processor)
    copied = {"tokenizer": data.tokenizer_folder(language), "scheduler": scheduler, "feature_extractor": processor}
    name = "jsd-embedded" if stage == "stage2" else f"jsd-embedded-{stage}"
    manifest = (name, DEFAULTS, about(len(data.index.images), stage))
    if stage == "stage2":
        export(data.work / "uncalibrated", parts, copied, *manifest)
        components = model.load(data.work / "uncalibrated", device, torch.float32)
        safety_checker.calibrate(components, data.drawings)
        parts["safety_checker"] = components.safety_checker
    export(folder, parts, copied, *manifest)
    print(f"wrote {folder}")


def about(pictures: int, stage: str) -> dict[str, Any]:
    """Return the manifest's entries about the training, the data and their licences."""
    steps = ", ".join(f"{name} {STAGES[name].plan.steps}" for name in _stages_until(stage))
    return {
        "training": f"script/train-embedded: {pictures} pictures; steps of {BATCH}: {steps}; v-prediction",
        "data": {name: f"{package} {version}: {licence}" for name, (package, version, licence) in ICON_SETS.items()},
        "names": "embedded/concepts.tsv, with Unicode CLDR annotations (Unicode-3.0) as a source",
        "licence": "Apache-2.0",
        "held_out": "one (concept, style) pair in ten, one pair of concepts in ten: embedded.pictures",
    }
