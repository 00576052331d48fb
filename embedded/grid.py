"""Generate a picture for each line of a text file of prompts, and put them into one picture with six columns.

script/grid makes the README's picture with it.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from jsd import model, sampling
from jsd.atomic import atomic_file
from jsd.images import sheet
from jsd.request import Request


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="script/grid", description="Draw the prompts of a text file into one picture."
    )
    parser.add_argument("--prompts", type=Path, default=Path("docs/grid.txt"), help="default: docs/grid.txt")
    parser.add_argument("--to", type=Path, default=Path("docs/grid.png"), help="default: docs/grid.png")
    parser.add_argument("--weights", type=Path, default=Path("weights/embedded"), help="default: weights/embedded")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--cell", type=int, default=160, help="pixels per side of a picture in the grid (default: 160)")
    arguments = parser.parse_args()
    prompts = [line for line in arguments.prompts.read_text("utf-8").splitlines() if line.strip()]
    components = model.load(arguments.weights)
    images = [
        sampling.generate(components, Request(prompt, seed=arguments.seed)).images[0]
        for prompt in tqdm(prompts, "drawing")
    ]
    with atomic_file(arguments.to) as part:
        sheet(images, arguments.cell).save(part, "PNG", optimize=True)


if __name__ == "__main__":
    main()
