"""The safety checker flags pictures without changing them. If it fails, no picture passes."""

import copy

import pytest
import torch

from jsd import safety, settings
from jsd.errors import NaNError

RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


@pytest.fixture
def checker(components):
    return copy.deepcopy(components.safety_checker)


@pytest.fixture
def pictures():
    return torch.tensor([RED, GREEN, BLUE], dtype=torch.uint8).view(3, 1, 1, 3).repeat(1, 64, 64, 1)


def with_threshold(checker, threshold):
    checker.concept_embeds_weights.data.fill_(threshold)
    return checker


@pytest.mark.parametrize(("threshold", "flag"), [(2.0, False), (-2.0, True)])
def test_a_picture_is_flagged_above_the_threshold(checker, components, pictures, threshold, flag):
    flagged = safety.check(with_threshold(checker, threshold), components.image_processor, pictures)
    assert flagged == [flag] * 3


def test_serving_on_a_cpu_the_checker_takes_half_of_its_memory_and_computes_the_same(
    components, tiny_folder, pictures, monkeypatch
):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    pixels = components.image_processor(images=list(pictures.numpy()), return_tensors="pt").pixel_values
    halved, whole = settings.load_components().safety_checker, components.safety_checker
    assert {type(layer) for layer in halved.modules() if isinstance(layer, torch.nn.Linear)} == {safety.HalfLinear}
    with torch.inference_mode():
        mine, stock = (model.visual_projection(model.vision_model(pixels)[1]) for model in (halved, whole))
    assert mine.dtype == halved.dtype == torch.float32
    assert halved.config == whole.config
    assert torch.equal(mine, stock)
    bytes_of = [sum(p.nbytes for p in model.parameters() if p.ndim == 2) for model in (halved, whole)]
    assert bytes_of[0] < 0.8 * bytes_of[1]


def test_flagged_pictures_are_not_blackened(checker, components, pictures):
    before = pictures.clone()
    safety.check(with_threshold(checker, -2.0), components.image_processor, pictures)
    assert torch.equal(pictures, before)


def test_each_picture_is_judged_by_itself(checker, components, pictures):
    """A threshold between the two highest scores flags only the picture with the highest one."""
    pixels = components.image_processor(images=list(pictures.numpy()), return_tensors="pt").pixel_values
    with torch.no_grad():
        embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
        scores = torch.nn.functional.cosine_similarity(embeddings[:, None], checker.concept_embeds[None], dim=-1)
    best, second = scores.amax(dim=1).sort(descending=True).values[:2]
    winner = scores.amax(dim=1).argmax().item()
    checker.special_care_embeds_weights.data.fill_(2.0)
    if best - second < 0.002:
        pytest.fail("the test's pictures are too much alike for the checker; choose others")
    flagged = safety.check(with_threshold(checker, (best + second) / 2), components.image_processor, pictures)
    assert flagged == [i == winner for i in range(3)]


def test_embeddings_that_are_nan_raise_an_error(checker, components, pictures):
    checker.visual_projection.weight.data.fill_(float("nan"))
    with pytest.raises(NaNError, match="safety checker"):
        safety.check(checker, components.image_processor, pictures)


def test_an_error_of_the_checker_is_raised(checker, components, pictures, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(checker, "vision_model", torch.nn.Identity())
    monkeypatch.setattr(checker.vision_model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        safety.check(checker, components.image_processor, pictures)
