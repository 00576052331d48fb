"""Fixtures: two small icon sets, drawn here, for some rows of the table of concepts, and the assets made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedded.scenes.concepts import CONCEPTS_FILE, load_concepts
from embedded.scenes.icons import codepoints
from embedded.scenes.sprites import Assets, load_assets

WANTED = """
dog cat bird fish apple sushi ramen chair house car bullet_train torii mount_fuji dragon moon sun rose bee heart
scissors salaryman onsen t_shirt airplane tulip elephant ball umbrella lantern pencil fox
"""
SHAPES = (
    '<circle cx="16" cy="16" r="12" fill="{}"/><circle cx="12" cy="12" r="2" fill="#111"/>',
    '<path d="M16 3 30 29H2z" fill="{}"/><path d="M12 20h8v4h-8z" fill="#fff"/>',
    '<path d="M4 8h24v14H4z" fill="{}"/><circle cx="9" cy="24" r="4" fill="#222"/>',
    '<path d="M3 3h26v6H3zM3 13h18v6H3z" fill="{}"/>',
)


def icon_set(folder: Path, emoji: list[str], shift: int) -> None:
    """Write an icon set with a drawing for each emoji, as the npm packages have them."""
    folder.mkdir(parents=True)
    names = {codepoints(one): f"icon-{i}" for i, one in enumerate(emoji)}
    colours = np.random.default_rng(shift).integers(40, 220, (len(emoji), 3))
    bodies = [SHAPES[(i + shift) % 4].format("#" + bytes(c.tolist()).hex()) for i, c in enumerate(colours)]
    icons = {f"icon-{i}": {"body": body} for i, body in enumerate(bodies)}
    (folder / "icons.json").write_text(json.dumps({"icons": icons, "width": 32, "height": 32}))
    (folder / "chars.json").write_text(json.dumps(names))


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both icon sets, and concepts.tsv: the rows of WANTED."""
    folder = tmp_path_factory.mktemp("icons")
    header, *rows = CONCEPTS_FILE.read_text("utf-8").splitlines()
    rows = [row for row in rows if row.split("\t")[0] in WANTED.split()]
    (folder / "concepts.tsv").write_text("\n".join([header, *rows]) + "\n", "utf-8")
    emoji = [one for concept in load_concepts(folder / "concepts.tsv").values() for one in concept.emoji]
    icon_set(folder / "noto", emoji, 0)
    icon_set(folder / "fluent", emoji[::2], 1)
    return folder


@pytest.fixture(scope="session")
def assets(icons: Path) -> Assets:
    """The assets of `icons`. Tests share them, so they only read them."""
    return load_assets(icons, icons / "concepts.tsv")
