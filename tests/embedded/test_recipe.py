"""The recipe of the embedded model, from icons to a model folder, and its options."""

import json
import shutil

import pytest

from embedded import budget, phases
from jsd import cli, model, sampling
from jsd.request import Request
from tests.embedded.icons import write_icons


def train(folder, *options):
    """Run `python -m jsd train embedded` with the work folder `folder`. Returns the exit code."""
    return cli.main(["train", "embedded", "--workdir", str(folder), *map(str, options)])


@pytest.mark.slow
def test_a_tiny_run_makes_models_that_draw_and_another_run_goes_on_from_them(tmp_path, capsys):
    write_icons(tmp_path / "icons")
    work = tmp_path / "embedded-tiny"
    assert train(tmp_path, "--tiny", "--cpu", "--minutes", 0.1, "--columns", tmp_path / "columns") == 0
    components = model.load(work / "model")
    assert sampling.generate(components, Request("猫", num_inference_steps=1)).images[0].size == (256, 256)
    assert json.loads((work / "model" / "MANIFEST.json").read_text())["stage"] == "stage2"
    english = model.load(tmp_path / "columns" / "base")
    assert english.tokenizer("剣").used >= 3  # bytes, as in CLIP's tokenizer
    figures = json.loads((work / "figures.json").read_text())
    assert {"autoencoder", "base", "stage1", "stage2"} == set(figures)
    assert phases.spent(work) >= figures["stage2"]["seconds"] - 1
    for name in ("base", "stage1", "stage2", "autoencoder"):
        assert (work / f"{name}.png").exists()
        assert list(work.glob(f"{name}*-samples.png"))

    # A work folder that was made from other weights is refused.
    capsys.readouterr()
    resume = ("--tiny", "--cpu", "--minutes", 0.1, "--resume", tmp_path / "columns" / "base")
    assert train(tmp_path, *resume) == 2
    assert "made from other scenes" in capsys.readouterr().err
    shutil.rmtree(work)
    assert train(tmp_path, *resume) == 0
    assert set(json.loads((work / "figures.json").read_text())) == {"stage1", "stage2"}
    before, after = (model.load(folder) for folder in (tmp_path / "columns" / "base", work / "model"))
    assert all(value.equal(after.vae.state_dict()[name]) for name, value in before.vae.state_dict().items())


def test_without_a_gpu_it_says_how_long_it_would_take(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(budget, "estimate", lambda: 3 * 24 * 60)
    assert train(tmp_path, "--cpu", "--minutes", 5) == 2
    assert "whole training would take about 3 days. Add --yes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_no_model_is_not_replaced(tmp_path, capsys):
    (tmp_path / "diary.txt").write_text("mine")
    assert train(tmp_path / "runs", "--tiny", "--to", tmp_path) == 2
    assert "model folder" in capsys.readouterr().err
    assert (tmp_path / "diary.txt").read_text() == "mine"


def test_a_model_to_resume_has_to_be_there(tmp_path, capsys):
    assert train(tmp_path, "--tiny", "--resume", tmp_path / "none") == 2
    assert "--resume: " in (error := capsys.readouterr().err)
    assert "is no folder" in error


def test_a_run_that_goes_on_keeps_its_minutes(monkeypatch):
    monkeypatch.setattr(budget.time, "monotonic", lambda: 5000.0)
    assert budget.Budget(30, spent=1000.0).seconds("stage2") == budget.Budget(30).seconds("stage2") - 1000


def test_the_last_stage_gets_the_time_that_the_others_left(monkeypatch):
    assert sum(budget.SHARES.values()) + budget.CLOSING < 1
    clock = iter([0.0, 300.0, 1700.0])
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))
    run = budget.Budget(30)
    assert run.seconds("autoencoder") == 450
    assert run.seconds("stage2") == pytest.approx(1800 * 0.91 - 300)
    assert run.seconds("stage2") == pytest.approx(1800 * 0.39 / 2)  # too late, but not without any time


@pytest.mark.parametrize(("minutes", "said"), [(45, "45 minutes"), (300, "5 hours"), (9000, "6 days")])
def test_a_duration_is_said_in_words(minutes, said):
    assert budget.spoken(minutes) == said
