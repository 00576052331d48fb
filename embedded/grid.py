"""Draw a file of prompts, one a line, into one picture, six a row: what `script/grid` does for the README."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from jsd import model, sampling
from jsd.images import sheet
from jsd.request import Request


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, default=Path("docs/grid.txt"))
    parser.add_argument("--to", type=Path, default=Path("docs/grid.png"))
    parser.add_argument("--weights", type=Path, default=Path("weights/embedded"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cell", type=int, default=160, help="pixels a picture")
    args = parser.parse_args(argv)
    prompts = [line for line in args.prompts.read_text("utf-8").splitlines() if line.strip()]
    components = model.load(args.weights)
    drawn = [sampling.generate(components, Request(p, seed=args.seed)).images[0] for p in tqdm(prompts, "drawing")]
    part = args.to.with_name(f".{args.to.name}.part")
    sheet(drawn, args.cell).save(part, "PNG", optimize=True)
    os.replace(part, args.to)


if __name__ == "__main__":
    main()
