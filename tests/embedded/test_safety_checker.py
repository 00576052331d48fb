"""The safety checker is calibrated with pictures that the model itself draws."""

import copy
from dataclasses import replace

import pytest
import torch

from embedded import safety_checker
from embedded.captions import prompt_for
from embedded.drawings import Concept, Drawing
from embedded.generate import decoded_jobs
from embedded.styles import STYLES
from jsd import safety
from jsd.request import Request

NAMES = {**dict.fromkeys(safety_checker.FLAGGED, "剣"), "cat": "猫", "dog": "犬", "fuji": "富士山"}


@pytest.fixture
def drawings():
    return [Drawing(Concept(name, ("o",), (word,), (name,)), "noto", "o", False, "") for name, word in NAMES.items()]


def test_calibration_stops_the_checker_from_holding_back_other_concepts(components, drawings, monkeypatch, capsys):
    monkeypatch.setattr(safety_checker, "EACH", 1)
    components = replace(components, safety_checker=copy.deepcopy(components.safety_checker))
    components.safety_checker.concept_embeds_weights.data.fill_(-2.0)  # everything is held back
    safety_checker.calibrate(components, drawings)
    others = [
        Request(prompt_for(drawings[3 + i].concept, list(STYLES)[3 + i]), seed=safety_checker.FIRST_SEED + 36 + i)
        for i in range(3)
    ]
    pictures = torch.stack([job.pixels[0] for job in decoded_jobs(components, others)])
    assert safety.check(components.safety_checker, components.image_processor, pictures) == [False] * 3
    used = len(safety_checker.FLAGGED) * safety_checker.CENTRES
    thresholds = components.safety_checker.concept_embeds_weights
    assert (thresholds[:used] < 1.1).all()
    assert (thresholds[used:] == safety_checker.NEVER).all()
    log = capsys.readouterr().out
    assert all(f"safety {name}: " in log for name in safety_checker.FLAGGED)


def test_clustering_finds_where_vectors_gather():
    rng = torch.Generator().manual_seed(0)
    corners = torch.eye(4)[:3]
    vectors = torch.nn.functional.normalize(
        corners.repeat_interleave(20, 0) + 0.05 * torch.randn(60, 4, generator=rng), dim=1
    )
    for count in (1, 3):
        centres = safety_checker.cluster(vectors, count)
        assert torch.allclose(centres.norm(dim=1), torch.ones(count))
    assert ((centres @ corners.T).max(0).values > 0.99).all()


def test_a_threshold_is_above_all_other_pictures_and_below_most_of_its_concept():
    inside = torch.tensor([[0.9], [0.8], [0.85], [0.7]])
    outside = torch.tensor([[0.1], [0.3]])
    (threshold,) = safety_checker.thresholds(inside, outside)
    assert 0.3 < threshold < 0.5
