"""The judge's training and test pictures: drawings in every style, small, with the right answers.

The judge is the classifier of `embedded.judge`. The training pictures show the drawings as they are. The test pictures
show them at another place, size and angle, and are compressed as JPEG, so that the judge has not seen them.
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from tqdm import tqdm

from embedded.drawings import Drawing
from embedded.styles import COLOURS, PAIRS, STYLES, render

SIDE = 64  # pixels per side of the pictures that the judge sees
# A style is a medium on a ground, the colour of the background: "oil+blue" is ("oil", "blue"), "oil" is ("oil", ""),
# and "blue" is ("plain", "blue").
MEDIA = tuple(style for style in STYLES if style not in COLOURS)
GROUNDS = ("", *COLOURS)
PAIRED = tuple(dict.fromkeys(pair.split("+")[0] for pair in PAIRS))  # the media that have styles with a ground


def split_style(style: str) -> tuple[str, str]:
    """Split a style such as "oil+blue" into medium and background ("oil", "blue"). "blue" gives ("plain", "blue")."""
    medium = next((part for part in style.split("+") if part in MEDIA), "plain")
    return medium, next((part for part in style.split("+") if part in COLOURS), "")


def join_style(medium: str, ground: str) -> str:
    """Return the name of the style with this medium and this background colour: "plain", "oil", "blue", "oil+blue". It
    is the inverse of `split_style`. The style may be one that no picture is drawn in ("pencil+blue").
    """
    return "+".join(part for part in (medium, ground) if part not in ("plain", "")) or "plain"


def shrink(image: Image.Image) -> np.ndarray:
    """Return a picture of any size as the judge sees it: uint8 (SIDE, SIDE, 3)."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BOX))


def displace(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an RGBA drawing randomly scaled by 0.85 to 1.1, turned by up to 8 degrees and shifted a little."""
    side = drawing.width
    size = round(side * rng.uniform(0.85, 1.1))
    moved = drawing.resize((size, size), Image.BICUBIC).rotate(rng.uniform(-8, 8), Image.BICUBIC)
    x, y = ((side - size) // 2 + rng.integers(-side // 20, side // 20 + 1, size=2)).tolist()
    canvas = Image.new("RGBA", drawing.size, (255, 255, 255, 0))
    canvas.paste(moved, (x, y))
    return canvas


def _rendering(drawing: Drawing, style: str, rng: np.random.Generator | None) -> np.ndarray:
    """Render a drawing in a style: uint8 (SIDE, SIDE, 3). With `rng` it is displaced and compressed as JPEG."""
    if rng is None:
        return shrink(render(drawing.rgba, style))
    data = io.BytesIO()
    render(displace(drawing.rgba, rng), style).save(data, "jpeg", quality=int(rng.integers(60, 95)))
    return shrink(Image.open(data))


def _render_one(seed: int | None, job: tuple[int, Drawing, list[str]]) -> np.ndarray:
    """Render one drawing in several styles: uint8 (styles, SIDE, SIDE, 3). With `seed` it is displaced."""
    i, drawing, chosen = job
    rng = None if seed is None else np.random.default_rng((seed, i))
    return np.stack([_rendering(drawing, style, rng) for style in chosen])


def _map(jobs: list[tuple[int, Drawing, list[str]]], seed: int | None, name: str) -> Iterator[np.ndarray]:
    """Yield an array of renderings for each job (a drawing and its styles). Many jobs run in several processes."""
    work = partial(_render_one, seed)
    if len(jobs) < 50:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from tqdm(pool.map(work, jobs, chunksize=8), name, len(jobs))


@dataclass(frozen=True)
class References:
    """Pictures with the right answers: `images` uint8 (n, SIDE, SIDE, 3), n concept ids and n style keys."""

    images: np.ndarray
    concept: list[str]
    style: list[str]


def draw_references(drawings: list[Drawing], seed: int | None = None, count: int | None = None) -> References:
    """Render every drawing in all STYLES and in each medium of PAIRS on one random colour, held-out pairs included.

    With `seed` every rendering is displaced (see `displace`) and compressed as JPEG. With `count` about that many
    renderings are chosen at random, at least one of each drawing.
    """
    rng = np.random.default_rng(seed)
    jobs = [
        (i, drawing, [*STYLES, *(join_style(medium, rng.choice(GROUNDS[1:])) for medium in PAIRED)])
        for i, drawing in enumerate(drawings)
    ]
    if count is not None:
        each = max(1, round(count / len(jobs)))
        jobs = [(i, d, rng.choice(chosen, min(each, len(chosen)), replace=False).tolist()) for i, d, chosen in jobs]
    images = np.concatenate(list(_map(jobs, seed, "reference drawings")))
    rows = [(drawing.concept.id, style) for _, drawing, chosen in jobs for style in chosen]
    return References(images, [concept for concept, _ in rows], [style for _, style in rows])
