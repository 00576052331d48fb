"""Sheets to look at: random scenes, and one scene in every style, place, relation, colour, number and weather.

python -m embedded.scenes.sheets OUT --icons DIR [--count N] [--seed S] [--size WIDTH HEIGHT] [--only NAME]

OUT/NAME.png holds the pictures, eight in a row, and OUT/NAME.txt what they show, a line each. The icon sets are fetched
into DIR if they are not there.
"""

import argparse
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from embedded.scenes.canvas import SIZE
from embedded.scenes.colours import THING_COLOURS
from embedded.scenes.icons import fetch
from embedded.scenes.places import PLACES
from embedded.scenes.render import render
from embedded.scenes.sampling import sample_scene
from embedded.scenes.scene import RELATIONS, WEATHERS, Scene, Thing
from embedded.scenes.sprites import Assets, load_assets
from embedded.scenes.styles import STYLES
from embedded.scenes.words.caption import caption
from embedded.scenes.words.prompt import prompt_for

COLUMNS = 8


def kinds(assets: Assets, rng: np.random.Generator, count: int) -> Iterator[tuple[str, list[Scene]]]:
    """The name of each sheet and its scenes."""

    def things(names: str, **rest) -> tuple[Thing, ...]:
        return tuple(Thing(assets.concepts[name], assets.drawings[name][-1], **rest) for name in names.split())

    yield "random", [sample_scene(rng, assets) for _ in range(count)]
    bases = [
        (things("cat"), None, "white"),
        (things("torii"), None, "sunset"),
        (things("dog house"), "front", "meadow"),
    ]
    yield "styles", [Scene(*base, style=style) for style in STYLES for base in bases]
    yield "places", [Scene(things("cat"), None, place) for place in PLACES for _ in range(2)]
    pairs = ["cat chair", "apple dog", "car house", "dragon mount_fuji"]
    grounds = dict(zip(pairs, ("white", "room", "meadow", "cherry_avenue"), strict=True))
    yield "relations", [Scene(things(p), relation, ground) for relation in RELATIONS for p, ground in grounds.items()]
    painted = [things(name, colour=c) for name in ("cat", "car", "house", "t_shirt") for c in THING_COLOURS]
    both = [(one[0], two[0]) for one, two in pairwise(painted) if one[0].colour != two[0].colour]
    yield "colours", [Scene(some, "beside" if some[1:] else None, "grey") for some in [*painted, *both[::3]]]
    several = [things(name, count=n) for name in ("cat", "apple", "pencil") for n in (2, 3, 4)]
    yield "numbers", [Scene(some, None, ground) for some in several for ground in ("white", "meadow")]
    yield (
        "weathers",
        [
            Scene(things("fox"), None, ground, weather, style)
            for weather in WEATHERS
            for ground in ("city", "forest")
            for style in ("plain", "ukiyoe")
        ],
    )


def _sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """The pictures, all of one size, in rows of COLUMNS."""
    blank = [np.full_like(pictures[0], 255)] * (-len(pictures) % COLUMNS)
    cells = np.stack([*pictures, *blank])
    height, width = pictures[0].shape[:2]
    return cells.reshape(-1, COLUMNS, height, width, 3).swapaxes(1, 2).reshape(-1, COLUMNS * width, 3)


def draw_sheets(
    wanted: Iterable[tuple[str, list[Scene]]], assets: Assets, out: Path, seed: int, size: tuple[int, int]
) -> None:
    """Write a sheet of pictures of `size` and a list of captions into `out` for each name and its scenes."""
    out.mkdir(parents=True, exist_ok=True)
    for name, scenes in wanted:
        pictures = [render(scene, np.random.default_rng([seed, i]), assets, size) for i, scene in enumerate(scenes)]
        Image.fromarray(_sheet(pictures)).save(out / f"{name}.png")
        rngs = [np.random.default_rng([seed, i]) for i in range(len(scenes))]
        said = [
            f"{prompt_for(scene)} | {caption(scene, rng)} | {caption(scene, rng, 'en')}\n"
            for scene, rng in zip(scenes, rngs, strict=True)
        ]
        (out / f"{name}.txt").write_text("".join(said), "utf-8")


def main() -> None:
    """Read the arguments and write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--icons", type=Path, required=True, help="the folder of the icon sets and of the sprites")
    parser.add_argument("--cache", type=Path, help="a folder for the sprites, instead of that of the icon sets")
    parser.add_argument("--count", type=int, default=64, help="random scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(SIZE, SIZE), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--only", metavar="NAME", help="draw this sheet alone, such as places")
    args = parser.parse_args()
    fetch(args.icons)
    assets = load_assets(args.icons, cache=args.cache)
    every = dict(kinds(assets, np.random.default_rng(args.seed), args.count))
    if args.only and args.only not in every:
        parser.error(f"--only is {args.only!r}, not one of {', '.join(every)}")
    wanted = {args.only: every[args.only]} if args.only else every
    draw_sheets(wanted.items(), assets, args.out, args.seed, tuple(args.size))


if __name__ == "__main__":
    main()
