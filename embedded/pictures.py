"""The training pictures of the embedded model, rendered once into a file.

They show every drawing in several styles, and two drawings side by side. One (concept, style) pair in ten is held out:
no picture shows that concept alone in that style. One pair of concepts in ten is held out: no picture shows both. The
evaluation asks for held-out pairs to measure how well the model composes.

`build` writes `pictures.npy`, uint8 (n, 256, 256, 3), which is opened as a memory map, and `pictures.json`, the
drawings and the style of each picture.
"""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from embedded.drawings import SIZE, Drawing
from embedded.styles import PAIRS, STYLES, render
from jsd.atomic import write_text
from jsd.errors import TrainingError

PARTNERS = 2  # other drawings that each drawing is shown beside
HALF = SIZE // 2 - 6  # pixels per side of a drawing that shares its picture


def _digest(*words: str) -> int:
    """Return a 32-bit hash of the words, the same in every process."""
    return int.from_bytes(hashlib.md5("|".join(words).encode(), usedforsecurity=False).digest()[:4], "big")


def held_out(concept_id: str, style: str) -> bool:
    """Whether this style is held out: no training picture shows this concept alone in it. One such pair in ten is,
    by its md5 hash.
    "plain" is never held out. A combined style such as "oil+blue" is held out if "oil" or "blue" is.
    """
    parts = [part for part in style.split("+") if part != "plain"]
    return any(_digest(concept_id, part) % 10 == 0 for part in parts)


def held_out_pair(one: str, other: str) -> bool:
    """Whether two concepts are never shown in one picture, in either order. md5 chooses one pair of concepts in ten."""
    return _digest(*sorted((one, other))) % 10 == 0


def styles_of(drawing: Drawing) -> list[str]:
    """Return the styles in which the training pictures show a drawing alone: all of STYLES, and each medium of PAIRS
    (such as "oil") on one background colour, chosen by a hash. Styles held out for its concept are left out.
    """
    pairs = sorted({pair.split("+")[0] for pair in PAIRS})
    colours = sorted({pair.split("+")[1] for pair in PAIRS})
    chosen = [f"{style}+{colours[_digest(drawing.svg, style) % len(colours)]}" for style in pairs]
    return [style for style in [*STYLES, *chosen] if not held_out(drawing.concept.id, style)]


def partners(drawings: list[Drawing]) -> list[tuple[int, int]]:
    """Return the pairs of drawings that are shown side by side, as indices (left, right). Each drawing is shown on the
    left beside up to PARTNERS drawings of other concepts. No held-out pair of concepts is among them.
    """
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
    """Return the styles that two drawings side by side are trained in: "plain" and one other of STYLES. The other one
    is chosen by a hash of the drawings. It may be a style in which one of their concepts is never shown alone.
    """
    styles = [style for style in STYLES if style != "plain"]
    return ["plain", styles[_digest(one.svg, other.svg) % len(styles)]]


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Put two RGBA drawings, at about half size, onto one transparent background."""
    canvas = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    gap = (SIZE // 2 - HALF) // 2
    for x, drawing in ((gap, left), (SIZE // 2 + gap, right)):
        canvas.paste(drawing.resize((HALF, HALF), Image.Resampling.LANCZOS), (x, (SIZE - HALF) // 2))
    return canvas


@dataclass(frozen=True)
class Pictures:
    """The rendered training pictures: `images[i]`, uint8 (256, 256, 3), shows one or two drawings in style `style[i]`.
    `drawings[i]` holds the indices of these drawings.
    """

    images: np.ndarray
    drawings: list[tuple[int, ...]]
    style: list[str]

    @property
    def single(self) -> np.ndarray:
        """The indices of the pictures that show one drawing."""
        return np.flatnonzero([len(indices) == 1 for indices in self.drawings])


def _render_all(job: tuple[tuple[Drawing, ...], list[str]]) -> np.ndarray:
    """Render one drawing, or two side by side, in several styles: uint8 (styles, 256, 256, 3)."""
    drawings, styles = job
    rgba = drawings[0].rgba if len(drawings) == 1 else side_by_side(*(drawing.rgba for drawing in drawings))
    return np.stack([np.asarray(render(rgba, style)) for style in styles])


def build(folder: Path, drawings: list[Drawing], workers: int = 2) -> Pictures:
    """Render the training pictures of `drawings` into `folder`, and open them as a memory map. If the pictures of the
    same drawings in the same styles are there already, they are only opened.
    """
    groups = [((i,), styles_of(drawing)) for i, drawing in enumerate(drawings)]
    groups += [((i, j), styles_of_two(drawings[i], drawings[j])) for i, j in partners(drawings)]
    index = [(indices, style) for indices, styles in groups for style in styles]
    file, index_file = folder / "pictures.npy", folder / "pictures.json"
    about = {
        "index": [[list(indices), style] for indices, style in index],
        "source": [f"{_digest(drawing.svg):08x}" for drawing in drawings],
    }
    if not (index_file.exists() and index_file.read_text("utf-8", "replace") == json.dumps(about)):
        folder.mkdir(parents=True, exist_ok=True)
        index_file.unlink(missing_ok=True)  # it is written last, so its absence marks unfinished pictures
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (len(index), SIZE, SIZE, 3))
        jobs = [(tuple(drawings[i] for i in indices), styles) for indices, styles in groups]
        start = 0
        with ProcessPoolExecutor(workers) as pool:
            for block in tqdm(pool.map(_render_all, jobs, chunksize=8), "rendering", len(jobs)):
                images[start : start + len(block)] = block
                start += len(block)
        images.flush()
        write_text(index_file, json.dumps(about))
    try:
        images = np.load(file, mmap_mode="r")
    except ValueError as error:
        raise TrainingError(f"{file}: unreadable ({error}); delete {index_file}, and it is made again") from error
    return Pictures(images, [indices for indices, _ in index], [style for _, style in index])
