"""The drawings of the concepts as trimmed sprites, rendered once from SVG emoji.

A sprite is uint8 RGBA with the colour multiplied by alpha, so that it can be resized and laid over a ground without
fringes.
"""

import hashlib
import io
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from embedded.scenes.concepts import CONCEPTS_FILE, Concept, load_concepts
from embedded.scenes.icons import ICON_SETS, IconSet, codepoints
from jsd.atomic import atomic_file, write_text
from jsd.errors import TrainingError

SIZE = 256  # of the pictures that sprites are cut out of, in pixels


@dataclass(frozen=True)
class Drawing:
    """One picture of a concept. `key` is icon set and code points, "noto/1f431"; `face` says that it is the face of
    something that has other drawings too.
    """

    key: str
    face: bool

    @property
    def icon_set(self) -> str:
        return self.key.split("/")[0]


@dataclass(eq=False)
class Assets:
    """All concepts and drawings by concept id, and their sprites in one flat array (a memory map)."""

    concepts: dict[str, Concept]
    drawings: dict[str, list[Drawing]]
    pixels: np.ndarray = field(repr=False)
    places: dict[str, tuple[int, int, int, float]] = field(repr=False)  # offset, height, width, share that is opaque

    def sprite(self, key: str) -> np.ndarray:
        """The sprite of a drawing: height x width x 4, trimmed."""
        start, height, width, _ = self.places[key]
        return np.asarray(self.pixels[start : start + height * width * 4]).reshape(height, width, 4)

    def is_card(self, key: str) -> bool:
        """Whether the drawing fills its rectangle: a small picture with a ground of its own, or a button."""
        return self.places[key][3] > 0.93


def load_assets(icons: Path, concepts: Path = CONCEPTS_FILE, cache: Path | None = None, workers: int = 2) -> Assets:
    """The assets of a concept table and the icon sets under `icons`; sprites are kept in `cache` (default: `icons`).

    Raises `TrainingError` if an icon set cannot be read (see `icons.fetch`) or none draws a concept.
    """
    table = load_concepts(concepts)
    sets = {name: IconSet(icons / name) for name in ICON_SETS}
    drawings, svgs = {}, {}
    for concept in table.values():
        found = []
        for emoji in concept.emoji:
            for name, icon_set in sets.items():
                if svg := icon_set.svg(emoji):
                    key = f"{name}/{codepoints(emoji)}"
                    found.append(Drawing(key, len(concept.emoji) > 1 and icon_set.is_face(emoji)))
                    svgs[key] = svg
        if not found:
            raise TrainingError(
                "concept {!r}: no drawing of {} in {}; change its emoji", concept.id, concept.emoji, list(sets)
            )
        drawings[concept.id] = found
    pixels, places = _sprites(svgs, cache or icons, workers)
    return Assets(table, drawings, pixels, places)


def _sprites(svgs: dict[str, str], folder: Path, workers: int) -> tuple[np.ndarray, dict[str, tuple]]:
    """All sprites in one flat array, and where each one is. They are drawn anew if the drawings have changed."""
    digest = hashlib.sha256("\n".join(f"{k}\t{v}" for k, v in sorted(svgs.items())).encode()).hexdigest()
    index = folder / "sprites.json"
    file = folder / f"sprites-{digest[:12]}.npy"
    if not (index.exists() and file.exists() and json.loads(index.read_text("utf-8"))["digest"] == digest):
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers) as pool:
            sprites = list(pool.map(_draw, svgs.values(), chunksize=16))
        starts = np.cumsum([0, *(sprite.size for sprite in sprites)]).tolist()
        places = {
            key: (start, *sprite.shape[:2], float((sprite[..., 3] > 127).mean()))
            for key, start, sprite in zip(svgs, starts, sprites, strict=False)
        }
        with atomic_file(file) as part:
            np.save(part, np.concatenate([sprite.ravel() for sprite in sprites]))
        write_text(index, json.dumps({"digest": digest, "places": places}))
    places = {key: tuple(place) for key, place in json.loads(index.read_text("utf-8"))["places"].items()}
    return np.load(file, mmap_mode="r"), places


def _draw(svg: str) -> np.ndarray:
    """The SVG as a trimmed sprite."""
    import resvg_py
    from PIL import Image

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    x, y, width, height = cv2.boundingRect((rgba[..., 3] > 8).astype(np.uint8))
    return np.ascontiguousarray(rgba[y : y + height, x : x + width] + 0.5).astype(np.uint8)
