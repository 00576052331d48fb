"""What the fields of the page hold becomes the arguments of a request, or a sentence on it in both languages."""

from __future__ import annotations

import re
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from demo import inputs, texts
from demo.limits import Limits
from demo.studio import Studio
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
def test_a_file_that_the_page_keeps_no_more_is_asked_for_again(read, tmp_path, engine):
    with pytest.raises(InputError) as caught:
        read({"path": str(tmp_path / "old")})
    sentences = [texts.refusal(language, caught.value, Studio(engine, Limits())) for language in (0, 1)]
    assert sentences == list(texts.TEXTS["gone"])


def test_every_field_is_refused_in_the_language_of_the_page(engine):
    studio = Studio(engine, Limits(outputs=3))
    names = {field.name for field in fields(Request)} & texts.LABELS.keys() | {"mask"}
    assert len(names) == 14
    for name in names:
        english, japanese = (texts.refusal(i, InputError(name, "a word is wanted"), studio) for i in (0, 1))
        assert english == "A word is wanted."
        assert JAPANESE.search(japanese)
        assert "a word" not in japanese
    assert texts.refusal(1, InputError("num_outputs", "4"), studio) == "1〜3 の整数を入力してください。"


def test_every_text_is_in_both_languages():
    for english, japanese in (*texts.LABELS.values(), *texts.TEXTS.values(), *texts.OTHER_ERRORS.values()):
        assert english
        assert japanese
