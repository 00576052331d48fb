"""Pictures that are sent to the real server: image to image, inpainting, and files that are no pictures."""

import zlib

import pytest
from PIL import ExifTags, Image

from tests.e2e.conftest import CAT, SMALL, metadata_of
from tests.fakes import bomb, psnr
from tests.files import DISPLAY_P3, chunk, png, rgb_profile
from tests.server import ROOT, as_uri, data, picture, to_uri

SIDEWAYS = Image.Exif()
SIDEWAYS[ExifTags.Base.Orientation] = 6
NOISE = as_uri(Image.effect_noise((64, 64), 80))
ORANGE = as_uri(Image.new("RGB", (64, 64), "orange"))


def test_inpainting_repaints_only_the_white_part_of_the_mask(server):
    """The rest is the picture that was sent, but for the watermark."""
    (cat,) = server.predict(**CAT)["output"]
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 256, 128))
    (kept,) = server.draw(**CAT | {"prompt": "富士山", "image": cat, "prompt_strength": 0})
    asked = CAT | {"prompt": "富士山", "image": cat, "mask": as_uri(mask), "prompt_strength": 1}
    prediction = server.predict(**asked)
    painted = picture(prediction["output"][0])
    half = (0, 128, 256, 256)
    assert psnr(painted.crop(half), kept.crop(half)) >= 35
    assert psnr(painted.crop((0, 0, 256, 128)), kept.crop((0, 0, 256, 128))) < 25
    assert metadata_of(prediction)["start"] == "inpainting"


@pytest.mark.parametrize(
    ("uri", "size"),
    [
        (as_uri(Image.new("RGB", (1024, 768)), "JPEG"), (296, 224)),
        (as_uri(Image.new("RGB", (200, 100)), "JPEG", exif=SIDEWAYS), (184, 360)),
        (as_uri(Image.new("CMYK", (100, 100)), "JPEG"), (256, 256)),
        (as_uri(Image.new("RGBA", (70, 70), (255, 0, 0, 90))), (256, 256)),
        (as_uri(Image.new("I;16", (64, 64), 30_000)), (256, 256)),
        (as_uri(Image.new("RGB", (1, 1))), (256, 256)),
    ],
    ids=["photo", "rotated", "cmyk", "rgba", "16 bit", "one pixel"],
)
def test_a_result_has_the_proportions_of_the_picture_that_was_sent(server, uri, size):
    assert server.draw(prompt="猫", image=uri, num_inference_steps=2)[0].size == size


def test_a_picture_with_a_colour_profile_and_broken_metadata_is_read_as_people_see_it(tiny_server):
    """A prompt_strength of 0 returns the picture's own pixels."""
    colour = chunk(b"iCCP", b"p3\0\0" + zlib.compress(rgb_profile(DISPLAY_P3)))
    large = chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"x" * 1_200_000))
    row = b"\0" + bytes((200, 60, 60)) * 64
    uri = to_uri(png(row * 64, 64, 64, [colour, large, chunk(b"eXIf", b"garbage")]))
    (drawn,) = tiny_server.draw(prompt="猫", image=uri, mask=uri, prompt_strength=0)
    assert drawn.getcolors() == [(64 * 64, (217, 42, 52))]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": to_uri(bomb(50_000, 50_000).getvalue())}, "image: too many pixels"),
        ({"image": to_uri(data(NOISE)[:200])}, "image: a png file that is broken, cut off or of a rare kind"),
        ({"image": to_uri(b"only text")}, "image: not a png, jpeg or webp file"),
        ({"image": as_uri(Image.new("RGB", (8, 8)), "GIF")}, "image: not a png, jpeg or webp file"),
        ({"image": ORANGE, "mask": to_uri(b"only text")}, "mask: not a png, jpeg or webp file"),
        ({"mask": ORANGE}, "mask: given without an image"),
        ({"image": str(ROOT / "docs" / "grid.png")}, "image: '"),
        ({"image": "/proc/self/fd/0"}, "image: '/proc/self/fd/0' was given; a data URI"),
    ],
)
@pytest.mark.usefixtures("still_serving")
def test_a_file_that_is_no_picture_fails_with_the_reason(server, inputs, message):
    prediction = server.predict(**SMALL | inputs)
    assert prediction["status"] == "failed"
    assert message in prediction["error"]
