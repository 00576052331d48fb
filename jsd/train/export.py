"""Write a training run's weights as a model folder (diffusers layout), with a MANIFEST.json and a model card.

python -m jsd train export runs/stage2 weights/mine
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from jsd.errors import TrainingError, shown
from jsd.genuine.folder import LICENCES, check_target, new_folder, save_part, write_index, write_manifest
from jsd.language import Text
from jsd.manifest import MANIFEST, PICKLES, read_json
from jsd.train.checkpoints import find_checkpoints, load_average
from jsd.train.options import check_folder, read_record
from jsd.train.parts import Parts, load_parts
from jsd.train.run_stage import RUN_FILE
from jsd.train.stages import STAGES
from jsd.train.trainer import set_trained, trained

UNUSED = (*PICKLES, ".fp16.safetensors", ".msgpack")  # files in downloads that are never read
COPIED = ("vae", "scheduler", "safety_checker", "feature_extractor", "tokenizer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = Text("Export the averaged weights of the newest checkpoint of a run of train loop.")
    parser.add_argument("run_folder", type=Path, metavar="run", help="the --out of the run")
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--name", help="the name of the model; default: the name of the folder")


def run(arguments: argparse.Namespace) -> None:
    """Write the newest checkpoint of a run as a model folder. Raises `TrainingError` if the run has no checkpoint."""
    check_folder("folder", arguments.folder)
    check_target(arguments.folder)
    run_file = arguments.run_folder / RUN_FILE
    if not run_file.is_file():
        raise TrainingError("{}: no such file; give the --out of a run of train loop", run_file)
    settings = read_record(run_file, "stage", "model", "tokenizer", "batch", "accumulate", "shards")
    stage, model = settings["stage"], Path(settings["model"])
    if stage not in STAGES:
        raise TrainingError("{}: its stage is {}; allowed are {}", run_file, shown(stage), ", ".join(STAGES))
    found = find_checkpoints(arguments.run_folder, stage)
    if not found:
        raise TrainingError("{}: has no checkpoint of {} yet; train it first", arguments.run_folder, stage)
    parts = load_parts(stage, model, Path(settings["tokenizer"]) if settings["tokenizer"] else None)
    put_average(parts, stage, found[-1])
    copied = {part: model / part for part in COPIED if (model / part).is_dir()}
    if settings["tokenizer"]:
        copied["tokenizer"] = Path(settings["tokenizer"])
    step = int(found[-1].name.rpartition("-")[2])
    manifest = read_json(model / MANIFEST) if (model / MANIFEST).exists() else {}
    about = {
        "training": f"{stage}, {step} steps of {settings['batch'] * settings['accumulate']} per process",
        "from": manifest.get("name", model.name),
        "data": settings["shards"],
        "licence": manifest.get("licence", f"that of {model.name}"),
    }
    export(
        arguments.folder,
        {"text_encoder": parts.text_encoder, "unet": parts.unet},
        copied,
        arguments.name or arguments.folder.resolve().name,
        manifest.get("defaults", {}),
        about,
        [file for pattern in LICENCES for file in model.glob(pattern)],
    )
    print(Text("wrote {}: {} at step {}", arguments.folder, stage, step))


def put_average(parts: Parts, stage: str, checkpoint: Path) -> None:
    """Copy the averaged weights (EMA) of a checkpoint into those of `parts` that `stage` trains, in place."""
    both = torch.nn.ModuleDict({"text_encoder": parts.text_encoder, "unet": parts.unet})
    set_trained(both, STAGES[stage].trains)
    targets, values = trained(both), load_average(checkpoint)
    if [target.shape for target in targets] != [value.shape for value in values]:
        raise TrainingError(
            "{}: holds weights of another model; the folder that the run began with changed", checkpoint
        )
    with torch.no_grad():
        for target, value in zip(targets, values, strict=True):
            target.copy_(value)


def export(
    folder: Path,
    parts: Mapping[str, torch.nn.Module],
    copied: Mapping[str, Path],
    name: str,
    defaults: Mapping[str, object],
    about: Mapping[str, object],
    licences: Sequence[Path] = (),
) -> None:
    """Write a model folder, whole or not at all. A model that is already there is replaced.

    The folder holds `parts` as fp16 safetensors (the modules in memory are rounded too), copies of the folders `copied`
    without their UNUSED files (such as pickles), the files `licences`, model_index.json, a model card and a manifest.
    Card and manifest contain `about`. Raises `WeightsError` if `folder` holds anything but a model.
    """
    with new_folder(folder) as work:
        for part, module in parts.items():
            save_part(module.half().to(memory_format=torch.contiguous_format), work / part)
            module.float()
        for part, source in copied.items():
            ignore = shutil.ignore_patterns(*(f"*{kind}" for kind in UNUSED))
            shutil.copytree(source, work / part, ignore=ignore, copy_function=shutil.copyfile)
        for file in licences:
            shutil.copyfile(file, work / file.name)
        write_index(work)
        (work / "README.md").write_text(model_card(name, about), "utf-8")
        write_manifest(work, name=name, defaults=dict(defaults), **about)


def model_card(name: str, about: Mapping[str, object]) -> str:
    """Return a model card in Markdown: the name, the entries of `about`, and a command that draws with the model."""
    lines = [f"- {key}: {value}" for key, value in about.items()]
    return (
        f"# {name}\n\nA text-to-image model, made with Japanese Stable Diffusion's training code.\n\n"
        + "\n".join(lines)
        + "\n\n```bash\nJSD_WEIGHTS=path/to/this/folder script/predict -i prompt=猫 -o out.png\n```\n"
    )
