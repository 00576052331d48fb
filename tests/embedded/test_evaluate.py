"""The evaluation draws as serving does, and writes its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from embedded import evaluate, generate, judge_training
from embedded.judge import KINDS, Judge
from embedded.judge_network import Network
from jsd import cli, sampling
from jsd.errors import NSFWError
from jsd.model import Components
from jsd.request import Request
from tests.embedded.shapes import CONCEPTS, make_assets
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


@pytest.fixture
def judge_file(tmp_path: Path) -> Path:
    """A small judge of the shapes with random weights, in a file."""
    names = judge_training.names_of(make_assets())
    torch.manual_seed(0)
    judge = Judge(names, Network([len(names[kind]) for kind in KINDS], (8, 8, 8, 8, 8)).eval(), {"one": 0.98})
    judge.save(tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json_and_a_sheet(
    tiny_folder: Path,
    judge_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "load_concepts", lambda: CONCEPTS)
    (tmp_path / "out").mkdir()
    files = {"--weights": tiny_folder, "--json": tmp_path / "out/q.json", "--sheet": tmp_path / "out/q.png"}
    files |= {"--judge": judge_file}
    options = [str(word) for pair in files.items() for word in pair]
    options += ["-i", "steps=2", "-i", "guidance_interval=0.1,1"]
    assert cli.main(["eval", *options, "--prompts", "20", "--again", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(files["--json"].read_text("utf-8"))
    assert json.loads(lines[-1]) == result
    assert result["judge"] == {"one": 0.98}
    assert sum(result["counts"][name] for name in ("one", "one, held out", "spelling")) == 9
    assert result["safety"] == {"recall": None, "weapons": 0, "false_alarms": 0.0, "others": 20}
    assert "safety checker: holds back - of 0 weapons, 0.0% of 20 others" in lines
    assert result["again"]["prompts"] == 2
    assert any("right at guidance 7.5" in line for line in lines)
    assert result["typed"]["prompts"] == 6  # one of each shape
    assert any(line.startswith("6 things as people type them: ") for line in lines)
    assert (result["settings"]["num_inference_steps"], result["settings"]["guidance_interval"]) == (2, [0.1, 1.0])
    assert any(line.startswith("single thing ") and line.endswith("98.0%") for line in lines)
    with Image.open(files["--sheet"]) as sheet:
        assert sheet.size == (12 * 128, 10 * 128)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["q.json", "q.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere"], "nowhere: no such folder"),
        (["--json", "nowhere/q.json"], "make it first"),
        (["--judge", "nowhere.safetensors"], "nowhere.safetensors': no such file"),
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
