"""A picture has the colours that people see: its colour profile is applied, and a broken one is ignored."""

import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from jsd.errors import InputError
from jsd.images import read_picture
from jsd.request import Request
from tests.files import DISPLAY_P3, chunk, cmyk_profile, curve, png, profile, rgb_profile

GIVEN, SEEN = (200, 60, 60), (217, 42, 52)  # a colour in Display P3, and the same in sRGB
P3 = rgb_profile(DISPLAY_P3)
LINEAR, LIGHT = profile(b"GRAY", kTRC=curve(1.0)), (137, 137, 137)  # what a quarter of white is in sRGB


def encoded(image: Image.Image, kind: str, **options) -> io.BytesIO:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data


def is_near(image: Image.Image, wanted: tuple[int, int, int], by: int = 2) -> bool:
    return np.abs(np.subtract(image.getpixel((8, 8)), wanted)).max() <= by


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("JPEG", "RGB", {"quality": 100, "subsampling": 0}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True}),
    ],
)
def test_a_profile_is_applied(kind, mode, options):
    image = Image.new("RGB", (16, 16), GIVEN)
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    assert is_near(read_picture(encoded(image, kind, icc_profile=P3, **options)), SEEN)


def test_transparent_parts_of_a_picture_with_a_profile_show_the_background():
    image = Image.new("RGBA", (16, 16), (*GIVEN, 0))
    assert is_near(read_picture(encoded(image, "PNG", icc_profile=P3), "black"), (0, 0, 0), by=0)


def test_the_profile_of_a_picture_of_16_bits_is_applied():
    row = b"\0" + b"".join(bytes([value, 0]) for value in GIVEN) * 9
    file = png(row * 9, 9, 9, [chunk(b"iCCP", b"p3\0\0" + zlib.compress(P3))], bits=16)
    assert is_near(read_picture(io.BytesIO(file)), SEEN)
    linear = encoded(Image.new("I;16", (16, 16), 0x4000), "PNG", icc_profile=LINEAR)
    assert is_near(read_picture(linear), LIGHT)


@pytest.mark.parametrize(("mode", "colour"), [("L", 64), ("LA", (64, 255))])
def test_a_profile_for_grey_is_applied(mode, colour):
    assert is_near(read_picture(encoded(Image.new(mode, (16, 16), colour), "PNG", icc_profile=LINEAR)), LIGHT)


def test_a_profile_for_printing_inks_is_applied():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    grey = cmyk_profile((0x8000, 0x8000, 0x8000))  # L* is 50
    assert is_near(read_picture(encoded(ink, "JPEG", icc_profile=grey)), (119, 119, 119))
    assert is_near(read_picture(encoded(ink, "JPEG")), (255, 0, 0))


@pytest.mark.parametrize(
    "broken",
    [b"junk", P3[:200], P3[:16] + b"\xff" + P3[17:], P3[:36] + b"none" + P3[40:], LINEAR, b"\0" * 3000],
    ids=["junk", "cut", "colour space", "signature", "grey", "zeros"],
)
def test_a_profile_that_is_broken_or_for_other_colours_is_ignored(broken):
    assert is_near(read_picture(encoded(Image.new("RGB", (16, 16), GIVEN), "PNG", icc_profile=broken)), GIVEN, by=0)


def test_a_profile_that_says_srgb_changes_no_pixel():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    assert read_picture(encoded(noise, "PNG", icc_profile=srgb)).tobytes() == noise.tobytes()


def test_a_picture_given_to_a_request_is_converted_once():
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    data = encoded(Image.new("RGB", (32, 16), GIVEN), "PNG", icc_profile=P3, exif=turned)
    asked = Request("猫", image=Image.open(data))
    assert (asked.image.mode, asked.image.size) == ("RGB", (16, 32))
    assert is_near(asked.image, SEEN)
    assert replace(asked, seed=1).image is asked.image


@pytest.mark.parametrize(("mode", "white"), [("I", 255), ("I", 65535), ("I;16", 65535)])
def test_white_is_white_in_a_mask_of_whole_numbers(mode, white):
    """Programs convert masks of 8 bits to mode I as they are. Files of 16 bits have another scale."""
    mask = Image.new(mode, (8, 8), white)
    assert Request("猫", image=Image.new("RGB", (8, 8)), mask=mask).mask.getpixel((4, 4)) == 255


def test_a_picture_given_to_a_request_has_to_be_whole():
    data = encoded(Image.effect_noise((64, 64), 80), "PNG").getvalue()
    with pytest.raises(InputError, match="mask: this picture can't be decoded: 'image file is truncated"):
        Request("猫", image=Image.new("RGB", (64, 64)), mask=Image.open(io.BytesIO(data[:2000])))
