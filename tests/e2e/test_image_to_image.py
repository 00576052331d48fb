"""Pictures sent to the real server: departed from, repainted where the mask is white, refused when they are none."""

import io
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from jsd import images
from tests.e2e.conftest import as_uri, data, picture, to_uri
from tests.fakes import psnr
from tests.test_read_picture import WHOLE, bomb

CAT = {"prompt": "猫の肖像画 油絵", "width": 256, "height": 256, "num_inference_steps": 4, "seed": 7}
SIDEWAYS = Image.Exif()
SIDEWAYS[ExifTags.Base.Orientation] = 6
ORANGE = as_uri(Image.new("RGB", (64, 64), "orange"))


@pytest.fixture(scope="module")
def cat(server) -> str:
    (uri,) = server.predict(**CAT)["output"]
    return uri


def test_a_picture_is_departed_from_and_only_its_white_part_repainted(server, cat):
    """The server takes pictures as data URIs; what is kept is within the watermark and the VAE of what was sent."""
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 256, 128))
    (kept,) = server.draw(**CAT | {"prompt": "富士山", "image": cat, "prompt_strength": 0})
    asked = CAT | {"prompt": "富士山", "image": cat, "mask": as_uri(mask), "prompt_strength": 1}
    prediction = server.predict(**asked)
    painted = picture(prediction["output"][0])
    half = (0, 128, 256, 256)
    assert psnr(painted.crop(half), kept.crop(half)) >= 35
    assert psnr(painted.crop((0, 0, 256, 128)), kept.crop((0, 0, 256, 128))) < 25
    assert images.read_metadata(io.BytesIO(data(prediction["output"][0])))["start"] == "inpainting"


@pytest.mark.parametrize(
    ("kind", "uri", "size"),
    [
        ("rotated", as_uri(Image.new("RGB", (200, 100)), "JPEG", exif=SIDEWAYS), (96, 192)),
        ("cmyk", as_uri(Image.new("CMYK", (100, 100)), "JPEG"), (96, 96)),
        ("rgba", as_uri(Image.new("RGBA", (70, 70), (255, 0, 0, 90))), (64, 64)),
        ("16 bit", as_uri(Image.new("I;16", (64, 64), 30_000)), (64, 64)),
        ("one pixel", as_uri(Image.new("RGB", (1, 1))), (64, 64)),
    ],
)
def test_any_picture_gives_one_of_its_own_size(server, kind, uri, size):
    assert server.draw(prompt="猫", image=uri, num_inference_steps=2)[0].size == size


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": to_uri(bomb(50_000, 50_000).getvalue())}, "image: too many pixels"),
        ({"image": to_uri(WHOLE[:200])}, "image: unreadable"),
        ({"image": to_uri(b"only text")}, "image: not a png, jpeg or webp file"),
        ({"image": as_uri(Image.new("RGB", (8, 8)), "GIF")}, "image: not a png, jpeg or webp file"),
        ({"image": ORANGE, "mask": to_uri(b"only text")}, "mask: not a png, jpeg or webp file"),
        ({"mask": ORANGE}, "mask: given without an image"),
        ({"image": str(Path(__file__).parents[2] / "docs" / "grid.png")}, "image: '"),
        ({"image": "/proc/self/fd/0"}, "image: '/proc/self/fd/0' was given; a data URI"),
    ],
)
def test_what_is_no_picture_fails_with_the_reason_and_the_server_goes_on(server, cat, inputs, message):
    prediction = server.predict(**CAT | inputs)
    assert prediction["status"] == "failed"
    assert message in prediction["error"]
    assert server.draw(**CAT)[0].tobytes() == picture(cat).tobytes()
