"""The judge learns from drawings alone, and its own accuracy is measured on renderings that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedded import judge, references
from embedded.drawings import Drawing
from embedded.judge import Judge, Verdict
from embedded.styles import PAIRS, STYLES, render
from jsd.train.trainer import Plan


@pytest.mark.parametrize("style", [*STYLES, *PAIRS])
def test_a_style_splits_into_a_medium_and_a_ground(style: str) -> None:
    assert references.join_style(*references.split_style(style)) == style


def test_the_references_show_every_drawing_in_every_style_including_held_out_pairs(shapes: list[Drawing]) -> None:
    known = references.draw_references(shapes[:2])
    assert known.images.shape == (2 * (len(STYLES) + 3), references.SIDE, references.SIDE, 3)
    assert set(STYLES) <= {
        style for concept, style in zip(known.concept, known.style, strict=True) if concept == "bars"
    }


def test_unseen_renderings_differ_from_the_references_and_between_seeds(shapes: list[Drawing]) -> None:
    known, one, again, other = (references.draw_references(shapes[:1], seed) for seed in (None, 1, 1, 2))
    assert np.array_equal(one.images, again.images)
    # All three show the same style. The colours of pairs of styles depend on the seed as well.
    assert len({pictures.images[0].tobytes() for pictures in (known, one, other)}) == 3


def test_the_judge_recognises_renderings_that_it_has_not_seen(trained: Judge, shapes: list[Drawing]) -> None:
    accuracy = judge.accuracy(trained, references.draw_references(shapes, seed=1))
    assert accuracy["top1"] > 0.9
    assert accuracy["style"] > 0.6  # of 15 styles; in seconds it does not learn fine ones such as pixel art


def test_the_judge_accepts_pictures_of_any_size(trained: Judge, shapes: list[Drawing]) -> None:
    picture = render(shapes[1].rgba, "oil")
    assert trained([picture, picture.resize((200, 200))]) == [Verdict("bars", "oil")] * 2
    assert trained([]) == []


def test_a_missing_picture_has_no_verdict(trained: Judge, shapes: list[Drawing]) -> None:
    picture = render(shapes[1].rgba, "oil")
    assert judge.judge_pictures(trained, [None, picture, None]) == [None, Verdict("bars", "oil"), None]


def test_a_saved_judge_gives_the_same_verdicts(trained: Judge, shapes: list[Drawing], tmp_path: Path) -> None:
    trained.save(tmp_path / "judge.safetensors")
    pictures = references.draw_references(shapes).images
    assert Judge.load(tmp_path / "judge.safetensors").judge(pictures) == trained.judge(pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["judge.safetensors"]


def test_the_judge_is_trained_only_once_for_the_same_drawings(
    shapes: list[Drawing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "PLAN", Plan(steps=1, lr=1e-3))
    monkeypatch.setattr(judge, "UNSEEN", 2)
    first = judge.get(shapes[:2], tmp_path)
    assert set(first.accuracy) == {"top1", "style"}
    with monkeypatch.context() as patch:
        patch.setattr(judge, "train", None)  # a second training would fail
        assert judge.get(shapes[:2], tmp_path).accuracy == first.accuracy
    assert judge.get(shapes[:1], tmp_path).concepts == ["circle"]
    assert len(list(tmp_path.iterdir())) == 2
