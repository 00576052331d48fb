"""Icon sets of coloured shapes, which need no download, and a short table of concepts."""

import json
from pathlib import Path

from embedded.scenes import load_concepts
from embedded.scenes.concepts import CONCEPTS_FILE
from embedded.scenes.icons import ICON_SETS, codepoints

BODIES = ('<circle cx="16" cy="16" r="13" fill="{}"/>', '<path d="M16 3 30 29H2z" fill="{}"/>')


def short_table(file: Path, ids: tuple[str, ...]) -> Path:
    """Write the table of these concepts alone, and return it."""
    head, *rows = CONCEPTS_FILE.read_text("utf-8").splitlines()
    chosen = [row for row in rows if row.split("\t")[0] in ids]
    file.write_text("\n".join([head, *chosen]) + "\n", "utf-8")
    return file


def write_icons(folder: Path) -> Path:
    """Write icon sets that draw each concept of the whole table as one of BODIES, and return the folder."""
    emoji = [emoji for concept in load_concepts().values() for emoji in concept.emoji]
    icons = {
        codepoints(one): {"body": BODIES[k % 2].format(f"#{(k * 99991) % 0x1000000:06x}")}
        for k, one in enumerate(emoji)
    }
    for name in ICON_SETS:
        (folder / name).mkdir(parents=True)
        (folder / name / "icons.json").write_text(json.dumps({"icons": icons, "width": 32, "height": 32}))
        (folder / name / "chars.json").write_text(json.dumps({key: key for key in icons}))
    return folder
