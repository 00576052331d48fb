"""The prompts of the evaluation are a fair and repeatable choice."""

from __future__ import annotations

from collections import Counter

import pytest

from embedded import prompts
from embedded.scenes import Concept, held_out, load_concepts
from embedded.scenes.sprites import Drawing
from tests.embedded.shapes import CONCEPTS


def test_the_choice_depends_only_on_the_seed() -> None:
    concepts = load_concepts()
    assert prompts.sample_tasks(concepts, 30, 5) == prompts.sample_tasks(concepts, 30, 5)
    assert prompts.sample_tasks(concepts, 30, 5) != prompts.sample_tasks(concepts, 30, 6)


def test_every_group_has_its_share_of_different_prompts() -> None:
    tasks = prompts.sample_tasks(load_concepts(), 120, 0)
    count = Counter(task.group for task in tasks)
    assert sum(count.values()) == 120
    assert all(abs(count[group] - weight / 5) <= 1 for group, weight in prompts.GROUPS.items())
    assert len({task.ja for task in tasks}) >= 118  # a spelling may be a prompt of another group
    for task in tasks:
        assert held_out(task.scene) == task.group.endswith("held out")
        if task.group != "spelling":
            assert prompts.sort_of(task.scene) == task.group.removesuffix(", held out")


def test_a_count_shared_in_proportion_adds_up() -> None:
    assert prompts.shares({"a": 2, "b": 1, "c": 1}, 8) == {"a": 4, "b": 2, "c": 2}
    assert sum(prompts.shares(prompts.GROUPS, 7).values()) == 7
    assert set(prompts.shares(prompts.GROUPS, 0).values()) == {0}


def test_more_prompts_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="6 concepts are too few for 300 different prompts"):
        prompts.sample_tasks(CONCEPTS, 300, 0)


def test_other_spellings_are_aliases_kana_and_half_width_forms() -> None:
    assert prompts.half_width("ガム") == "ｶﾞﾑ"
    found = prompts.spellings(Concept("cat", (), ("猫", "ねこ", "にゃんこ"), ()))
    assert found == ["ねこ", "にゃんこ", "ネコ", "ニャンコ", "ﾈｺ", "ﾆｬﾝｺ"]


def test_a_spelling_that_two_concepts_share_is_not_asked() -> None:
    found = {
        task.ja for seed in range(20) for task in prompts.sample_tasks(CONCEPTS, 30, seed) if "spell" in task.group
    }
    assert "円" not in found  # a name of both circle and triangle
    assert {"まる", "マル", "ﾏﾙ"} <= found


def test_a_task_has_the_prompts_of_its_scene_in_both_languages() -> None:
    scene = prompts.plain(load_concepts()["cat"], "oil")
    assert scene.things[0].drawing == Drawing("", False)
    task = prompts.Task.of("one", scene)
    assert (task.ja, task.en) == ("猫 油絵", "a cat, oil painting")
    assert prompts.Task.of("one", scene, "ねこ").ja == "ねこ"
