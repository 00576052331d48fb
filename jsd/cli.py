"""The command line.

    python -m jsd generate -p "猫の肖像画 油絵" -i seed=1 -o out.png
    python -m jsd generate -p "犬" -i image=@out.png -i prompt_strength=0.6 -o dog.png
    python -m jsd weights pull
    python -m jsd weights convert SOURCE FOLDER
    python -m jsd weights verify [FOLDER]
    python -m jsd weights list
    python -m jsd detect-watermark FILE...
    python -m jsd eval ...
    python -m jsd train ...

What the user got wrong ends with exit code 2 and a message on stderr. `script/predict` is `generate` behind the flags
of `cog predict`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from subprocess import CalledProcessError

from jsd.memory import without_collector
from jsd.request import OUTPUT_FORMATS, InputError, NaNError, NSFWError, Request, SettingError, WeightsError, shown

PROMPT = "サラリーマン 油絵"
PICTURES = ("image", "mask")
OTHER_NAMES = {"steps": "num_inference_steps"}
NUMBERS = {
    "width": int,
    "height": int,
    "num_outputs": int,
    "num_inference_steps": int,
    "guidance_scale": float,
    "seed": int,
    "output_quality": int,
    "prompt_strength": float,
    "guidance_interval": lambda text: [float(number) for number in text.split(",")],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a check that says no, 2 for what the user got wrong."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # These two read their own flags, and only they need their libraries.
    try:
        if argv[:1] == ["eval"]:
            from jsd.eval import quality

            return quality.main(argv[1:]) or 0
        if argv[:1] == ["train"]:
            from jsd import train

            return train.main(argv[1:]) or 0
    except ModuleNotFoundError as error:
        print(f"error: the package {error.name} is missing; run script/bootstrap {argv[0]}", file=sys.stderr)
        return 2
    except (ValueError, OSError, CalledProcessError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError, RuntimeError) as error:
        # InputError and its like carry a message for the user; an unexpected ValueError names its type.
        known = isinstance(error, InputError | NSFWError | NaNError | WeightsError | SettingError | OSError)
        print(f"error: {'' if known else type(error).__name__ + ': '}{error}", file=sys.stderr)
        return 2


def parse_inputs(pairs: Sequence[str]) -> dict[str, object]:
    """`name=value` strings to inputs of their right types. Raises `InputError` for what can't be one."""
    values: dict[str, object] = {}
    allowed = [field.name for field in fields(Request)]
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError("-i", f"{shown(pair)} was given; name=value is wanted, e.g. -i seed=1")
        name = OTHER_NAMES.get(name, name)
        if name not in allowed:
            raise InputError("-i", f"there is no input called {shown(name)}; the inputs are {', '.join(allowed)}")
        if name in values:
            raise InputError(name, "given twice")
        if name in PICTURES:
            values[name] = _picture(name, text)
        else:
            values[name] = _number(name, text) if name in NUMBERS else text
    return values


def output_paths(path: Path, count: int) -> list[Path]:
    """`path` itself for one picture; out.0.png, out.1.png ... for several, as `cog predict` names them."""
    return [path] if count == 1 else [path.with_name(f"{path.stem}.{i}{path.suffix}") for i in range(count)]


def _picture(name: str, text: str) -> object:
    """The picture in the file that `@FILE` names, as for `cog predict`."""
    from jsd import images

    if not text.startswith("@"):
        raise InputError(name, f"{shown(text)} was given; @FILE is wanted, e.g. -i {name}=@in.png")
    path = Path(text[1:])
    if not path.is_file():
        raise InputError(name, f"there is no file {shown(str(path))}")
    return images.read_input(name, path)


def _number(name: str, text: str) -> float:
    try:
        return NUMBERS[name](text)
    except ValueError:
        wanted = {int: "an integer", float: "a number"}.get(NUMBERS[name], "two numbers, as in 0.2,0.8")
        raise InputError(name, f"{shown(text)} was given; {wanted} is wanted") from None


def _generate(arguments: argparse.Namespace) -> None:
    prompt = [] if arguments.prompt is None else [f"prompt={arguments.prompt}"]
    values = parse_inputs([*prompt, *arguments.input])
    path = arguments.output
    if path is not None:
        _take_format(values, path)
    request = Request.from_dict({"prompt": PROMPT, **values})
    path = path or Path(f"output.{request.output_format}")
    if not path.absolute().parent.is_dir():
        raise InputError("-o", f"there is no folder {shown(str(path.absolute().parent))}; make it first")

    # Only now what costs seconds: bad input is told at once.
    with without_collector():
        from tqdm import tqdm

        from jsd import images, sampling, settings

        components = settings.load_components()
    with tqdm(unit="step", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = sampling.generate(components, request, progress, settings.max_batch_rows())
    start = time.perf_counter()
    paths = output_paths(path, request.num_outputs)
    for i, seed in enumerate(result.seeds):
        target = paths[seed - result.request.seed]  # one that was left out leaves its number out
        data = images.metadata(result, i)
        images.save(result.images[i], target, request.output_format, request.output_quality, data)
        print(f"{target}: seed {result.seeds[i]}, {data['num_inference_steps']} steps of {data['scheduler']}")
    timings = {**result.timings, "encode": time.perf_counter() - start}
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in timings.items()))
    if result.truncated:
        print(
            f"prompt, negative_prompt: too long, together their last {result.truncated} tokens were left out",
            file=sys.stderr,
        )
    if result.flagged:
        print(f"NSFW content detected: {result.flagged} pictures were left out", file=sys.stderr)


def _take_format(values: dict[str, object], path: Path) -> None:
    """The output format that the name of the output file asks for."""
    suffix = path.suffix.lower().lstrip(".").replace("jpeg", "jpg")
    if suffix not in OUTPUT_FORMATS:
        raise InputError(
            "-o", f"{shown(path.name)} was given; a name ending in .{', .'.join(OUTPUT_FORMATS)} is wanted"
        )
    if values.setdefault("output_format", suffix) != suffix:
        raise InputError("output_format", f"{shown(values['output_format'])} was given, but -o ends in .{suffix}")


def _verify(arguments: argparse.Namespace) -> None:
    from jsd.manifest import verify
    from jsd.weights import find_weights

    folder = find_weights(arguments.folder)
    manifest = verify(folder)
    print(f"{folder}: {manifest.get('name', folder.name)}, {len(manifest['files'])} files as in its manifest")


def _list(arguments: argparse.Namespace) -> None:
    from jsd import weights
    from jsd.manifest import MANIFEST

    for folder in sorted(weights.ROOT.iterdir()):
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            print(f"{folder}: {size / 1e6:.1f} MB{'' if (folder / MANIFEST).exists() else ', no manifest'}")
    print(f"in use: {weights.find_weights()}")


def _pull(arguments: argparse.Namespace) -> None:
    from jsd import hub, weights

    repository = arguments.repository or hub.GENUINE
    folder = arguments.to or weights.ROOT / repository.rpartition("/")[2]
    hub.pull(repository, folder, arguments.revision, arguments.token, _dtype(arguments), print)
    print(f"wrote {folder}; JSD_WEIGHTS={folder} serves it")


def _convert(arguments: argparse.Namespace) -> None:
    from jsd import convert

    convert.convert(arguments.source, arguments.folder, _dtype(arguments), report=print)
    print(f"wrote {arguments.folder}; JSD_WEIGHTS={arguments.folder} serves it")


def _dtype(arguments: argparse.Namespace) -> object:
    import torch

    return {"fp16": torch.float16, "fp32": torch.float32}[arguments.dtype]


def _detect(arguments: argparse.Namespace) -> int:
    from PIL import Image

    from jsd import watermark

    missing = unreadable = False
    for path in arguments.files:
        try:
            with Image.open(path) as image:
                agreement, chance = detection = watermark.detect(image)
        except (OSError, ValueError) as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            unreadable = True
            continue
        verdict = "marked" if detection.marked else "no mark found"
        print(f"{path}: {verdict} ({agreement:.0%} of the bits agree; by chance {chance:.1e})")
        missing = missing or not detection.marked
    return 2 if unreadable else int(missing)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jsd", description="Japanese Stable Diffusion")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    generate = commands.add_parser("generate", help="draw a prompt")
    generate.add_argument("-p", "--prompt", help="what the picture shows, in Japanese; short for -i prompt=...")
    generate.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"an input: {', '.join(field.name for field in fields(Request))}",
    )
    generate.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: output.png; several are numbered")
    generate.set_defaults(run=_generate)

    weights = commands.add_parser("weights", help="model folders").add_subparsers(metavar="COMMAND", required=True)
    verify = weights.add_parser("verify", help="check a model folder against its manifest")
    verify.add_argument("folder", nargs="?", help="default: the one that would be used")
    verify.set_defaults(run=_verify)
    pull = weights.add_parser("pull", help="fetch a model of 2022 from the Hugging Face hub and convert it")
    pull.add_argument("repository", nargs="?", help="default: rinna/japanese-stable-diffusion")
    pull.add_argument("--revision", help="a branch, tag or commit")
    pull.add_argument("--token", help="of the hub; default: HF_TOKEN, or the one hf auth login saved")
    pull.add_argument("--to", type=Path, metavar="FOLDER", help="default: weights/ and the repository's name")
    pull.set_defaults(run=_pull)
    convert = weights.add_parser("convert", help="a model folder of 2022 to a clean one")
    convert.add_argument("source", type=Path)
    convert.add_argument("folder", type=Path)
    convert.set_defaults(run=_convert)
    for command in (pull, convert):
        command.add_argument("--dtype", choices=["fp16", "fp32"], default="fp16", help="of the files (default: fp16)")
    weights.add_parser("list", help="the model folders here, and the one in use").set_defaults(run=_list)

    detect = commands.add_parser("detect-watermark", help="tell whether pictures carry the mark; exit code 1 if not")
    detect.add_argument("files", nargs="+", metavar="FILE")
    detect.set_defaults(run=_detect)
    commands.add_parser("eval", help="measure the model: see python -m jsd eval --help", add_help=False)
    commands.add_parser("train", help="train a model: see python -m jsd train --help", add_help=False)
    return parser
