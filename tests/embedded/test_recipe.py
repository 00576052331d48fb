"""The recipe of the embedded model, from drawings to a model folder, with one step per training."""

import argparse
import json
import shutil
from dataclasses import replace
from functools import partial

import pytest

from embedded import recipe, training_data
from embedded.drawings import Concept, Drawing
from embedded.pictures import Pictures
from embedded.safety_checker import FLAGGED
from embedded.text_to_image import StagePlan
from jsd import cli, model, sampling
from jsd.errors import TrainingError
from jsd.request import Request
from jsd.train.trainer import Plan

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="3" fill="{}"/></svg>'


@pytest.fixture
def drawings():
    """A drawing for each flagged concept."""
    return [
        Drawing(Concept(name, ("o",), (word,), (name,)), "noto", "o", False, SVG.format(colour))
        for name, word, colour in zip(
            FLAGGED, ("ピストル", "爆弾", "剣"), ("#d02020", "#20d020", "#2020d0"), strict=True
        )
    ]


@pytest.fixture
def short_recipe(drawings, monkeypatch):
    """Three drawings and one step per training."""
    monkeypatch.setattr(recipe, "fetch", lambda folder: None)
    monkeypatch.setattr(recipe, "load_drawings", lambda folder: drawings)
    monkeypatch.setattr(training_data, "tokenizer_texts", partial(training_data.tokenizer_texts, count=500))
    for name in ("TEXT", "ENCODER", "SAFETY"):
        monkeypatch.setattr(recipe, name, Plan(1, 1e-3))
    monkeypatch.setattr(recipe, "STAGES", dict.fromkeys(recipe.STAGES, StagePlan(Plan(1, 1e-3), 0.2, (0.5, 1.0))))
    monkeypatch.setattr(recipe, "DECODER", [(Plan(1, 1e-3), 2)] * 4)


def run(*options):
    """Run the recipe with command line options."""
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    recipe.run(parser.parse_args([str(option) for option in options]))


@pytest.mark.slow
def test_the_recipe_makes_a_model_that_draws(short_recipe, tmp_path, monkeypatch):
    options = ("--workdir", tmp_path / "runs", "--to", tmp_path / "model")
    run(*options, "--columns", tmp_path / "stages")
    components = model.load(tmp_path / "model", safety_checker=False)
    assert sampling.generate(components, Request("剣", num_inference_steps=1)).images[0].size == (256, 256)
    assert "base 1, stage1 1, stage2 1" in json.loads((tmp_path / "model" / "MANIFEST.json").read_text())["training"]
    assert {path.name for path in (tmp_path / "stages").iterdir()} == {"base", "stage1"}
    english = model.load(tmp_path / "stages" / "base", safety_checker=False)
    assert english.tokenizer("剣").used >= 3  # bytes, as in CLIP's tokenizer
    assert not list(tmp_path.glob("model.*"))  # no temporary folder is left

    # A stage does not resume after another plan for the stage before it.
    others = recipe.STAGES | {"base": replace(recipe.STAGES["base"], plan=Plan(2, 1e-3))}
    monkeypatch.setattr(recipe, "STAGES", others)
    for checkpoint in (tmp_path / "runs" / "embedded").glob("base-*"):
        shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
    with pytest.raises(ValueError, match="stage1-0000001: was begun with after"):
        run(*options)

    # A work folder that was made from other captions or drawings is refused.
    (tmp_path / "runs" / "embedded" / "sources.sha256").write_text("others")
    with pytest.raises(TrainingError, match="made from other drawings, names or styles"):
        run(*options)


def test_a_folder_that_holds_no_model_is_not_replaced(short_recipe, tmp_path, capsys):
    (tmp_path / "diary.txt").write_text("mine")
    assert cli.main(["train", "embedded", "--workdir", str(tmp_path / "runs"), "--to", str(tmp_path)]) == 2
    assert "model folder" in capsys.readouterr().err
    assert (tmp_path / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("share", [0.15, 0.25])
def test_pictures_of_two_concepts_have_their_share(drawings, share):
    index = Pictures(None, [(0,), (1,), (2,), (0, 1), (1, 2)], ["plain", "oil", "plain", "plain", "oil"])
    weights = training_data.picture_weights(drawings, index, share)
    assert weights.sum() == pytest.approx(1)
    assert weights[3:].sum() == pytest.approx(share)
    assert weights[0] == pytest.approx(2.5 * weights[1])
