"""A model folder in the standard diffusers layout, from trained parts: clean configs, fp16 safetensors, a manifest and
a model card.

    python -m jsd train export runs/stage2 weights/mine
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from jsd.genuine.convert import LICENCES
from jsd.genuine.folder import check_target, new_folder, save_part, write_index, write_manifest
from jsd.manifest import MANIFEST, PICKLES
from jsd.train.trainer import checkpoints, load_average, trained

UNUSED = (*PICKLES, ".fp16.safetensors", ".msgpack")  # what downloads have beside the files that are read
COPIED = ("vae", "scheduler", "safety_checker", "feature_extractor", "tokenizer")


def export(
    folder: Path,
    parts: Mapping[str, torch.nn.Module],
    copied: Mapping[str, Path],
    name: str,
    defaults: Mapping[str, object],
    about: Mapping[str, object],
    licences: Sequence[Path] = (),
) -> None:
    """Write `folder`: `parts` in fp16, the subfolders `copied` and files `licences` as they are, index, model card,
    manifest.

    To a temporary name first, then renamed; a model that was there is replaced. Raises FileExistsError for a folder
    that is none.
    """
    with new_folder(folder) as work:
        for part, module in parts.items():
            save_part(module.half().to(memory_format=torch.contiguous_format), work / part)
            module.float()
        for part, source in copied.items():
            shutil.copytree(source, work / part, ignore=shutil.ignore_patterns(*(f"*{kind}" for kind in UNUSED)))
        for file in licences:
            shutil.copyfile(file, work / file.name)
        write_index(work)
        (work / "README.md").write_text(model_card(name, about), "utf-8")
        write_manifest(work, name=name, defaults=dict(defaults), **about)


def model_card(name: str, about: Mapping[str, object]) -> str:
    """A model card in Markdown: what the manifest says, and how to use it."""
    lines = [f"- {key}: {value}" for key, value in about.items()]
    return (
        f"# {name}\n\nA text-to-image model, made with Japanese Stable Diffusion's training code.\n\n"
        + "\n".join(lines)
        + "\n\n```bash\nJSD_WEIGHTS=path/to/this/folder script/predict -i prompt=猫 -o out.png\n```\n"
    )


def main(argv: Sequence[str]) -> None:
    """Export the newest checkpoint of a run of `jsd.train.run_stage`, its averaged weights."""
    from jsd.train.run_stage import RUN_FILE, load_parts

    parser = argparse.ArgumentParser(prog="python -m jsd train export", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the --out of the run")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--name", help="default: the folder's")
    args = parser.parse_args(argv)
    check_target(args.folder)
    run = json.loads((args.run / RUN_FILE).read_text("utf-8"))
    found = checkpoints(args.run, run["stage"])
    if not found:
        raise FileNotFoundError(f"{args.run}: has no checkpoint of {run['stage']} yet; train it first")
    model = Path(run["model"])
    tokenizer = Path(run["tokenizer"]) if run["tokenizer"] not in (None, "None") else None
    parts = load_parts(run["stage"], model, tokenizer)
    load_stage(parts, run["stage"], found[-1])
    step = int(found[-1].name.rpartition("-")[2])
    manifest = json.loads((model / MANIFEST).read_text("utf-8")) if (model / MANIFEST).exists() else {}
    export(
        args.folder,
        {"text_encoder": parts.text_encoder, "unet": parts.unet},
        {
            part: tokenizer if part == "tokenizer" and tokenizer else model / part
            for part in COPIED
            if (model / part).is_dir() or (part == "tokenizer" and tokenizer)
        },
        args.name or args.folder.name,
        manifest.get("defaults", {}),
        {
            "training": f"{run['stage']}, {step} steps of {run['batch'] * run['accumulate']} a process",
            "from": manifest.get("name", model.name),
            "data": run["shards"],
            "licence": manifest.get("licence", f"that of {model.name}"),
        },
        [file for pattern in LICENCES for file in model.glob(pattern)],
    )
    print(f"wrote {args.folder}: {run['stage']} at step {step}")


def load_stage(parts: "object", stage: str, checkpoint: Path) -> None:
    """Put the averaged weights of a checkpoint of `stage` into the text encoder and UNet of `parts`."""
    from jsd.train.stages import STAGES
    from jsd.train.trainer import set_trained

    both = torch.nn.ModuleDict({"text_encoder": parts.text_encoder, "unet": parts.unet})
    set_trained(both, STAGES[stage].trains)
    targets, average = trained(both), load_average(checkpoint)
    with torch.no_grad():
        for target, value in zip(targets, average, strict=True):
            target.copy_(value)
