"""What a judged picture shows of its scene, and the shares of pictures that show it: the table of the evaluation."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps

from embedded.judge import Verdict
from embedded.prompts import Task, sort_of
from embedded.scenes import COLOURS, Scene, held_out

ROWS = {  # name: what has to be right for a picture to count
    "one": "single thing",
    "one, held out": "single thing, held-out style or ground",
    "spelling": "other spellings",
    "place": "thing and place both",
    "place, held out": "thing and place both, held out",
    "two": "two things both",
    "two, held out": "two things both, held out",
    "relation": "left, right, above, below, in front (of both)",
    "count": "how many",
    "colour": "colour of a thing",
    "ground": "colour of the ground",
    "style": "style",
}
COLUMNS, TILE = 12, 128  # of the sheet: pictures in a row, pixels per side of a picture


def marks(scene: Scene, verdict: Verdict) -> dict[str, bool]:
    """Return what the scene tests (a row of ROWS, without the split) and whether the picture, by its verdict, is right.

    A relation is only tested where both things are seen: it is a matter of their middles.
    """
    wanted = [thing.concept.id for thing in scene.things]
    seen = {sight.concept: sight for sight in reversed(verdict.things)}
    first = verdict.things[0] if verdict.things else None
    sort, there = sort_of(scene), set(wanted) <= set(seen)
    right = {}
    if sort == "one":
        right["one"] = first is not None and first.concept == wanted[0]
    elif sort == "place":
        right["place"] = first is not None and first.concept == wanted[0] and verdict.ground == scene.ground
    elif sort == "count":
        right["count"] = len(verdict.things) == scene.things[0].count
    elif sort == "colour":
        right["colour"] = first is not None and first.colour == scene.things[0].colour
    elif sort in ("two", "relation"):
        right["two"] = there
    if sort == "relation" and there:
        a, b = (seen[concept] for concept in wanted)
        across, down = a.x - b.x, a.y - b.y
        away = {"left": -across, "right": across, "above": -down, "below": down, "front": down}
        right["relation"] = away[scene.relation or ""] > 0
    if scene.ground in COLOURS and scene.ground != "white":
        right["ground"] = verdict.ground == scene.ground
    if scene.style != "plain":
        right["style"] = verdict.style == scene.style
    return right


def task_marks(task: Task, verdict: Verdict) -> dict[str, bool]:
    """Return the rows of ROWS that the task belongs to, and whether its picture is right in each."""
    right = marks(task.scene, verdict)
    if task.group == "spelling":
        return {"spelling": right["one"]}
    held = ", held out" if held_out(task.scene) else ""
    return {name + (held if name + held in ROWS else ""): flag for name, flag in right.items()}


def shares(flags: Iterable[Mapping[str, bool]]) -> dict[str, float | None]:
    """Return the share of right pictures for every row that `flags` (one dict per picture) names."""
    found: dict[str, list[bool]] = {}
    for picture in flags:
        for name, flag in picture.items():
            found.setdefault(name, []).append(flag)
    return {name: share(values) for name, values in found.items()}


def report(tasks: Sequence[Task], verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return "scores" (the share of right pictures for each of ROWS), "counts" (the numbers of pictures), and
    "failures", a list of the wrong pictures.
    """
    flags = [task_marks(task, verdict) for task, verdict in zip(tasks, verdicts, strict=True)]
    measured = shares(flags)
    return {
        "scores": {name: measured.get(name) for name in ROWS},
        "counts": {name: sum(name in picture for picture in flags) for name in ROWS},
        "failures": [
            {
                "number": i,
                "group": task.group,
                "prompt": task.ja,
                "wrong": [k for k, flag in picture.items() if not flag],
            }
            | {"seen": [s.concept for s in verdict.things], "style": verdict.style, "ground": verdict.ground}
            for i, (task, verdict, picture) in enumerate(zip(tasks, verdicts, flags, strict=True))
            if not all(picture.values())
        ],
    }


def table(result: Mapping, accuracy: Mapping[str, float]) -> str:
    """Return the dict of `report` as a text table, with the judge's own accuracy in the last column."""
    lines = [("", "pictures", "right", "judge itself")]
    for name, words in ROWS.items():
        itself = accuracy.get(name.removesuffix(", held out"), accuracy.get("one") if name == "spelling" else None)
        lines.append((words, result["counts"][name], result["scores"][name], itself))
    return "\n".join(f"{words:46}" + "".join(f"{cell_text(v):>14}" for v in values) for words, *values in lines)


def sheet(tasks: Sequence[Task], images: Sequence[Image.Image | None], verdicts: Sequence[Verdict]) -> Image.Image:
    """Return a grid of the first pictures of each group, a group in a row. A picture that is wrong in anything has a
    red frame. A missing picture is grey with a red frame.
    """
    groups = list(dict.fromkeys(task.group for task in tasks))
    canvas = Image.new("RGB", (COLUMNS * TILE, max(1, len(groups)) * TILE), "white")
    for row, group in enumerate(groups):
        for column, i in enumerate([i for i, task in enumerate(tasks) if task.group == group][:COLUMNS]):
            tile = (images[i] or Image.new("RGB", (TILE, TILE), "grey")).resize((TILE, TILE), Image.LANCZOS)
            if not all(task_marks(tasks[i], verdicts[i]).values()):
                tile = ImageOps.expand(ImageOps.crop(tile, 3), 3, "red")
            canvas.paste(tile, (column * TILE, row * TILE))
    return canvas


def share(flags: Sequence[bool]) -> float | None:
    """Return the share of true flags, from 0 to 1, rounded to four digits. None if there are no flags."""
    return round(float(np.mean(flags)), 4) if flags else None


def cell_text(value: object) -> str:
    """Return a value as text for a table: a float is a share, shown as a percentage, and None is an empty cell."""
    return f"{value:.1%}" if isinstance(value, float) else "" if value is None else str(value)
