"""What the fields of the page hold becomes the arguments of a request, or a sentence on it in both languages."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from demo import inputs, texts
from jsd import images
from jsd.errors import InputError
from jsd.request import Request

JAPANESE = re.compile("[ぁ-んァ-ヶ]")


@pytest.fixture
def save(tmp_path):
    """A function that saves pixels as a file of this name and returns its path."""

    def save(name, pixels):
        Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / f"{name}.png")
        return str(tmp_path / f"{name}.png")

    return save


def test_strokes_of_any_colour_become_white_in_the_mask(save):
    strokes = save("strokes", [[(207, 74, 48, 178), (0, 0, 0, 255), (255, 255, 255, 8), (9, 9, 9, 0)]])
    made = inputs.painted({"background": save("picture", np.full((1, 4, 3), 128)), "layers": [strokes]})
    assert np.array(made["mask"]).tolist() == [[255, 255, 0, 0]]
    assert np.array(made["image"]).tolist() == [[[128] * 3] * 4]


def test_an_editor_without_a_picture_or_strokes_is_refused(save, monkeypatch):
    picture, nothing = save("picture", np.zeros((1, 4, 3))), save("nothing", np.zeros((1, 4, 4)))
    monkeypatch.setattr(images, "MAX_INPUT_PIXELS", 4)
    bomb = save("bomb", np.full((1, 5, 4), 255))
    for value, name in (
        (None, "image"),
        ({"background": None, "layers": []}, "image"),
        ({"background": picture, "layers": []}, "mask"),
        ({"background": picture, "layers": [nothing]}, "mask"),
        ({"background": picture, "layers": [bomb]}, "mask"),
    ):
        with pytest.raises(InputError) as caught:
            inputs.painted(value)
        assert caught.value.name == name


@pytest.mark.parametrize("read", [inputs.uploaded, inputs.adapter])
def test_a_file_that_the_page_keeps_no_more_is_asked_for_again(read, tmp_path):
    with pytest.raises(InputError) as caught:
        read({"path": str(tmp_path / "old")})
    sentences = [texts.refusal(language, caught.value) for language in (0, 1)]
    assert sentences == list(texts.TEXTS["gone"])


@pytest.mark.parametrize(
    "wrong", [{"prompt": " "}, {"seed": -1}, {"width": 63}, {"guidance_scale": 0}, {"scheduler": "X"}, {"lora": b"no"}]
)
def test_a_field_is_refused_in_the_language_of_the_page(wrong):
    with pytest.raises(InputError) as caught:
        Request(**{"prompt": "猫"} | wrong)
    english, japanese = (texts.refusal(language, caught.value) for language in (0, 1))
    assert english.isascii() or "猫" in english
    assert english[0] == english[0].upper()
    assert english.endswith(".")
    assert JAPANESE.search(japanese)
    assert japanese.endswith("。")
