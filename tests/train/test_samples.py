"""A raw sample becomes a caption and a picture, or is refused with a reason."""

import io

import pytest
import torch
from PIL import Image

from jsd.errors import SampleError
from jsd.train.samples import caption_of, image_of, pixels_of
from tests.files import DISPLAY_P3, rgb_profile
from tests.train.shards import picture


def test_captions_come_from_txt_or_json_in_one_line():
    assert caption_of({"txt": " 猫の\n肖像画 ".encode()}) == "猫の 肖像画"
    assert caption_of({"json": '{"caption": "犬"}'.encode()}) == "犬"
    assert caption_of({"json": '{"text": "鳥"}'.encode()}) == "鳥"


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({}, "no caption"),
        ({"txt": b"  \n"}, "caption empty"),
        ({"txt": "猫の絵".encode("shift_jis")}, "caption not UTF-8"),
        ({"json": b"{"}, "json unreadable"),
        ({"json": b"[]"}, "json unreadable"),
        ({"json": b"3"}, "json unreadable"),
        ({"json": b'{"caption": ' + b"[" * 200_000}, "json unreadable"),
        ({"json": b'{"caption": ' + b"1" * 10_000 + b"}"}, "json unreadable"),
        ({"json": b'{"caption": ["a", {}]}'}, "caption is not text"),
        ({"json": b'{"caption": null}'}, "caption empty"),
        ({"json": b'{"caption": "\xff"}'}, "caption not UTF-8"),
        ({"json": b'{"caption": "\\ud800"}'}, "caption not UTF-8"),
    ],
)
def test_a_bad_caption_is_refused_with_a_reason(sample, reason):
    with pytest.raises(SampleError, match=f"^{reason}$"):
        caption_of(sample)


def test_pictures_of_any_mode_become_rgb():
    assert image_of({"png": picture((10, 20, 30, 0), mode="RGBA")}).getpixel((0, 0)) == (255, 255, 255)
    assert image_of({"png": picture(7, mode="P")}).mode == "RGB"
    assert image_of({"jpg": picture(90, kind="JPEG", mode="L")}).mode == "RGB"


def test_a_colour_profile_is_applied():
    data = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 60, 60)).save(data, "PNG", icc_profile=rgb_profile(DISPLAY_P3))
    assert image_of({"png": data.getvalue()}).getpixel((0, 0)) == (217, 42, 52)


def test_a_picture_is_turned_upright():
    turned = Image.Exif()
    turned[0x0112] = 6
    data = io.BytesIO()
    Image.new("RGB", (40, 20)).save(data, "JPEG", exif=turned)
    assert image_of({"jpeg": data.getvalue()}).size == (20, 40)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({}, "picture: none"),
        ({"png": b"no picture"}, "picture: not a png, jpeg or webp file"),
        ({"png": picture(kind="GIF")}, "picture: not a png, jpeg or webp file"),
    ],
)
def test_a_bad_picture_is_refused_with_a_reason(sample, reason):
    with pytest.raises(SampleError, match=f"^{reason}$"):
        image_of(sample)


def test_pixels_are_the_square_at_the_chosen_place():
    image = Image.new("RGB", (300, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    data = io.BytesIO()
    image.save(data, "PNG")
    middle, left = (pixels_of({"png": data.getvalue()}, 50, at) for at in (0.5, 0.0))
    red, white = torch.tensor([1.0, -1.0, -1.0]), torch.ones(3)
    assert middle.shape == left.shape == (3, 50, 50)
    assert torch.equal(middle[:, 25, 25], red)
    assert torch.equal(middle[:, 3, 3], red)
    assert torch.equal(left[:, 25, 25], white)
