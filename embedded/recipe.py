"""Train a model like `weights/embedded` from nothing: `python -m jsd train embedded`, or `script/train-embedded`.

The phases (`embedded.phases`): icons and sprites, two tokenizers, the autoencoder (while processes render the scenes),
latents, the stages `base` (English), `stage1` and `stage2` (Japanese, see `jsd.train.stages`), the safety checker, the
model folder. Every phase ends by time, and --minutes is shared out between them. The trainings write checkpoints,
curves and pictures of the same prompts into the work folder. A run that was stopped resumes when the command is given
again.
"""

import argparse
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from embedded import budget, networks, spellings
from embedded.phases import STAGES, Run, noise_scheduler, spent
from embedded.safety_examples import FLAGGED
from embedded.scenes.concepts import CONCEPTS_FILE
from embedded.scenes.icons import ICON_SETS, fetch
from jsd.cpu import cores
from jsd.errors import InputError, shown
from jsd.genuine.folder import check_target
from jsd.language import Text
from jsd.manifest import MANIFEST, read_json
from jsd.request import Defaults
from jsd.train.export import export
from jsd.train.options import check_folder, memory_explained, number
from jsd.train.parts import Parts, load_parts
from jsd.train.trainer import check_single, make_accelerator

DEFAULTS = {
    "width": networks.SIDE,
    "height": networks.SIDE,
    "num_inference_steps": 12,  # this and the next two were chosen by measurement (docs/embedded.md)
    "guidance_scale": 4.0,
    "scheduler": "K_EULER_ANCESTRAL",
}
TINY_MINUTES = 0.5
TINY_CONCEPTS = 20  # the first ones of the table, and those that the safety checker flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m jsd train embedded` to `parser`."""
    parser.description = Text("Train the model of weights/embedded from nothing to a model folder.")
    add = parser.add_argument
    add("--workdir", type=Path, default=Path("runs"), help="icons, scenes, checkpoints, curves (default: runs)")
    add("--to", type=Path, help="where the model goes (default: weights/embedded, with --tiny a folder in --workdir)")
    add("--columns", type=Path, metavar="FOLDER", help="also export base and stage1 into this folder")
    add("--minutes", type=number(positive=True), help="how long all of it may take (default on a GPU: 30)")
    add("--resume", type=Path, metavar="FOLDER", help="go on from the weights of this model, with stage2 (or stage1)")
    add("--tiny", action="store_true", help="run all phases in a minute or two; the model is useless")
    add("--yes", action="store_true", help="begin although there is no GPU")
    add("--cpu", action="store_true", help="do not use a GPU")
    add("--eager", action="store_true", help="do not compile the networks on a GPU")


def run(arguments: argparse.Namespace) -> None:
    """Run all phases and write the model folder. Raises `InputError` or `WeightsError` for a folder that can't be read
    or written and for a machine without a GPU, and `TrainingError` if the work folder was made from other scenes.
    """
    work = arguments.workdir / ("embedded-tiny" if arguments.tiny else "embedded")
    target = arguments.to or (work / "model" if arguments.tiny else Path("weights/embedded"))
    targets = {"--to": target}
    if arguments.columns:
        targets |= {f"--columns ({name})": arguments.columns / name for name in STAGES[:-1]}
    check_folder("--workdir", arguments.workdir)
    for option, folder in targets.items():  # now, because it takes long until they are written
        check_folder(option, folder)
        check_target(folder)
    if arguments.resume and not arguments.resume.is_dir():
        raise InputError("--resume", "{} is no folder; name a model folder", shown(str(arguments.resume)))
    before = load_parts("stage2", arguments.resume, None) if arguments.resume else None
    gpu = torch.cuda.is_available() and not arguments.cpu
    scale = budget.TINY if arguments.tiny else budget.GPU if gpu else budget.CPU
    minutes = arguments.minutes or (TINY_MINUTES if arguments.tiny else budget.MINUTES)
    if scale is budget.CPU:
        whole = budget.estimate()
        minutes = arguments.minutes or whole
        if not arguments.yes:
            raise InputError(
                "--yes",
                "there is no GPU, and on these {} cores the whole training would take about {}. Add --yes to begin it, "
                "with --minutes N to end it earlier with a worse model. --tiny runs all phases in a minute or two",
                cores(),
                budget.spoken(whole),
            )
    accelerator = make_accelerator(arguments.cpu, bf16_on_cpu=False)
    check_single(accelerator)
    fetch(arguments.workdir / "icons")
    work.mkdir(parents=True, exist_ok=True)
    table = _tiny_table(work / "concepts.tsv") if arguments.tiny else CONCEPTS_FILE
    clock = budget.Budget(minutes, spent(work))
    icons, compiled = arguments.workdir / "icons", gpu and not arguments.eager
    training = Run(work, scale, clock, accelerator, icons, table, Defaults(**DEFAULTS, cell=networks.CELL), compiled)
    training.check_sources(arguments.resume)

    def write(stage: str, parts: Parts, tokenizer: Path, checker: StableDiffusionSafetyChecker | None) -> None:
        folder = target if stage == STAGES[-1] else arguments.columns and arguments.columns / stage
        if folder:
            _write(folder, stage, parts, tokenizer, checker or networks.make_checker(), training)

    with memory_explained(Text("use a GPU with more memory, or --cpu")):
        training.train(arguments.resume, before, _first(arguments.resume), write)


def _first(resumed: Path | None) -> str:
    """Return the stage that a run begins with: after a model of `base` it is stage1, after any other stage2."""
    if not resumed:
        return STAGES[0]
    manifest = read_json(resumed / MANIFEST) if (resumed / MANIFEST).is_file() else {}
    return "stage1" if manifest.get("stage") == "base" else "stage2"


def _tiny_table(file: Path) -> Path:
    """Write a table of the first TINY_CONCEPTS concepts and those of FLAGGED, and return it."""
    head, *rows = CONCEPTS_FILE.read_text("utf-8").splitlines()
    flagged = [row for row in rows[TINY_CONCEPTS:] if row.split("\t")[0] in FLAGGED]
    file.write_text("\n".join([head, *rows[:TINY_CONCEPTS], *flagged]) + "\n", "utf-8")
    return file


def _write(
    folder: Path, stage: str, parts: Parts, tokenizer: Path, checker: StableDiffusionSafetyChecker, training: Run
) -> None:
    """Write the model folder of a stage."""
    scheduler, processor = training.work / "scheduler", training.work / "feature_extractor"
    noise_scheduler().save_pretrained(scheduler)
    networks.make_image_processor().save_pretrained(processor)
    modules = {"text_encoder": parts.text_encoder, "unet": parts.unet, "vae": parts.vae, "safety_checker": checker}
    modules = deepcopy(modules)  # the next stage goes on with these, unrounded and in the layout they are compiled for
    copied = {"tokenizer": tokenizer, "scheduler": scheduler, "feature_extractor": processor}
    if stage != STAGES[0]:  # which reads English
        copied["tokenizer"] = spellings.beside(tokenizer, training.work / "tokenizer-spelled")
    name = "embedded" if stage == STAGES[-1] else f"embedded-{stage}"
    export(folder, modules, copied, name, DEFAULTS, about(stage, training.figures))
    print(Text("wrote {}", folder))


def about(stage: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest's entries about the training, the data and their licences."""
    return {
        "training": "script/train-embedded: autoencoder, base, stage1, stage2; v-prediction",
        "stage": stage,
        "figures": figures,
        "data": {name: f"{package} {version}: {licence}" for name, (package, version, licence) in ICON_SETS.items()},
        "names": "embedded/scenes/concepts.tsv, with Unicode CLDR annotations (Unicode-3.0) as a source",
        "licence": "Apache-2.0",
        "held_out": "one pair in ten of a concept with a style, a ground or another concept: embedded.scenes.held_out",
    }
