"""Picture files hold metadata, and they appear whole or not at all."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from jsd import images
from jsd.errors import InputError

METADATA = {
    "generated_by": "Japanese Stable Diffusion 0",
    "prompt": "猫の肖像画 油絵 😺 \x07\n\u202e « é »",
    "negative_prompt": "ぼやけた",
    "seed": 2**53 - 1,
}
MAGIC = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", MAGIC)
def test_metadata_can_be_read_back_from_every_format(picture, tmp_path, format):
    path = images.save(picture, tmp_path / f"out.{format}", format, 90, METADATA)
    assert images.read_metadata(path) == METADATA
    with Image.open(path) as saved:
        assert saved.format == MAGIC[format]
        assert saved.size == picture.size
        saved.load()


@pytest.mark.parametrize("format", MAGIC)
def test_the_longest_prompts_can_be_read_back(picture, tmp_path, format):
    text = "\x01" * 2000
    long = METADATA | {"prompt": text, "negative_prompt": text, "removed_syntax": [text, text]}
    assert images.read_metadata(images.save(picture, tmp_path / "out", format, 90, long)) == long


def test_png_keeps_every_pixel(picture, tmp_path):
    images.save(picture, tmp_path / "out.png", "png", 1, METADATA)
    assert Image.open(tmp_path / "out.png").tobytes() == picture.tobytes()


def test_png_holds_the_metadata_as_text_for_people(picture, tmp_path):
    images.save(picture, tmp_path / "out.png", "png", 90, METADATA)
    with Image.open(tmp_path / "out.png") as saved:
        text = saved.text["parameters"]
    assert text.startswith(METADATA["prompt"])
    assert "Negative prompt: ぼやけた" in text
    assert f"Seed: {2**53 - 1}" in text


@pytest.mark.parametrize("format", ["jpg", "jpeg", "webp"])
def test_jpeg_and_webp_hold_the_same_text_as_a_user_comment(picture, tmp_path, format):
    images.save(picture, tmp_path / "out.png", "png", 90, METADATA)
    images.save(picture, tmp_path / "out", format, 90, METADATA)
    with Image.open(tmp_path / "out.png") as png, Image.open(tmp_path / "out") as saved:
        exif = saved.getexif()
        comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert comment == b"UNICODE\0" + png.text["parameters"].encode("utf-16-be")
    # The tag has type 7, UNDEFINED, and the byte order is that of the text, for readers that look at it.
    file = (tmp_path / "out").read_bytes()
    assert b"MM\0*" in file
    assert b"\x92\x86\0\x07" in file


def test_the_metadata_of_older_files_can_still_be_read(picture, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(METADATA, ensure_ascii=False).encode()
    picture.save(tmp_path / "out.jpg", exif=exif)
    assert images.read_metadata(tmp_path / "out.jpg") == METADATA


def test_a_higher_quality_makes_a_larger_file(picture, tmp_path):
    for format in ("jpg", "webp"):
        sizes = [
            images.save(picture, tmp_path / "out", format, quality, METADATA).stat().st_size for quality in (10, 95)
        ]
        assert sizes[0] < sizes[1]


def test_an_unknown_format_is_refused_and_nothing_is_written(picture, tmp_path):
    with pytest.raises(InputError, match="output_format.*'gif'.*png, jpg, webp"):
        images.save(picture, tmp_path / "out.gif", "gif", 90, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_nothing_else(picture, tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def half(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space"):
        images.save(picture, path, "png", 90, METADATA)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_of_another_program_has_no_metadata(picture, tmp_path):
    for name in ("out.png", "out.jpg"):
        picture.save(tmp_path / name)
        assert images.read_metadata(tmp_path / name) == {}


def test_metadata_that_is_no_json_object_is_an_error(picture, tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("metadata", json.dumps([1, 2]))
    picture.save(tmp_path / "out.png", pnginfo=chunks)
    with pytest.raises(ValueError, match="not a JSON object"):
        images.read_metadata(tmp_path / "out.png")
