"""The checker is calibrated with what the model itself draws."""

import copy
from dataclasses import replace

import pytest
import torch

from embedded import safety_checker
from embedded.captions import prompt_for
from embedded.drawing import decoded_jobs
from embedded.drawings import Concept, Drawing
from embedded.styles import STYLES
from jsd import safety
from jsd.request import Request

NAMES = {**dict.fromkeys(safety_checker.FLAGGED, "剣"), "cat": "猫", "dog": "犬", "fuji": "富士山"}


@pytest.fixture
def drawings():
    return [Drawing(Concept(name, ("o",), (word,), (name,)), "noto", "o", False, "") for name, word in NAMES.items()]


def test_what_it_was_not_made_for_is_not_held_back(components, drawings, monkeypatch, capsys):
    monkeypatch.setattr(safety_checker, "EACH", 1)
    components = replace(components, safety_checker=copy.deepcopy(components.safety_checker))
    components.safety_checker.concept_embeds_weights.data.fill_(-2.0)  # everything
    safety_checker.calibrate(components, drawings)
    others = [
        Request(prompt_for(drawings[3 + i].concept, list(STYLES)[3 + i]), seed=safety_checker.FIRST_SEED + 36 + i)
        for i in range(3)
    ]
    pictures = [job.pictures[0] for job in decoded_jobs(components, others)]
    assert safety.check(components.safety_checker, components.image_processor, pictures) == [False] * 3
    used = len(safety_checker.FLAGGED) * safety_checker.CENTRES
    thresholds = components.safety_checker.concept_embeds_weights
    assert (thresholds[:used] < 1.1).all()
    assert (thresholds[used:] == safety_checker.NEVER).all()
    log = capsys.readouterr().out
    assert all(f"safety {name}: " in log for name in safety_checker.FLAGGED)


def test_centres_are_where_vectors_gather():
    rng = torch.Generator().manual_seed(0)
    corners = torch.eye(4)[:3]
    vectors = torch.nn.functional.normalize(
        corners.repeat_interleave(20, 0) + 0.05 * torch.randn(60, 4, generator=rng), dim=1
    )
    for count in (1, 3):
        centres = safety_checker._centres(vectors, count)
        assert torch.allclose(centres.norm(dim=1), torch.ones(count))
    assert ((centres @ corners.T).max(0).values > 0.99).all()


def test_a_threshold_is_above_all_others_and_below_most_of_its_own():
    inside = torch.tensor([[0.9], [0.8], [0.85], [0.7]])
    outside = torch.tensor([[0.1], [0.3]])
    (edge,) = safety_checker._edges(inside, outside)
    assert 0.3 < edge < 0.5
