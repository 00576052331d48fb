"""Rows are drawn together by an engine. Each becomes pictures, or says why not."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: script/bootstrap bulk")

from PIL import Image

from bulk.drawing import Drawer, draw
from bulk.rows import model_digest
from jsd import sampling
from jsd.engine import Engine
from jsd.request import Request
from tests.fakes import flip_last_bit, psnr


def ask(**inputs: object) -> str:
    return json.dumps({"prompt": "猫", "seed": 1, **inputs})


def test_each_row_has_the_pictures_of_its_seed(components):
    with Engine(components) as engine:
        found = draw(engine, [(1, "a", ask()), (2, "b", ask(num_outputs=2, seed=5, output_format="webp"))]).to_pylist()
    assert [(f["row"], f["picture"], f["seed"], f["status"]) for f in found] == [
        (1, 0, 1, "drawn"),
        (2, 0, 5, "drawn"),
        (2, 1, 6, "drawn"),
    ]
    assert (found[0]["digest"], found[0]["model"], found[0]["width"], found[2]["suffix"]) == ("a", "tiny", 64, "webp")
    alone = sampling.generate(components, Request("猫", seed=1)).images[0]
    assert psnr(Image.open(io.BytesIO(found[0]["data"])), alone) > 50
    assert json.loads(found[0]["metadata"])["seed"] == 1


def test_a_row_that_fails_says_why_and_the_others_are_drawn(spied):
    spied.unet.broken = lambda x: x.shape[-1] == 5
    batch = [(1, "a", ask(width=65)), (2, "b", ask()), (3, "c", ask(width=80)), (4, "d", ask(image=__file__))]
    with Engine(spied) as engine:
        found = {f["row"]: f for f in draw(engine, batch).to_pylist()}
    assert (found[1]["status"], found[1]["input"]) == ("failed", "width")
    assert found[1]["reason"].startswith("65 was given; this model draws multiples of 16")
    assert found[2]["status"] == "drawn"
    assert found[3]["reason"] == "RuntimeError: broken on purpose"
    assert (found[4]["input"], found[4]["reason"][:20]) == ("image", "not a png, jpeg or w")


def test_a_flagged_picture_is_a_row_that_says_so(components):
    checker = copy.deepcopy(components.safety_checker)
    checker.concept_embeds_weights.data.fill_(-2.0)
    with Engine(replace(components, safety_checker=checker)) as engine:
        found = draw(engine, [(1, "a", ask(num_outputs=2))]).to_pylist()
    assert [(f["picture"], f["seed"], f["status"], f["data"], f["width"]) for f in found] == [
        (0, 1, "flagged", None, 64),
        (1, 2, "flagged", None, 64),
    ]


def test_an_actor_without_its_model_says_so_for_every_batch(tiny_copy, monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_copy))
    digest = model_digest()
    for change, reason in (("another", "has another model"), (None, "altered (its sha256 is not the one in")):
        if change is None:
            flip_last_bit(tiny_copy / "unet" / "diffusion_pytorch_model.safetensors")
        drawer = Drawer({"JSD_WEIGHTS": str(tiny_copy)}, change or digest)
        found = drawer(pa.table({"rows": [json.dumps([(1, "a", ask())])]})).to_pylist()
        assert [row["status"] for row in found] == ["no model"]
        assert reason in found[0]["reason"]
