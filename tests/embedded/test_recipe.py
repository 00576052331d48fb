"""The recipe of the embedded model from end to end, one step a stage: it leaves a folder that opens and draws."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
from accelerate.state import AcceleratorState

from embedded import recipe, studio
from embedded.drawings import Concept, Drawing
from embedded.pictures import Pictures
from embedded.safety_checker import FLAGGED
from jsd import model, sampling
from jsd.errors import WeightsError
from jsd.request import Request
from jsd.train.trainer import Plan

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="3" fill="{}"/></svg>'


@pytest.fixture
def short_recipe(monkeypatch):
    """Three drawings and one step a stage; accelerate's state is of this test alone."""
    drawings = [
        Drawing(Concept(name, ("o",), (word,), (name,)), "noto", "o", False, SVG.format(colour))
        for name, word, colour in zip(
            FLAGGED, ("ピストル", "爆弾", "剣"), ("#d02020", "#20d020", "#2020d0"), strict=True
        )
    ]
    monkeypatch.setattr(recipe, "fetch", lambda folder: None)
    monkeypatch.setattr(recipe, "load_drawings", lambda folder: drawings)
    monkeypatch.setattr(studio, "tokenizer_texts", partial(studio.tokenizer_texts, count=500))
    for name in ("TEXT", "ENCODER", "SAFETY"):
        monkeypatch.setattr(recipe, name, Plan(1, 1e-3))
    monkeypatch.setattr(recipe, "STAGES", dict.fromkeys(recipe.STAGES, recipe.Course(Plan(1, 1e-3), 0.2, (0.5, 1.0))))
    monkeypatch.setattr(recipe, "DECODER", [(Plan(1, 1e-3), 2)] * 4)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_from_drawings_to_a_model_that_draws(short_recipe, tmp_path, monkeypatch):
    arguments = ["--workdir", str(tmp_path / "runs"), "--to", str(tmp_path / "model")]
    recipe.main([*arguments, "--columns", str(tmp_path / "stages")])
    components = model.load(tmp_path / "model", safety_checker=False)
    assert sampling.generate(components, Request("剣", num_inference_steps=1)).images[0].size == (256, 256)
    assert "base 1, stage1 1, stage2 1" in json.loads((tmp_path / "model" / "MANIFEST.json").read_text())["training"]
    assert {path.name for path in (tmp_path / "stages").iterdir()} == {"base", "stage1"}
    english = model.load(tmp_path / "stages" / "base", safety_checker=False)
    assert english.tokenizer("剣").used >= 3  # bytes, as in CLIP's
    assert not list(tmp_path.glob("model.*"))  # nothing half-made, nothing old

    # A stage begins with what the one before it left.
    others = recipe.STAGES | {"base": replace(recipe.STAGES["base"], plan=Plan(2, 1e-3))}
    monkeypatch.setattr(recipe, "STAGES", others)
    for checkpoint in (tmp_path / "runs" / "embedded").glob("base-*"):
        shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
    with pytest.raises(ValueError, match="stage1-0000001: was begun with after"):
        recipe.main(arguments)

    # Other captions or drawings want another work folder: what is kept there was made from these.
    (tmp_path / "runs" / "embedded" / "sources.sha256").write_text("others")
    with pytest.raises(FileExistsError, match="other drawings, names or styles"):
        recipe.main(arguments)


def test_a_folder_that_is_no_model_is_not_replaced(short_recipe, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(WeightsError, match="not a model folder"):
        recipe.main(["--workdir", str(tmp_path / "runs"), "--to", str(tmp_path)])
    assert (tmp_path / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("share", [0.15, 0.25])
def test_two_things_have_their_share_of_the_pictures(short_recipe, share):
    drawings = recipe.load_drawings(None)
    index = Pictures(None, [(0,), (1,), (2,), (0, 1), (1, 2)], ["plain", "oil", "plain", "plain", "oil"])
    weights = studio.picture_weights(drawings, index, share)
    assert weights.sum() == pytest.approx(1)
    assert weights[3:].sum() == pytest.approx(share)
    assert weights[0] == pytest.approx(2.5 * weights[1])
