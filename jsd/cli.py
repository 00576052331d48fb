"""The command line, `python -m jsd`. With --help it lists its commands.

    python -m jsd generate -p "猫の肖像画 油絵" -i seed=1 -o out.png

A mistake of the user ends with exit code 2 and a message on stderr. `script/predict` runs `generate`, whose options are
those of `cog predict`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any

from jsd import settings
from jsd.errors import InputError, JSDError, PictureError, shown
from jsd.inputs import NAMES, parse_inputs
from jsd.language import Text, speak
from jsd.request import FORMAT_NAMES, OUTPUT_FORMATS, Request

if TYPE_CHECKING:
    from jsd.result import Result

PROMPT = "サラリーマン 油絵"


class CommandParser(argparse.ArgumentParser):
    """The argparse parser of one command, which says its arguments' `help` in the language of the process.

    With `module`, the command is implemented in that module.
    The module is imported only when its command is chosen, because that takes seconds and may need packages (those of
    `script/bootstrap EXTRA`). It defines `add_arguments(parser)`, and `run(arguments)`, which returns the exit code.
    """

    def __init__(self, module: str | None = None, extra: str = "", **settings: Any):
        super().__init__(**settings)
        self.module, self.extra = module, extra

    def add_argument(self, *names: str, help: str | None = None, **settings: Any) -> argparse.Action:
        return super().add_argument(*names, help=help and Text(help), **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module is not None and self.get_default("run") is None:
            try:
                module = import_module(self.module)
            except ModuleNotFoundError as error:
                missing = Text("the package {} is missing; run script/bootstrap {}", error.name, self.extra)
                self.exit(2, Text("error: {}", missing) + "\n")
            module.add_arguments(self)
            self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`. Returns the exit code: 0, 1 if a picture has no watermark, 2 after an error."""
    return exit_code(_run, argv)


def exit_code(run: Callable[..., int | None], *arguments: Any) -> int:
    """Call `run(*arguments)`, and return the exit code: what `run` returns, 0 for None. An error that the user can mend
    is printed on stderr, and the code is 2.
    """
    try:
        return run(*arguments) or 0
    except (JSDError, OSError, CalledProcessError) as error:
        print(Text("error: {}", error), file=sys.stderr)
        return 2


def _run(argv: Sequence[str] | None) -> int | None:
    settings.check_language()
    speak()
    arguments = _make_parser().parse_args(argv)
    return arguments.run(arguments)


def _make_parser() -> argparse.ArgumentParser:
    """Make the argument parser with all commands, also those that other packages add by entry points."""
    parser = CommandParser(prog="python -m jsd", description=Text("Japanese Stable Diffusion"))
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    generate = commands.add_parser("generate", help=Text("draw a prompt"))
    generate.add_argument("-p", "--prompt", help="what the picture shows, in Japanese; short for -i prompt=...")
    generate.add_argument(
        "-i", "--input", action="append", default=[], metavar="NAME=VALUE", help=Text("an input: {}", ", ".join(NAMES))
    )
    generate.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: output.png; several are numbered")
    generate.set_defaults(run=_generate)

    commands.add_parser("weights", help=Text("model folders"), module="jsd.genuine.commands")

    detect = commands.add_parser(
        "detect-watermark", help=Text("tell whether pictures carry the mark; exit code 1 if not")
    )
    detect.add_argument("files", nargs="+", type=Path, metavar="FILE")
    detect.set_defaults(run=_detect)

    train = commands.add_parser("train", help=Text("train a model")).add_subparsers(metavar="COMMAND", required=True)
    for name, module, text in (
        ("tokenizer", "jsd.train.tokenizer", Text("a Japanese tokenizer, from captions")),
        ("filter", "jsd.train.filter_shards", Text("choose the pairs of webdataset shards that are worth training on")),
        (
            "loop",
            "jsd.train.run_stage",
            Text("one stage of the two-stage training (accelerate launch -m jsd train loop)"),
        ),
        ("export", "jsd.train.export", Text("a model folder from a run of loop")),
        ("lora", "jsd.train.lora", Text("an adapter for a model folder, from a folder of captioned pictures")),
    ):
        train.add_parser(name, help=text, module=module, extra="train")
    # Other packages add commands by entry points: the name is the command, the value its module.
    for group, prefix, parsers in (("jsd.commands", "", commands), ("jsd.train.commands", "train ", train)):
        for entry in entry_points(group=group):
            text = Text("see python -m jsd {}{} --help", prefix, entry.name)
            parsers.add_parser(entry.name, help=text, module=entry.value, extra=prefix.strip() or entry.name)
    return parser


def output_paths(path: Path, count: int) -> list[Path]:
    """Return the file paths for `count` pictures, as `cog predict` names them: `path`, or out.0.png, out.1.png ..."""
    return [path] if count == 1 else [path.with_name(f"{path.stem}.{i}{path.suffix}") for i in range(count)]


def _generate(arguments: argparse.Namespace) -> None:
    prompt = [] if arguments.prompt is None else [f"prompt={arguments.prompt}"]
    values = parse_inputs([*prompt, *arguments.input])
    path = arguments.output
    if path is not None:
        _take_format(values, path)
    request = Request.from_dict({"prompt": PROMPT, **values})
    path = path or Path(f"output.{request.output_format}")
    if not path.absolute().parent.is_dir():
        raise InputError("-o", "there is no folder {}; make it first", shown(str(path.absolute().parent)))

    # These imports take seconds, so bad input is reported before them.
    from tqdm import tqdm

    components = settings.load_components()
    from jsd import sampling

    with tqdm(unit=Text("step"), file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = sampling.generate(components, request, progress, settings.max_batch_rows())
    began = time.perf_counter()
    # The file of a picture that was held back is left out, and the others keep their numbers.
    paths = output_paths(path, request.num_outputs)
    files = [paths[seed - result.request.seed] for seed in result.seeds]
    _save(result, files)
    for line in result.report(files, encode=time.perf_counter() - began):
        print(line)
    for note in result.notes():
        print(note, file=sys.stderr)


def _save(result: Result, files: list[Path]) -> None:
    """Write each picture to its file. What is written stays, also when the disk is full: it has taken its time.

    Raises `OSError`, which names what is written, and the seed of the first picture that is not.
    """
    from jsd import images

    request = result.request
    for i, file in enumerate(files):
        try:
            images.save(result.images[i], file, request.output_format, request.output_quality, result.metadata(i))
        except OSError as error:
            written = ", ".join(shown(file.name) for file in files[:i]) or Text("nothing")
            raise OSError(
                Text(
                    "{} can't be written ({}); written: {}; make room, or choose another folder, and draw the "
                    "rest again from -i seed={}",
                    shown(file.name),
                    Text(error.strerror) if error.strerror else error,
                    written,
                    result.seeds[i],
                )
            ) from error


def _take_format(values: dict[str, object], path: Path) -> None:
    """Set `output_format` in `values` to the suffix of `path`. Raises `InputError` if unknown, or `values` differ."""
    suffix = path.suffix.lower().lstrip(".")
    suffix = FORMAT_NAMES.get(suffix, suffix)
    if suffix not in OUTPUT_FORMATS:
        wanted = ", .".join(OUTPUT_FORMATS)
        raise InputError("-o", "{} was given; a name ending in .{} is wanted", shown(path.name), wanted)
    given = values.setdefault("output_format", suffix)
    if FORMAT_NAMES.get(given.lower(), given.lower()) != suffix:
        raise InputError("output_format", "{} was given, but -o ends in .{}", shown(values["output_format"]), suffix)


def _detect(arguments: argparse.Namespace) -> int:
    from jsd import images, watermark

    exit_code = 0
    for path in arguments.files:
        try:
            detection = watermark.detect(images.read_picture(path, formats=None, most=None))
        except (PictureError, InputError) as error:
            print(Text("error: {}: {}", path, error), file=sys.stderr)
            exit_code = 2
            continue
        verdict = Text("marked") if detection.marked else Text("no mark found")
        figures = (detection.agreement, detection.chance)
        print(Text("{}: {} ({:.0%} of the bits agree; by chance {:.1e})", path, verdict, *figures))
        exit_code = max(exit_code, 0 if detection.marked else 1)
    return exit_code
