"""A picture file is read as people see it. Any other file is refused with the reason, before it costs anything."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from jsd import images
from jsd.errors import InputError, PictureError
from jsd.images import read_input, read_picture
from tests.fakes import bomb
from tests.files import chunk, png

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    data = io.BytesIO()
    image.save(data, kind, **options)
    data.seek(0)
    return data


def near(pixel, wanted, by=6) -> bool:
    return max(abs(a - b) for a, b in zip(pixel, wanted, strict=True)) <= by


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "PA", "1", "CMYK", "YCbCr"])
def test_a_picture_of_any_mode_is_read_as_rgb(kind, mode):
    image = Image.new("RGB", (12, 8), WHITE).convert(mode)
    try:
        data = encoded(image, kind)
    except (OSError, ValueError):
        pytest.skip(f"no {kind} of mode {mode}")
    read = read_picture(data)
    assert (read.mode, read.size) == ("RGB", (12, 8))
    assert near(read.getpixel((5, 5)), WHITE)


def test_16_bits_per_pixel_are_scaled_and_not_clipped():
    grey = np.full((8, 12), 0x8080, np.uint16)
    assert read_picture(encoded(Image.fromarray(grey))).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("bits", "colour", "samples", "transparent", "seen"),
    [
        (16, 0, "1234 8080", "1234", (128, 128, 128)),
        (16, 2, "123456789abc 808000000000", "123456789abc", (128, 0, 0)),
        (8, 0, "55 aa", "0055", (170, 170, 170)),
        (4, 0, "31", "0003", (17, 17, 17)),
        (2, 0, "60", "0001", (170, 170, 170)),
        (1, 0, "80", "0001", BLACK),
    ],
)
def test_the_transparent_colour_of_a_png_file_is_white_for_any_number_of_bits(bits, colour, samples, transparent, seen):
    """The first of two pixels has the transparent colour."""
    hidden = chunk(b"tRNS", bytes.fromhex(transparent))
    data = png(b"\0" + bytes.fromhex(samples), 2, 1, [hidden], bits=bits, colour=colour)
    read = read_picture(io.BytesIO(data), "lime")
    assert (read.getpixel((0, 0)), read.getpixel((1, 0))) == ((0, 255, 0), seen)


def test_a_cmyk_jpeg_keeps_its_colour():
    assert near(read_picture(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")).getpixel((8, 8)), RED)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_white_in_a_picture_and_black_in_a_mask(kind, tmp_path):
    image = Image.new("RGBA", (16, 8), (255, 255, 255, 255))
    image.paste((255, 0, 0, 0), (8, 0, 16, 8))
    file = tmp_path / "file"
    file.write_bytes(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})).getvalue())
    assert read_input("image", file).getpixel((12, 4)) == WHITE
    mask = read_input("mask", file)
    assert (mask.mode, mask.getpixel((4, 4)), mask.getpixel((12, 4))) == ("L", 255, 0)


def test_a_transparent_colour_of_a_palette_is_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 1), 1)
    read = read_picture(encoded(image, transparency=0))
    assert (read.getpixel((0, 0)), read.getpixel((1, 1))) == (WHITE, RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_upright(kind):
    image = Image.new("RGB", (32, 16), WHITE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the picture has to be turned by 90 degrees clockwise
    read = read_picture(encoded(image, kind, exif=exif))
    assert read.size == (16, 32)
    assert near(read.getpixel((8, 4)), RED)
    assert near(read.getpixel((8, 28)), WHITE)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_read(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLACK)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert near(read_picture(data).getpixel((4, 4)), RED)


WHOLE = encoded(Image.effect_noise((64, 64), 80)).getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bomb(50_000, 50_000), "too many pixels; at most 50000000"),
        (bomb(10_000, 10_000), "10000 x 10000 pixels; at most 50000000"),
        (io.BytesIO(b"only text"), "not a png, jpeg or webp file"),
        (io.BytesIO(b""), "not a png, jpeg or webp file"),
        (io.BytesIO(WHOLE[: len(WHOLE) // 2]), "a png file that is broken, cut off or of a rare kind"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "not a png, jpeg or webp file"),
        (encoded(Image.new("RGB", (8, 8)), "TIFF"), "not a png, jpeg or webp file"),
    ],
    ids=["bomb", "large", "text", "empty", "cut", "gif", "tiff"],
)
def test_a_file_that_is_no_picture_is_refused_with_the_reason(data, reason):
    with pytest.raises(PictureError, match=reason):
        read_picture(data)


def test_the_error_names_the_input(tmp_path):
    (tmp_path / "cat.png").write_text("meow")
    for name in ("image", "mask"):
        with pytest.raises(InputError, match=f"{name}: not a png, jpeg or webp file; a whole png"):
            read_input(name, tmp_path / "cat.png")


def test_a_picture_of_one_pixel_can_be_read_and_enlarged():
    assert images.crop_to(read_picture(encoded(Image.new("RGB", (1, 1), RED))), (64, 64)).getpixel((30, 30)) == RED
