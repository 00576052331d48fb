"""The drawings that the embedded model learns from: openly licensed emoji, and the concept that each one shows.

`concepts.tsv` lists the concepts with their id, emoji, Japanese names and English names. The first name is the
canonical one. The icon sets are npm packages of SVG icons: `fetch` downloads and unpacks them, `load_drawings` reads
them.
"""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import resvg_py
from PIL import Image

from jsd.errors import MissingPackageError, TrainingError

# (npm package, version, licence). Every emoji of a concept has a drawing in each set that knows it.
ICON_SETS = {
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0, Google Noto Emoji"),
    "fluent": ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT, Microsoft Fluent Emoji"),
}
CONCEPTS_FILE = Path(__file__).with_name("concepts.tsv")
SIZE = 256
MARGIN = 12  # pixels of background around a drawing


@dataclass(frozen=True)
class Concept:
    """A thing that can be drawn, such as a cat. `ja` and `en` hold its Japanese and English names, the canonical one
    first. `emoji` holds the emoji that show it.
    """

    id: str
    emoji: tuple[str, ...]
    ja: tuple[str, ...]
    en: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """One emoji of one icon set, as SVG, and the concept that it shows. `face` is true if the emoji shows only a face,
    and the concept (such as a cat) has other emoji too.
    """

    concept: Concept
    icon_set: str
    emoji: str
    face: bool
    svg: str

    @cached_property
    def rgba(self) -> Image.Image:
        """The drawing on a transparent background, as an RGBA picture of SIZE x SIZE pixels."""
        inner = SIZE - 2 * MARGIN
        png = bytes(resvg_py.svg_to_bytes(svg_string=self.svg, width=inner, height=inner))
        canvas = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
        canvas.paste(Image.open(io.BytesIO(png)).convert("RGBA"), (MARGIN, MARGIN))
        return canvas


def load_concepts(path: Path = CONCEPTS_FILE) -> list[Concept]:
    """Read the concepts from a table like concepts.tsv, in its order."""
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:] if line.strip()]
    return [Concept(i, tuple(emoji.split()), tuple(ja.split("|")), tuple(en.split("|"))) for i, emoji, ja, en in rows]


def fetch(folder: Path) -> None:
    """Download each icon set with npm into `folder`/NAME, unless `folder`/NAME/icons.json exists. Raises
    `MissingPackageError` if npm is not installed, and CalledProcessError if npm fails.
    """
    for name, (package, version, _) in ICON_SETS.items():
        if (folder / name / "icons.json").exists():
            continue
        if shutil.which("npm") is None:
            raise MissingPackageError(f"npm is needed to fetch {package} into {folder / name}; install Node.js")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            subprocess.run(
                ["npm", "pack", "--loglevel=error", f"{package}@{version}"],
                cwd=work,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            with tarfile.open(next(Path(work).glob("*.tgz"))) as archive:
                archive.extractall(work, filter="data")
            shutil.rmtree(folder / name, ignore_errors=True)  # an incomplete set
            shutil.move(Path(work) / "package", folder / name)


def codepoints(emoji: str) -> str:
    """Return the icon sets' key for an emoji: its code points in hexadecimal, without the variation selector."""
    return "-".join(f"{ord(c):x}" for c in emoji if c != "\ufe0f")


def load_drawings(folder: Path, concepts: list[Concept] | None = None) -> list[Drawing]:
    """Read all drawings of `concepts`, by default all of concepts.tsv, from the icon sets in `folder` (see `fetch`).
    Raises `TrainingError` if a concept has no drawing.
    """
    drawings = []
    sets = {name: _IconSet(folder / name) for name in ICON_SETS}
    for concept in concepts or load_concepts():
        found = [
            Drawing(concept, name, emoji, len(concept.emoji) > 1 and icons.is_face(emoji), icons.svg(emoji))
            for emoji in concept.emoji
            for name, icons in sets.items()
            if icons.svg(emoji)
        ]
        if not found:
            raise TrainingError(
                f"concept {concept.id!r}: no drawing of {concept.emoji} in {list(sets)}; change its emoji"
            )
        drawings += found
    return drawings


class _IconSet:
    """An icon set, read from the folder of its npm package: the SVG of each emoji and its name."""

    def __init__(self, folder: Path):
        try:
            self.data = json.loads((folder / "icons.json").read_text("utf-8"))
            chars = json.loads((folder / "chars.json").read_text("utf-8"))
            self.names = {key.replace("-fe0f", ""): name for key, name in chars.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise TrainingError(f"{folder}: unreadable ({error}); delete it, and it is fetched again") from error

    def is_face(self, emoji: str) -> bool:
        return self.names.get(codepoints(emoji), "").endswith("-face")

    def svg(self, emoji: str) -> str | None:
        name = self.names.get(codepoints(emoji))
        name = self.data.get("aliases", {}).get(name, {}).get("parent", name)
        icon = self.data["icons"].get(name)
        if icon is None:
            return None
        size = [icon.get(side, self.data.get(side, 16)) for side in ("width", "height")]
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {size[0]} {size[1]}">{icon["body"]}</svg>'
        )
