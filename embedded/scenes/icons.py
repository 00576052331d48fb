"""The icon sets that the drawings come from: npm packages of openly licensed SVG emoji."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from jsd.errors import MissingPackageError, TrainingError

# (npm package, version, licence). Every emoji of a concept has a drawing in each set that knows it.
ICON_SETS = {
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0, Google Noto Emoji"),
    "fluent": ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT, Microsoft Fluent Emoji"),
}


def fetch(folder: Path) -> None:
    """Download each icon set with npm into `folder`/NAME, unless `folder`/NAME/icons.json exists. Raises
    `MissingPackageError` if npm is not installed, and CalledProcessError if npm fails.
    """
    for name, (package, version, _) in ICON_SETS.items():
        if (folder / name / "icons.json").exists():
            continue
        if shutil.which("npm") is None:
            raise MissingPackageError("npm is needed to fetch {} into {}; install Node.js", package, folder / name)
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


class IconSet:
    """An icon set, read from the folder of its npm package. Raises `TrainingError` if it cannot be read."""

    def __init__(self, folder: Path):
        try:
            self.data = json.loads((folder / "icons.json").read_text("utf-8"))
            chars = json.loads((folder / "chars.json").read_text("utf-8"))
            self.names = {key.replace("-fe0f", ""): name for key, name in chars.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise TrainingError("{}: unreadable ({}); delete it, and it is fetched again", folder, error) from error

    def is_face(self, emoji: str) -> bool:
        """Whether the emoji shows a face alone."""
        return self.names.get(codepoints(emoji), "").endswith("-face")

    def svg(self, emoji: str) -> str | None:
        """The emoji's drawing, or None if the set has none."""
        name = self.names.get(codepoints(emoji))
        name = self.data.get("aliases", {}).get(name, {}).get("parent", name)
        icon = self.data["icons"].get(name)
        if icon is None:
            return None
        width, height = (icon.get(side, self.data.get(side, 16)) for side in ("width", "height"))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )
