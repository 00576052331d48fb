"""The evaluation draws as serving does, counts correctly, and writes its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from embedded import evaluate, generate, scores
from embedded.drawings import Drawing
from embedded.judge import Judge, Verdict
from embedded.prompts import Task
from jsd import cli, sampling
from jsd.errors import NSFWError
from jsd.model import Components
from jsd.request import Request
from tests.fakes import psnr


def test_the_pictures_equal_those_of_generate_and_a_flagged_one_is_none(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"猫 {i}" for i in range(10)]
    images = generate.draw(components, words, seed=7)
    alone = sampling.generate(components, Request(words[9], seed=7 + 9)).images[0]
    assert len(images) == len(words)
    assert psnr(images[9], alone) > 40

    finish = sampling.finish

    def flag_first(components: Components, job: sampling.Job) -> object:
        if job.request.prompt == words[0]:
            raise NSFWError("NSFW content detected")
        return finish(components, job)

    monkeypatch.setattr(sampling, "finish", flag_first)
    assert [image is None for image in generate.draw(components, words[:2], seed=7)] == [True, False]


def test_the_report_counts_right_pictures_and_lists_failures() -> None:
    tasks = [
        Task("trained", "丸 油絵", "circle", "oil"),
        Task("trained", "青い背景の輪 油絵", "ring", "oil+blue"),
        Task("held_out", "輪", "ring", "plain"),
        Task("aliases", "まる", "circle", "plain"),
    ]
    verdicts = [Verdict("circle", "oil"), Verdict("ring", "oil"), None, Verdict("circle", "oil")]
    result = scores.report(tasks, verdicts)
    assert result["top1"] == {"trained": 1.0, "held_out": 0.0}
    assert result["style"] == round(1 / 3, 4)  # in a pair of styles both have to be right
    assert result["aliases"] == 1.0
    assert result["prompts"] == 3
    assert result["styles"]["oil+colour"] == {"prompts": 1, "top1": 1.0, "style": 0.0}
    assert [(row["prompt"], row["seen"]) for row in result["failures"]] == [
        ("青い背景の輪 油絵", ["ring", "oil"]),
        ("輪", None),
    ]


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json_and_a_sheet(
    tiny_folder: Path,
    trained: Judge,
    shapes: list[Drawing],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge = Judge(trained.concepts, trained.network, {"top1": 0.98, "style": 0.97})
    monkeypatch.setattr(evaluate, "fetch", lambda folder: None)
    monkeypatch.setattr(evaluate, "load_drawings", lambda folder: shapes)
    monkeypatch.setattr(evaluate, "load_concepts", lambda: [drawing.concept for drawing in shapes])
    monkeypatch.setattr(evaluate.judges, "get", lambda drawings, folder: judge)
    files = {"--weights": tiny_folder, "--json": tmp_path / "q.json", "--sheet": tmp_path / "q.png"}
    options = [str(word) for pair in files.items() for word in pair]
    options += ["-i", "steps=2", "-i", "guidance_interval=0.1,1", "--workdir", str(tmp_path)]
    assert cli.main(["eval", *options, "--prompts", "18", "--aliases", "4"]) == 0
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
        (["-i", "steps=0"], "num_inference_steps: 0 was given"),
        (["-i", "seed=1"], "seed is no setting of the evaluation"),
    ],
)
def test_a_mistake_of_the_user_is_reported_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_count_has_to_be_a_number_from_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["eval", "--prompts", "-1"])
    assert stop.value.code == 2
    assert "a whole number from 0 to 1000000" in capsys.readouterr().err
