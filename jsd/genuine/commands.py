"""Commands about model folders, `python -m jsd weights COMMAND`: `pull` (from the hub), `convert`, `verify`, `list`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jsd import manifest
from jsd.language import Text
from jsd.manifest import MANIFEST, find_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four commands, with their arguments, to `parser`, the parser of `python -m jsd weights`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    verify = commands.add_parser("verify", help=Text("check a model folder against its manifest"))
    verify.add_argument("folder", nargs="?", help="default: the one that would be used")
    verify.set_defaults(command=_verify)
    pull = commands.add_parser("pull", help=Text("fetch a model of 2022 from the Hugging Face hub and convert it"))
    pull.add_argument("repository", nargs="?", help="default: rinna/japanese-stable-diffusion")
    pull.add_argument("--revision", help="a branch, tag or commit")
    pull.add_argument("--token", help="of the hub; default: HF_TOKEN, or the one hf auth login saved")
    pull.add_argument("--to", type=Path, metavar="FOLDER", help="default: weights/ and the repository's name")
    pull.set_defaults(command=_pull)
    convert = commands.add_parser("convert", help=Text("a diffusers folder, of 2022 or later, to a clean one"))
    convert.add_argument("source", type=Path)
    convert.add_argument("folder", type=Path)
    convert.set_defaults(command=_convert)
    for command in (pull, convert):
        command.add_argument("--dtype", choices=["fp16", "fp32"], default="fp16", help="of the files (default: fp16)")
    commands.add_parser("list", help=Text("the model folders here, and the one in use")).set_defaults(command=_list)


def run(arguments: argparse.Namespace) -> None:
    """Run the command of `python -m jsd weights` that was parsed. Raises the errors of that command."""
    arguments.command(arguments)


def _verify(arguments: argparse.Namespace) -> None:
    folder = find_weights(arguments.folder)
    listed = manifest.verify(folder)
    print(Text("{}: {}, {} files as in its manifest", folder, listed.get("name", folder.name), len(listed["files"])))


def _list(arguments: argparse.Namespace) -> None:
    for folder in sorted(manifest.ROOT.iterdir()):
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            about = "" if (folder / MANIFEST).exists() else Text(", no manifest")
            print(Text("{}: {:.1f} MB{}", folder, size / 1e6, about))
    print(Text("in use: {}", find_weights()))


def _pull(arguments: argparse.Namespace) -> None:
    from jsd.genuine import hub

    repository = arguments.repository or hub.GENUINE
    folder = arguments.to or manifest.ROOT / repository.rpartition("/")[2]
    hub.pull(repository, folder, arguments.revision, arguments.token, _dtype(arguments), print)
    _tell(folder)


def _convert(arguments: argparse.Namespace) -> None:
    from jsd.genuine import convert

    convert.convert(arguments.source, arguments.folder, _dtype(arguments), report=print)
    _tell(arguments.folder)


def _tell(folder: Path) -> None:
    """Print how the model that was written to `folder` is served."""
    settings = f"JSD_WEIGHTS={folder}"
    if not (folder / "safety_checker").is_dir():
        print(Text("wrote {}; {} serves it (it has no safety checker)", folder, f"{settings} JSD_SAFETY_CHECKER=off"))
    else:
        print(Text("wrote {}; {} serves it", folder, settings))


def _dtype(arguments: argparse.Namespace) -> object:
    import torch

    return {"fp16": torch.float16, "fp32": torch.float32}[arguments.dtype]
