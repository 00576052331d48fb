"""The training pictures of the embedded model, rendered once to a file: every drawing in every style but the held-out
pairs of them, and drawings side by side, again but for held-out pairs.

`build` writes `pictures.npy` (uint8, count x 256 x 256 x 3, opened as a memory map) and `pictures.json` (drawings and
style of each).
"""

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from embedded.drawings import SIZE, Drawing
from embedded.styles import PAIRS, STYLES, render

PARTNERS = 2  # pictures with another drawing beside it, for each drawing
HALF = SIZE // 2 - 6  # pixels of a drawing that shares its picture


def _digest(*words: str) -> int:
    return int.from_bytes(hashlib.md5("|".join(words).encode(), usedforsecurity=False).digest()[:4], "big")


def held_out(concept_id: str, style: str) -> bool:
    """Whether (concept, style) is never trained on: one in ten by md5, for the test of composition.

    "plain" never is; a pair of styles such as "oil+blue" is when one of its parts is.
    """
    parts = [part for part in style.split("+") if part != "plain"]
    return any(_digest(concept_id, part) % 10 == 0 for part in parts)


def held_out_pair(one: str, other: str) -> bool:
    """Whether two concepts are never shown in one picture, in either order: one pair in ten by md5."""
    return _digest(*sorted((one, other))) % 10 == 0


def styles_of(drawing: Drawing) -> list[str]:
    """The styles a drawing is trained in: all of STYLES and one colour with each of the styles of PAIRS, less
    the held-out ones.
    """
    pairs = sorted({pair.split("+")[0] for pair in PAIRS})
    colours = sorted({pair.split("+")[1] for pair in PAIRS})
    chosen = [f"{style}+{colours[_digest(drawing.svg, style) % len(colours)]}" for style in pairs]
    return [style for style in [*STYLES, *chosen] if not held_out(drawing.concept.id, style)]


def partners(drawings: list[Drawing]) -> list[tuple[int, int]]:
    """Which drawings (by index, left and right) are shown side by side: PARTNERS for each, of other concepts."""
    chosen = []
    for i, drawing in enumerate(drawings):
        rng = np.random.default_rng(_digest(drawing.svg))
        allowed = [
            j
            for j in rng.permutation(len(drawings))[: 4 * PARTNERS + 8].tolist()
            if drawings[j].concept.id != drawing.concept.id
            and not held_out_pair(drawings[j].concept.id, drawing.concept.id)
        ]
        chosen += [(i, j) for j in allowed[:PARTNERS]]
    return chosen


def styles_of_two(one: Drawing, other: Drawing) -> list[str]:
    """The styles two drawings side by side are trained in: plain, and one more of STYLES."""
    styles = [style for style in STYLES if style != "plain"]
    return ["plain", styles[_digest(one.svg, other.svg) % len(styles)]]


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two RGBA drawings at half size on one transparent ground."""
    canvas = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    gap = (SIZE // 2 - HALF) // 2
    for x, drawing in ((gap, left), (SIZE // 2 + gap, right)):
        canvas.paste(drawing.resize((HALF, HALF), Image.Resampling.LANCZOS), (x, (SIZE - HALF) // 2))
    return canvas


@dataclass(frozen=True)
class Pictures:
    """`images[i]` (uint8, 256 x 256 x 3) shows the drawings `drawings[i]` (indices, one or two) in style `style[i]`."""

    images: np.ndarray
    drawings: list[tuple[int, ...]]
    style: list[str]

    @property
    def single(self) -> np.ndarray:
        """The indices of the pictures that show one thing."""
        return np.flatnonzero([len(shown) == 1 for shown in self.drawings])


def _render_all(job: tuple[tuple[Drawing, ...], list[str]]) -> np.ndarray:
    shown, styles = job
    rgba = shown[0].rgba if len(shown) == 1 else side_by_side(*(drawing.rgba for drawing in shown))
    return np.stack([np.asarray(render(rgba, style)) for style in styles])


def build(folder: Path, drawings: list[Drawing], workers: int = 2) -> Pictures:
    """Render the pictures into `folder`, or open them if they are there already for the same drawings and styles."""
    shown = [((i,), styles_of(drawing)) for i, drawing in enumerate(drawings)]
    shown += [((i, j), styles_of_two(drawings[i], drawings[j])) for i, j in partners(drawings)]
    index = [(list(which), style) for which, styles in shown for style in styles]
    file, index_file = folder / "pictures.npy", folder / "pictures.json"
    about = {"index": [list(row) for row in index], "source": [f"{_digest(d.svg):08x}" for d in drawings]}
    if not (index_file.exists() and json.loads(index_file.read_text()) == about):
        folder.mkdir(parents=True, exist_ok=True)
        index_file.unlink(missing_ok=True)
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (len(index), SIZE, SIZE, 3))
        jobs = [(tuple(drawings[i] for i in which), styles) for which, styles in shown]
        start = 0
        with ProcessPoolExecutor(workers) as pool:
            for block in tqdm(pool.map(_render_all, jobs, chunksize=8), "rendering", len(jobs)):
                images[start : start + len(block)] = block
                start += len(block)
        images.flush()
        work = index_file.with_suffix(".tmp")
        work.write_text(json.dumps(about))
        os.replace(work, index_file)
    return Pictures(np.load(file, mmap_mode="r"), [tuple(which) for which, _ in index], [style for _, style in index])
