"""The prompts of the evaluation are a fair and repeatable choice."""

from __future__ import annotations

from embedded import prompts
from embedded.drawings import Concept, Drawing
from embedded.pictures import held_out, styles_of
from embedded.styles import PAIRS


def test_the_choice_of_pairs_depends_only_on_the_seed(shapes: list[Drawing]) -> None:
    assert prompts.sample_pairs(shapes, 30, 5) == prompts.sample_pairs(shapes, 30, 5)
    assert prompts.sample_pairs(shapes, 30, 5) != prompts.sample_pairs(shapes, 30, 6)


def test_the_group_of_a_pair_says_whether_it_is_held_out(shapes: list[Drawing]) -> None:
    tasks = prompts.sample_pairs(shapes, 600, 0)  # more than there are, so this returns all of them
    assert len({(task.concept, task.style) for task in tasks}) == len(tasks)
    trained_in = {drawing.concept.id: styles_of(drawing) for drawing in shapes}
    for task in tasks:
        assert task.group == ("held_out" if held_out(task.concept, task.style) else "trained")
        assert (task.style in trained_in[task.concept]) == (task.group == "trained")
    assert {task.group for task in tasks if task.style in PAIRS} == {"trained", "held_out"}
    assert any(task.prompt == "輪 油絵" for task in tasks)


def test_every_concept_is_asked_once_before_any_is_asked_twice(shapes: list[Drawing]) -> None:
    tasks = [task for task in prompts.sample_pairs(shapes, 12, 3) if task.group == "trained"]
    assert len(tasks) == 8
    assert {task.concept for task in tasks[:5]} == {drawing.concept.id for drawing in shapes}
    assert len({task.concept for task in tasks[5:]}) == 3


def test_other_spellings_are_aliases_kana_and_half_width_forms() -> None:
    assert prompts.half_width("ガム") == "ｶﾞﾑ"
    found = prompts.spellings(Concept("cat", (), ("猫", "ねこ", "にゃんこ"), ()))
    assert found == ["ねこ", "にゃんこ", "ネコ", "ニャンコ", "ﾈｺ", "ﾆｬﾝｺ"]


def test_a_spelling_that_two_concepts_share_is_not_asked(shapes: list[Drawing]) -> None:
    tasks = prompts.sample_aliases([drawing.concept for drawing in shapes], 100, 0)
    assert "円" not in [task.prompt for task in tasks]  # a name of both circle and triangle
    assert {("まる", "circle"), ("マル", "circle"), ("ﾏﾙ", "circle")} <= {(task.prompt, task.concept) for task in tasks}
