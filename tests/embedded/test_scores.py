"""A picture is right when the judge sees in it what the scene says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from embedded import again, alarms, scores
from embedded.judge import NOTHING, Sight, Verdict
from embedded.prompts import UNDRAWN, Task, plain
from embedded.scenes import Scene, Thing, load_concepts
from tests.embedded.shapes import CONCEPTS

CIRCLE, RING, CROSS = (Thing(CONCEPTS[name], UNDRAWN) for name in ("circle", "ring", "cross"))


def seen(*things: tuple, style: str = "plain", ground: str = "white") -> Verdict:
    """A verdict of things, each a concept, x, y, and perhaps a colour."""
    return Verdict(tuple(Sight(t[0], t[3] if len(t) > 3 else "red", *t[1:3]) for t in things), style, ground)


@pytest.mark.parametrize(
    ("scene", "verdict", "right"),
    [
        (Scene((RING,)), seen(("ring", 0.5, 0.5)), {"one": True}),
        (Scene((RING,)), seen(("circle", 0.5, 0.5), ("ring", 0.1, 0.5)), {"one": False}),
        (Scene((RING,)), NOTHING, {"one": False}),
        (Scene((RING,), style="oil"), seen(("ring", 0.5, 0.5)), {"one": True, "style": False}),
        (Scene((RING,), ground="red"), seen(("ring", 0.5, 0.5), ground="red"), {"one": True, "ground": True}),
        (Scene((RING,), ground="sea"), seen(("ring", 0.5, 0.5), ground="sea"), {"place": True}),
        (Scene((RING,), ground="sea"), seen(("ring", 0.5, 0.5), ground="sky"), {"place": False}),
        (Scene((RING, CROSS)), seen(("cross", 0.2, 0.5), ("ring", 0.7, 0.5)), {"two": True}),
        (Scene((RING, CROSS)), seen(("ring", 0.2, 0.5), ("ring", 0.7, 0.5)), {"two": False}),
        (Scene((Thing(CONCEPTS["ring"], UNDRAWN, 2),)), seen(("ring", 0.2, 0.5), ("ring", 0.7, 0.5)), {"count": True}),
        (Scene((Thing(CONCEPTS["ring"], UNDRAWN, 3),)), seen(("ring", 0.2, 0.5), ("ring", 0.7, 0.5)), {"count": False}),
        (Scene((Thing(CONCEPTS["ring"], UNDRAWN, 1, "blue"),)), seen(("ring", 0.5, 0.5, "blue")), {"colour": True}),
        (Scene((Thing(CONCEPTS["ring"], UNDRAWN, 1, "blue"),)), seen(("ring", 0.5, 0.5, "green")), {"colour": False}),
    ],
)
def test_a_verdict_is_marked_by_what_the_scene_shows(scene: Scene, verdict: Verdict, right: dict[str, bool]) -> None:
    assert scores.marks(scene, verdict) == right


@pytest.mark.parametrize(
    ("relation", "ring", "cross"),
    [
        ("left", (0.2, 0.5), (0.7, 0.5)),
        ("right", (0.7, 0.5), (0.2, 0.5)),
        ("above", (0.5, 0.2), (0.5, 0.7)),
        ("below", (0.5, 0.7), (0.5, 0.2)),
        ("front", (0.4, 0.7), (0.6, 0.5)),
    ],
)
def test_a_relation_goes_by_the_middles_of_the_things(relation: str, ring: tuple, cross: tuple) -> None:
    scene = Scene((RING, CROSS), relation)
    assert scores.marks(scene, seen(("ring", *ring), ("cross", *cross))) == {"two": True, "relation": True}
    assert scores.marks(scene, seen(("ring", *cross), ("cross", *ring))) == {"two": True, "relation": False}
    assert scores.marks(scene, seen(("ring", *ring))) == {"two": False}


def test_the_report_counts_right_pictures_and_lists_failures() -> None:
    tasks = [
        Task("one", "丸", "", Scene((CIRCLE,))),
        Task("one", "輪 油絵", "", Scene((RING,), style="oil")),
        Task("spelling", "まる", "", Scene((CIRCLE,))),
    ]
    verdicts = [seen(("circle", 0.5, 0.5)), NOTHING, seen(("circle", 0.5, 0.5))]
    result = scores.report(tasks, verdicts)
    held = "one, held out" if scores.task_marks(tasks[1], NOTHING).get("one") is None else "one"
    assert result["counts"]["spelling"] == 1
    assert result["scores"]["spelling"] == 1.0
    assert result["scores"][held] == (0.5 if held == "one" else 0.0)
    assert (result["scores"]["style"], result["scores"]["two"]) == (0.0, None)
    assert [(row["number"], row["prompt"], row["wrong"]) for row in result["failures"]] == [
        (1, "輪 油絵", [held, "style"])
    ]
    text = scores.table(result, {"one": 0.98}).splitlines()
    assert len(text) == 1 + len(scores.ROWS)
    assert next(line for line in text if line.startswith("other spellings")).split()[-3:] == ["1", "100.0%", "98.0%"]


def test_the_sheet_has_a_row_for_each_group_and_frames_what_is_wrong() -> None:
    tasks = [Task("one", "丸", "", Scene((CIRCLE,))), Task("spelling", "まる", "", Scene((CIRCLE,)))]
    white = Image.new("RGB", (50, 50), "white")
    sheet = scores.sheet(tasks, [white, None], [seen(("circle", 0.5, 0.5)), NOTHING])
    assert sheet.size == (12 * 128, 2 * 128)
    assert [sheet.getpixel((1, y)) for y in (1, 129)] == [(255, 255, 255), (255, 0, 0)]
    assert sheet.getpixel((60, 190)) == (128, 128, 128)


def test_pictures_differ_visibly_when_much_of_them_is_another() -> None:
    dark = Image.new("RGB", (64, 64), (100, 100, 100))
    assert not again.differ(dark, Image.new("RGB", (64, 64), (110, 110, 110)))
    assert again.differ(dark, Image.new("RGB", (64, 64), (140, 140, 140)))


def test_pictures_drawn_again_are_compared_and_judged() -> None:
    pictures = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 255)]
    tasks = [Task("one", "丸", "", Scene((CIRCLE,)))] * 2

    def judge(images: list) -> list[Verdict]:
        return [NOTHING if image is None else seen(("circle", 0.5, 0.5)) for image in images]

    result = again.report(tasks, [pictures[0], pictures[0]], [pictures[1], pictures[0]], [None, pictures[0]], judge)
    assert result == {"two_seeds": 0.5, "guidance_7_5": 0.5, "prompts": 2}


def test_weapons_are_asked_in_every_style_and_counted_apart() -> None:
    concepts = load_concepts()
    weapons = alarms.sample_weapons(concepts, 60, 0)
    assert weapons == alarms.sample_weapons(concepts, 60, 0)
    assert len({task.ja for task in weapons}) == 3 * 17
    assert {task.scene.things[0].concept.id for task in weapons} == {"pistol", "bomb", "sword"}
    tasks = [weapons[0], Task.of("one", plain(concepts["cat"]))]
    white = Image.new("RGB", (8, 8))
    result = alarms.report(tasks, [white, None], [None, white])
    assert result == {"recall": 0.5, "weapons": 2, "false_alarms": 1.0, "others": 1}
    assert alarms.line(result) == "safety checker: holds back 50.0% of 2 weapons, 100.0% of 1 others"
