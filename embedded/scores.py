"""Compute a model's scores from the judge's verdicts: a report, a table for the terminal and a sheet of pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from embedded.judge import Verdict
from embedded.prompts import GROUPS, Task
from embedded.references import PAIRED, split_style
from embedded.styles import STYLES

COLUMNS, ROWS = 12, 8  # of the contact sheet
TILE = 128  # pixels per side of its pictures


def report(tasks: Sequence[Task], verdicts: Sequence[Verdict | None]) -> dict[str, Any]:
    """Return a dict with the shares of right concepts ("top1") and right styles ("style"), from 0 to 1, both shares for
    each style ("styles"), the numbers of prompts, and a list of the wrong pictures ("failures").

    `verdicts` are the judge's answers (concept and style) for the pictures of `tasks`. A missing one (None) counts as
    wrong. Prompts in other spellings are scored by the concept alone.
    """
    rows = [
        (
            task,
            verdict is not None and verdict.concept == task.concept,
            verdict is not None and verdict.style == task.style,
        )
        for task, verdict in zip(tasks, verdicts, strict=True)
    ]
    pairs = [row for row in rows if row[0].group != "aliases"]
    styles = {}
    for name in dict.fromkeys([*STYLES, *(f"{medium}+colour" for medium in PAIRED)]):
        chosen = [row for row in pairs if _style_row(row[0].style) == name]
        styles[name] = {"prompts": len(chosen), "top1": _share_of(chosen, 1), "style": _share_of(chosen, 2)}
    top1 = {group: _share_of([row for row in rows if row[0].group == group], 1) for group in GROUPS}
    failures = [
        {"prompt": task.prompt, "group": task.group, "concept": task.concept, "style": task.style}
        | {"number": i, "seen": verdict and [verdict.concept, verdict.style]}
        for i, ((task, concept, style), verdict) in enumerate(zip(rows, verdicts, strict=True))
        if not (concept and (style or task.group == "aliases"))
    ]
    return {
        "top1": {group: top1[group] for group in ("trained", "held_out")},
        "style": _share_of(pairs, 2),
        "aliases": top1["aliases"],
        "prompts": len(pairs),
        "alias_prompts": len(rows) - len(pairs),
        "styles": styles,
        "failures": failures,
    }


def table(tasks: Sequence[Task], result: Mapping[str, Any]) -> str:
    """Return the dict of `report` as a text table. `result["judge"]` has to hold the judge's own accuracy, too."""
    count = {group: sum(task.group == group for task in tasks) for group in GROUPS}
    lines = [(group.replace("_", " "), count[group], result["top1"][group], "") for group in ("trained", "held_out")]
    lines += [("trained and held out", result["prompts"], "", result["style"])]
    lines += [("other spellings", count["aliases"], result["aliases"], "")]
    lines += [(f"  {name}", row["prompts"], row["top1"], row["style"]) for name, row in result["styles"].items()]
    lines += [("the judge, unseen", "", result["judge"]["top1"], result["judge"]["style"])]
    cells = [[cell_text(value) for value in line] for line in [("", "prompts", "concept", "style"), *lines]]
    return "\n".join(f"{a:22}{b:>8}{c:>10}{d:>10}" for a, b, c, d in cells)


def sheet(
    tasks: Sequence[Task], images: Sequence[Image.Image | None], verdicts: Sequence[Verdict | None]
) -> Image.Image:
    """Return a grid of the first pictures, trained pairs of concept and style above held-out ones. A picture with a
    wrong concept or style has a red frame. A missing picture is grey with a red frame.
    """
    held_out = [i for i, task in enumerate(tasks) if task.group == "held_out"][: COLUMNS * (ROWS // 3)]
    trained = [i for i, task in enumerate(tasks) if task.group == "trained"][: COLUMNS * ROWS - len(held_out)]
    rows = -(-len(trained + held_out) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * TILE, rows * TILE), "white")
    for place, i in enumerate(trained + held_out):
        tile = (images[i] or Image.new("RGB", (TILE, TILE), "grey")).resize((TILE, TILE), Image.LANCZOS)
        if verdicts[i] != Verdict(tasks[i].concept, tasks[i].style):
            tile = ImageOps.expand(ImageOps.crop(tile, 3), 3, "red")
        canvas.paste(tile, (place % COLUMNS * TILE, place // COLUMNS * TILE))
    return canvas


def share(flags: Sequence[bool]) -> float | None:
    """Return the share of true flags, from 0 to 1, rounded to four digits. None if there are no flags."""
    return round(float(np.mean(flags)), 4) if flags else None


def cell_text(value: object) -> str:
    """Return a value as text for a table: a float is a share, shown as a percentage, and None is an empty cell."""
    return f"{value:.1%}" if isinstance(value, float) else "" if value is None else str(value)


def _style_row(style: str) -> str:
    """Return the name of the table's row that counts a style: "oil+colour" for "oil+blue", "oil" for "oil"."""
    medium, ground = split_style(style)
    return f"{medium}+colour" if ground and medium != "plain" else style


def _share_of(rows: Sequence[tuple], column: int) -> float | None:
    return share([row[column] for row in rows])
