"""Generate a picture for each line of a text file of prompts, and put them into one picture with six columns.

script/grid makes the README's picture with it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from jsd import model, sampling
from jsd.atomic import atomic_file
from jsd.cli import CommandParser, exit_code
from jsd.errors import InputError, shown
from jsd.images import sheet
from jsd.language import Text, speak
from jsd.manifest import find_weights
from jsd.request import MAX_SIZE, Request
from jsd.train.options import MAX_SEED, check_file, read_lines, whole


def main(argv: Sequence[str]) -> int:
    """Draw the picture that the command line `argv` describes. Returns the exit code: 0, or 2 after an error."""
    speak()
    parser = CommandParser(prog="script/grid", description=Text("Draw the prompts of a text file into one picture."))
    parser.add_argument("--prompts", type=Path, default=Path("docs/grid.txt"), help="default: docs/grid.txt")
    parser.add_argument("--to", type=Path, default=Path("docs/grid.png"), help="default: docs/grid.png")
    parser.add_argument("--weights", type=Path, default=Path("weights/embedded"), help="default: weights/embedded")
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=1, help="default: 1")
    cell = "pixels per side of a picture in the grid (default: 160)"
    parser.add_argument("--cell", type=whole(most=MAX_SIZE), default=160, help=cell)
    return exit_code(_draw, parser.parse_args(argv))


def _draw(arguments: argparse.Namespace) -> None:
    check_file("--to", arguments.to)
    prompts = read_lines("--prompts", arguments.prompts)
    if not prompts:
        raise InputError("--prompts", "{} is empty; one prompt per line is wanted", shown(str(arguments.prompts)))
    components = model.load(find_weights(arguments.weights))
    requests = [Request(prompt, seed=arguments.seed).resolve(components.defaults) for prompt in prompts]
    images = [sampling.generate(components, request).images[0] for request in tqdm(requests, "drawing")]
    with atomic_file(arguments.to) as part:
        sheet(images, arguments.cell).save(part, "PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
