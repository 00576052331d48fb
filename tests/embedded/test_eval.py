"""The quality suite: its judge learns from drawings alone, its prompts are a fair choice, its report is true.

The drawings are a few plain shapes, so that nothing has to be downloaded and the judge learns in seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedded import evaluate, judge, prompts, references
from embedded.drawings import Concept, Drawing
from embedded.judge import Judge, Verdict
from embedded.pictures import held_out, styles_of
from embedded.prompts import Task
from embedded.styles import PAIRS, STYLES, render
from jsd import sampling
from jsd.errors import NSFWError
from jsd.model import Components
from jsd.request import Request
from jsd.train.trainer import Plan
from tests.fakes import psnr

SHAPES = {
    "circle": (("丸", "まる", "円"), '<circle cx="16" cy="16" r="13" fill="#d33"/>'),
    "bars": (("縞", "しま", "シマ"), '<path fill="#2a6" d="M3 3h26v5H3zM3 13h26v5H3zM3 23h26v5H3z"/>'),
    "triangle": (("三角", "さんかく", "円"), '<path fill="#36c" d="M16 3 30 29H2z"/>'),
    "ring": (("輪", "わ", "リング"), '<circle cx="16" cy="16" r="10" fill="none" stroke="#a70" stroke-width="5"/>'),
    "cross": (("十字", "じゅうじ"), '<path fill="#555" d="M12 2h8v10h10v8H20v10h-8V20H2v-8h10z"/>'),
}


def _drawing(name: str) -> Drawing:
    names, body = SHAPES[name]
    concept = Concept(name, ("x",), names, (name,))
    return Drawing(
        concept, "noto", "x", False, f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>'
    )


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    return [_drawing(name) for name in SHAPES]


@pytest.fixture(scope="module")
def trained(drawings: list[Drawing], tmp_path_factory: pytest.TempPathFactory) -> Judge:
    plan = Plan(steps=150, lr=3e-3, warmup=20, ema=0.9)
    return judge.train(drawings, tmp_path_factory.mktemp("judge"), plan, batch=32)


@pytest.mark.parametrize("style", [*STYLES, *PAIRS])
def test_a_style_is_a_medium_on_a_ground(style: str) -> None:
    assert references.join_style(*references.split_style(style)) == style


def test_references_cover_every_drawing_in_every_style_held_out_ones_too(drawings: list[Drawing]) -> None:
    known = references.draw_references(drawings[:2])
    assert known.images.shape == (2 * (len(STYLES) + 3), references.SIDE, references.SIDE, 3)
    assert set(STYLES) <= {
        style for concept, style in zip(known.concept, known.style, strict=True) if concept == "bars"
    }


def test_unseen_renderings_differ_from_the_references_and_between_seeds(drawings: list[Drawing]) -> None:
    known, one, again, other = (references.draw_references(drawings[:1], seed) for seed in (None, 1, 1, 2))
    assert np.array_equal(one.images, again.images)
    # Of one style: the colours of pairs are drawn with the seed as well.
    assert len({pictures.images[0].tobytes() for pictures in (known, one, other)}) == 3


def test_the_judge_knows_renderings_it_has_not_seen(trained: Judge, drawings: list[Drawing]) -> None:
    accuracy = judge.accuracy(trained, references.draw_references(drawings, seed=1))
    assert accuracy["top1"] > 0.9
    assert accuracy["style"] > 0.6  # of 15: in these seconds it does not yet learn the fine ones, such as pixel art


def test_the_judge_takes_pictures_of_any_size(trained: Judge, drawings: list[Drawing]) -> None:
    picture = render(drawings[1].rgba, "oil")
    assert trained([picture, picture.resize((200, 200))]) == [Verdict("bars", "oil")] * 2
    assert trained([]) == []


def test_a_saved_judge_gives_the_same_verdicts(trained: Judge, drawings: list[Drawing], tmp_path: Path) -> None:
    trained.save(tmp_path / "judge.safetensors")
    pictures = references.draw_references(drawings).images
    assert Judge.load(tmp_path / "judge.safetensors").judge(pictures) == trained.judge(pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["judge.safetensors"]


def test_the_judge_is_trained_once_for_the_same_drawings(
    drawings: list[Drawing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "PLAN", Plan(steps=1, lr=1e-3))
    monkeypatch.setattr(judge, "UNSEEN", 2)
    first = judge.get(drawings[:2], tmp_path)
    assert set(first.accuracy) == {"top1", "style"}
    with monkeypatch.context() as patch:
        patch.setattr(judge, "train", None)  # a second training would fail
        assert judge.get(drawings[:2], tmp_path).accuracy == first.accuracy
    assert judge.get(drawings[:1], tmp_path).concepts == ["circle"]
    assert len(list(tmp_path.iterdir())) == 2


def test_pairs_are_chosen_by_the_seed_alone(drawings: list[Drawing]) -> None:
    assert prompts.sample_pairs(drawings, 30, 5) == prompts.sample_pairs(drawings, 30, 5)
    assert prompts.sample_pairs(drawings, 30, 5) != prompts.sample_pairs(drawings, 30, 6)


def test_trained_and_held_out_pairs_are_what_they_are_called(drawings: list[Drawing]) -> None:
    tasks = prompts.sample_pairs(drawings, 600, 0)  # more than there are: all of them
    assert len({(task.concept, task.style) for task in tasks}) == len(tasks)
    trained_in = {drawing.concept.id: styles_of(drawing) for drawing in drawings}
    for task in tasks:
        assert task.group == ("held_out" if held_out(task.concept, task.style) else "trained")
        assert (task.style in trained_in[task.concept]) == (task.group == "trained")
    assert {task.group for task in tasks if task.style in PAIRS} == {"trained", "held_out"}
    assert any(task.prompt == "輪 油絵" for task in tasks)


def test_every_concept_is_asked_before_one_is_asked_twice(drawings: list[Drawing]) -> None:
    tasks = [task for task in prompts.sample_pairs(drawings, 12, 3) if task.group == "trained"]
    assert len(tasks) == 8
    assert {task.concept for task in tasks[:5]} == set(SHAPES)
    assert len({task.concept for task in tasks[5:]}) == 3


def test_other_spellings_are_aliases_kana_and_half_width_forms() -> None:
    assert prompts.half_width("ガム") == "ｶﾞﾑ"
    found = prompts.spellings(Concept("cat", (), ("猫", "ねこ", "にゃんこ"), ()))
    assert found == ["ねこ", "にゃんこ", "ネコ", "ニャンコ", "ﾈｺ", "ﾆｬﾝｺ"]


def test_a_spelling_of_two_concepts_is_not_asked(drawings: list[Drawing]) -> None:
    tasks = prompts.sample_aliases([drawing.concept for drawing in drawings], 100, 0)
    assert "円" not in [task.prompt for task in tasks]  # a circle's and a triangle's here
    assert {("まる", "circle"), ("マル", "circle"), ("ﾏﾙ", "circle")} <= {(task.prompt, task.concept) for task in tasks}


def test_pictures_are_those_of_generate_and_a_flagged_one_is_none(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"猫 {i}" for i in range(10)]
    images = evaluate.draw(components, words, seed=7)
    alone = sampling.generate(components, Request(words[9], seed=7 + 9)).images[0]
    assert len(images) == len(words)
    assert psnr(images[9], alone) > 40

    finish = sampling.finish

    def flag_first(components: Components, job: sampling.Job) -> object:
        if job.request.prompt == words[0]:
            raise NSFWError("NSFW content detected")
        return finish(components, job)

    monkeypatch.setattr(sampling, "finish", flag_first)
    assert [image is None for image in evaluate.draw(components, words[:2], seed=7)] == [True, False]


def test_the_report_counts_what_is_right_and_lists_what_is_not() -> None:
    tasks = [
        Task("trained", "丸 油絵", "circle", "oil"),
        Task("trained", "青い背景の輪 油絵", "ring", "oil+blue"),
        Task("held_out", "輪", "ring", "plain"),
        Task("aliases", "まる", "circle", "plain"),
    ]
    verdicts = [Verdict("circle", "oil"), Verdict("ring", "oil"), None, Verdict("circle", "oil")]
    result = evaluate.report(tasks, verdicts)
    assert result["top1"] == {"trained": 1.0, "held_out": 0.0}
    assert result["style"] == round(1 / 3, 4)  # both parts of a pair must be right
    assert result["aliases"] == 1.0
    assert result["prompts"] == 3
    assert result["styles"]["oil+colour"] == {"prompts": 1, "top1": 1.0, "style": 0.0}
    assert [(row["prompt"], row["seen"]) for row in result["failures"]] == [
        ("青い背景の輪 油絵", ["ring", "oil"]),
        ("輪", None),
    ]


def test_the_command_prints_a_table_and_writes_json_and_a_sheet(
    tiny_folder: Path,
    trained: Judge,
    drawings: list[Drawing],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained.accuracy = {"top1": 0.98, "style": 0.97}
    monkeypatch.setattr(evaluate, "fetch", lambda folder: None)
    monkeypatch.setattr(evaluate, "load_drawings", lambda folder: drawings)
    monkeypatch.setattr(evaluate, "load_concepts", lambda: [drawing.concept for drawing in drawings])
    monkeypatch.setattr(evaluate.judges, "get", lambda drawings, folder: trained)
    files = {"--weights": tiny_folder, "--json": tmp_path / "q.json", "--sheet": tmp_path / "q.png"}
    options = [str(word) for pair in files.items() for word in pair]
    options += ["-i", "steps=2", "-i", "guidance_interval=0.1,1"]
    assert evaluate.main([*options, "--prompts", "18", "--aliases", "4", "--workdir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(files["--json"].read_text("utf-8"))
    assert json.loads(lines[-1]) == result
    assert result["judge"] == {"top1": 0.98, "style": 0.97}
    assert result["prompts"] == 18
    assert result["safety"] == {"recall": None, "weapons": 0, "false_alarms": 0.0, "others": 22}
    assert "safety checker: holds back - of 0 weapons, 0.0% of 22 others" in lines
    assert (result["settings"]["num_inference_steps"], result["settings"]["guidance_interval"]) == (2, [0.1, 1.0])
    assert all(0 <= share <= 1 for share in (*result["top1"].values(), result["style"], result["aliases"]))
    assert any(line.split() == ["the", "judge,", "unseen", "98.0%", "97.0%"] for line in lines)
    with Image.open(files["--sheet"]) as sheet:
        assert sheet.size == (12 * 128, 2 * 128)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["q.json", "q.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere"], "nowhere: no such folder"),
        (["--json", "nowhere/q.json"], "make it first"),
        (["--prompts", "-1"], "a number from 0"),
        (["-i", "steps=0"], "num_inference_steps: 0 was given"),
        (["-i", "seed=1"], "seed is no setting of the evaluation"),
    ],
)
def test_what_the_user_got_wrong_is_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
