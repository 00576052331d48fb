"""The watermark is found after saving, is invisible, and is not found in other pictures."""

import io
import subprocess
import sys

import numpy as np
import pytest
from imwatermark import WatermarkDecoder
from imwatermark.dwtDctSvd import EmbedDwtDctSvd
from PIL import Image, ImageDraw

from jsd import watermark

BACKGROUNDS = ["white", "black", "#4682dc", "#fadc50", "#e63c3c", "#ffc0cb"]


def drawing(background: str, size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Flat shapes with hard edges, like an emoji. They are the hardest pictures to mark."""
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 50, 200, 210), fill="#f4a93a", outline="#5c3b14", width=6)
    draw.polygon([(60, 90), (80, 20), (120, 60)], fill="#f4a93a")
    draw.ellipse((90, 100, 110, 130), fill="black")
    draw.rectangle((120, 150, 180, 170), fill="#d0021b")
    return image


def encoded(image: Image.Image, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, **options)
    return Image.open(file)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize(
    "options",
    [
        {"format": "PNG"},
        {"format": "JPEG", "quality": 90},
        {"format": "JPEG", "quality": 90, "subsampling": 0},
        {"format": "JPEG", "quality": 80},
        {"format": "WEBP", "quality": 80},
    ],
)
def test_the_watermark_survives_saving(background, options):
    assert watermark.detect(encoded(watermark.embed(drawing(background)), **options)).marked


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("sampling", [Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
def test_the_watermark_survives_scaling_down_and_up(background, sampling):
    small = watermark.embed(drawing(background)).resize((230, 230), sampling)
    assert watermark.detect(small.resize((256, 256), sampling)).marked


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_no_watermark_is_found_in_an_unmarked_picture(background):
    for image in (drawing(background), Image.new("RGB", (256, 256), background)):
        assert not watermark.detect(image).marked


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_watermark_is_invisible(background):
    image = drawing(background)
    error = (np.asarray(image, float) - np.asarray(watermark.embed(image), float)) ** 2
    assert 10 * np.log10(255**2 / error.mean()) >= 36


@pytest.mark.parametrize("size", [(256, 256), (257, 263), (64, 1024), (640, 384)])
def test_a_picture_of_any_shape_with_enough_pixels_is_marked(size):
    marked = watermark.embed(Image.new("RGB", size, "white"))
    assert marked.size == size
    assert watermark.detect(marked).agreement > 0.99


def test_a_picture_that_is_too_small_is_neither_marked_nor_judged():
    image = drawing("white", (255, 256))
    assert not watermark.can_mark(image.size)
    assert watermark.embed(image) is image
    with pytest.raises(ValueError, match="255 x 256"):
        watermark.detect(image)


def test_the_package_itself_reads_the_watermark():
    bgr = np.ascontiguousarray(np.asarray(watermark.embed(drawing("white")))[..., ::-1])
    found = WatermarkDecoder("bits", 1024).decode(bgr, "dwtDctSvd")
    assert np.mean([int(bit) == wanted for bit, wanted in zip(found, watermark.BITS, strict=True)]) > 0.99


@pytest.mark.parametrize("size", [(256, 256), (257, 263), (64, 1024)])
def test_the_watermark_is_that_of_the_package(size):
    """The package changes the low band of U, block by block. Ours changes the same pixels by the same amounts."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    checks = (np.indices(size[::-1]).sum(0) // 4 % 2)[..., None] * np.array([255, 255, 0]) + [0, 0, 128]
    for image in (drawing("#4682dc", size), noise, Image.fromarray(checks.clip(0, 255).astype(np.uint8))):
        rgb = np.asarray(image, dtype=np.float64).clip(max=252)
        r, g, b = np.moveaxis(rgb, -1, 0)
        u = 0.492 * (b - (0.299 * r + 0.587 * g + 0.114 * b)) + 128
        h, w = (side // 4 * 2 for side in u.shape)
        low = u[: 2 * h, : 2 * w].reshape(h, 2, w, 2).sum(axis=(1, 3)) / 2
        EmbedDwtDctSvd(watermark.BITS, 1024).encode_frame(marked := low.copy(), watermark.SCALE)
        change = np.zeros_like(u)
        change[: 2 * h, : 2 * w] = np.kron((marked - low) / 2, np.ones((2, 2)))
        rgb += change[..., None] * (0, -0.395, 2.032)
        assert (np.asarray(watermark.embed(image)) == rgb.round().clip(0, 255)).all()


def test_serving_needs_no_opencv():
    code = "import sys, torch, jsd.engine; from jsd import watermark; "
    code += "watermark.mark(torch.zeros(1, 256, 256, 3, dtype=torch.uint8)); print('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_random_pixels_agree_as_often_as_a_fair_coin():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    agreement, chance = watermark.detect(Image.fromarray(noise))
    assert 0.25 < agreement < 0.75
    assert 1e-3 < chance <= 1
