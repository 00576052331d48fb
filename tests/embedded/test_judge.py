"""The judge learns from renderings alone, and tells what is where in a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from embedded import judge_training, references
from embedded.judge import FILE, KINDS, NOTHING, Judge, shrink
from embedded.judge_network import CELLS, SIDE, Network
from embedded.packing import pack, unpack
from embedded.scenes import load_concepts
from jsd.errors import WeightsError
from jsd.train.trainer import Plan
from tests.embedded.shapes import make_assets

WIDTHS = (8, 8, 8, 8, 8)


@pytest.fixture(scope="module")
def untrained() -> Judge:
    """A small judge of the shapes with random weights."""
    names = judge_training.names_of(make_assets())
    torch.manual_seed(0)
    return Judge(names, Network([len(names[kind]) for kind in KINDS], WIDTHS).eval(), {"one": 0.5})


def test_references_are_repeatable_and_tell_where_the_things_are() -> None:
    assets = make_assets()
    one, again, other = (references.draw_references(assets, 12, seed, 0.5) for seed in (1, 1, 2))
    assert [r.scene for r in one] == [r.scene for r in again] != [r.scene for r in other]
    assert np.array_equal(one[0].image, again[0].image)
    assert one[0].image.shape == (SIDE, SIDE, 3)
    for reference in one:
        assert len(reference.spots) == sum(thing.count for thing in reference.scene.things)
        assert {spot[0] for spot in reference.spots} == {thing.concept.id for thing in reference.scene.things}
        assert all(0 < x < 1 and 0 < y < 1 for _, _, x, y in reference.spots)
    assert sum(any(thing.colour for thing in r.scene.things) for r in one) >= 3


def test_the_wanted_heat_is_highest_in_the_cells_of_the_things() -> None:
    spots = torch.tensor([[[2, -1, 0.5, 0.25], [-1, -1, -1, -1]], [[0, 0, 0.99, 0.01], [3, 2, 0.03, 0.97]]])
    heat, picture, row, column, concept, colour = judge_training.wanted(spots)
    assert (picture.tolist(), concept.tolist(), colour.tolist()) == ([0, 1, 1], [2, 0, 3], [-1, 0, 2])
    assert (row.tolist(), column.tolist()) == ([4, 0, 15], [8, 15, 0])
    assert [(values == 1).sum().item() for values in heat] == [1, 2]
    assert heat[0, 12].max() < 0.01


def test_a_judge_is_trained_and_measured(tmp_path: Path, fresh_accelerator: None) -> None:
    assets, plan = make_assets(), Plan(steps=20, lr=4e-3, warmup=5, clip=5.0, ema=0.8)
    judge = judge_training.train(assets, tmp_path, plan, batch=8, pictures=40, widths=WIDTHS)
    curve = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    assert set(curve[0]) >= {"heat", "concept", "colour", "style", "ground"}
    accuracy = judge_training.accuracy(judge, references.draw_references(assets, 12, 1))
    assert accuracy.keys() >= {"one", "style"}


def test_the_judge_sees_the_hottest_cells_and_at_least_one(untrained: Judge) -> None:
    class Spotted(torch.nn.Module):
        """Is hot at two cells of a white picture, and nowhere in a black one."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def look(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            heat = torch.full((len(x), CELLS, CELLS), -9.0)
            heat[:, 3, 7] = -8.0
            for picture in range(len(x)):
                if x[picture].mean() > 0:
                    heat[picture, 3, 7], heat[picture, 12, 1] = 2.0, 3.0
            cells = torch.zeros(len(x), 1, CELLS, CELLS)
            cells[:, :, 12, 1] = 1
            return cells, heat, torch.eye(1, 17).repeat(len(x), 1), torch.eye(1, 31).repeat(len(x), 1)

        def name(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.cat([1 - cells, cells], 1), cells.repeat(1, 8)

    judge = Judge(untrained.names, Spotted())
    white, black = (Image.new("RGB", (200, 100), colour) for colour in ("white", "black"))
    two, nothing, one = judge([white, None, black])
    assert [(s.concept, s.x, s.y) for s in two.things] == [
        ("bars", 1.5 / 16, 12.5 / 16),
        ("circle", 7.5 / 16, 3.5 / 16),
    ]
    assert [s.concept for s in one.things] == ["circle"]
    assert (two.style, two.ground) == ("plain", "white")
    assert nothing == NOTHING
    assert judge([None]) == [NOTHING]
    assert judge([]) == []


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((256, 256), (128, 128)),
        ((512, 512), (128, 128)),
        ((384, 192), (192, 96)),
        ((192, 320), (96, 160)),
        ((1024, 64), (512, 32)),
    ],
)
def test_pictures_are_seen_in_their_proportions(size: tuple[int, int], seen: tuple[int, int]) -> None:
    assert shrink(Image.new("RGB", size)).shape == (seen[1], seen[0], 3)


def test_pictures_of_several_sizes_are_judged_in_their_order(untrained: Judge) -> None:
    sizes = ((256, 256), (384, 192), (256, 256), (192, 384))
    pictures = [Image.effect_noise(size, 60 + 40 * i).convert("RGB") for i, size in enumerate(sizes)]
    verdicts = untrained(pictures)
    assert verdicts == [untrained([picture])[0] for picture in pictures]
    assert all(0 < sight.x < 1 and 0 < sight.y < 1 for verdict in verdicts for sight in verdict.things)
    assert len(set(verdicts)) > 1


def test_packed_weights_are_small_and_nearly_the_same() -> None:
    torch.manual_seed(0)
    weights = {"filter": torch.randn(128, 96, 3, 3), "matrix": torch.randn(20, 30), "bias": torch.randn(20)}
    packed = pack(weights)
    assert packed["filter"].numel() == weights["filter"].numel() // 2
    again = unpack(packed, weights)
    assert torch.equal(again["bias"], weights["bias"])
    for name, most in (("filter", 0.13), ("matrix", 0.01)):
        assert (again[name] - weights[name]).std() < most, name
    twice = unpack(pack(again), weights)
    assert torch.allclose(twice["filter"], again["filter"], rtol=0, atol=1e-4)


def test_a_saved_judge_gives_the_same_verdicts(untrained: Judge, tmp_path: Path) -> None:
    untrained.save(tmp_path / "judge.safetensors")
    loaded = Judge.load(tmp_path / "judge.safetensors")
    loaded.save(tmp_path / "again.safetensors")
    pictures = [Image.effect_noise((128, 128), 80).convert("RGB")]
    assert loaded(pictures) == Judge.load(tmp_path / "again.safetensors")(pictures)
    assert loaded.accuracy == {"one": 0.5}
    assert loaded.names == untrained.names
    assert len(list(tmp_path.iterdir())) == 4


def test_another_file_than_the_one_that_was_saved_is_refused(untrained: Judge, tmp_path: Path) -> None:
    file = tmp_path / "judge.safetensors"
    untrained.save(file)
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="its sha256 is not the one"):
        Judge.load(file)
    file.with_name("judge.safetensors.sha256").unlink()
    file.write_bytes(b"no judge")
    with pytest.raises(WeightsError, match="no judge is readable"):
        Judge.load(file)
    with pytest.raises(WeightsError, match="no such file"):
        Judge.load(tmp_path / "nowhere")


def test_the_judge_in_git_is_small_and_knows_the_concepts() -> None:
    assert FILE.stat().st_size < 7e6
    assert FILE.with_name(FILE.name + ".sha256").is_file()
    with safe_open(FILE, "pt") as data:
        about = json.loads(data.metadata()["about"])
    assert set(about["concepts"]) <= set(load_concepts())
    assert about["accuracy"]["one"] >= 0.97
