"""The training pictures of the embedded model: every drawing in every style but the held-out pairs, rendered once to a
file.

`build` writes `pictures.npy` (uint8, count x 256 x 256 x 3, opened as a memory map) and `pictures.json` (drawing and
style of each).
"""

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jsd.train.drawings import SIZE, Drawing
from jsd.train.styles import PAIRS, STYLES, render


def _digest(*words: str) -> int:
    return int.from_bytes(hashlib.md5("|".join(words).encode(), usedforsecurity=False).digest()[:4], "big")


def held_out(concept_id: str, style: str) -> bool:
    """Whether (concept, style) is never trained on: one in ten by md5, for the test of composition.

    "plain" never is; a pair of styles such as "oil+blue" is when one of its parts is.
    """
    parts = [part for part in style.split("+") if part != "plain"]
    return any(_digest(concept_id, part) % 10 == 0 for part in parts)


def styles_of(drawing: Drawing) -> list[str]:
    """The styles a drawing is trained in: all of STYLES and one colour with each of the styles of PAIRS, less
    the held-out ones.
    """
    pairs = sorted({pair.split("+")[0] for pair in PAIRS})
    colours = sorted({pair.split("+")[1] for pair in PAIRS})
    chosen = [f"{style}+{colours[_digest(drawing.svg, style) % len(colours)]}" for style in pairs]
    return [style for style in [*STYLES, *chosen] if not held_out(drawing.concept.id, style)]


@dataclass(frozen=True)
class Pictures:
    """`images[i]` (uint8, 256 x 256 x 3) shows drawing `drawing[i]` (an index) in style `style[i]`."""

    images: np.ndarray
    drawing: list[int]
    style: list[str]


def _render_all(drawing: Drawing) -> np.ndarray:
    return np.stack([np.asarray(render(drawing.rgba, style)) for style in styles_of(drawing)])


def build(folder: Path, drawings: list[Drawing], workers: int = 2) -> Pictures:
    """Render the pictures into `folder`, or open them if they are there already for the same drawings and styles."""
    index = [(i, style) for i, drawing in enumerate(drawings) for style in styles_of(drawing)]
    file, index_file = folder / "pictures.npy", folder / "pictures.json"
    about = {"index": [list(row) for row in index], "source": [f"{_digest(d.svg):08x}" for d in drawings]}
    if not (index_file.exists() and json.loads(index_file.read_text()) == about):
        folder.mkdir(parents=True, exist_ok=True)
        index_file.unlink(missing_ok=True)
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (len(index), SIZE, SIZE, 3))
        start = 0
        with ProcessPoolExecutor(workers) as pool:
            for block in tqdm(pool.map(_render_all, drawings, chunksize=8), "rendering", len(drawings)):
                images[start : start + len(block)] = block
                start += len(block)
        images.flush()
        work = index_file.with_suffix(".tmp")
        work.write_text(json.dumps(about))
        os.replace(work, index_file)
    return Pictures(np.load(file, mmap_mode="r"), [i for i, _ in index], [style for _, style in index])
