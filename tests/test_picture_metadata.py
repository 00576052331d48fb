"""A picture with metadata that are broken, or too large for Pillow, is read. Its pixels are used, these left aside."""

import io
import struct
import zlib

import pytest
from PIL import Image

from jsd.errors import PictureError
from jsd.images import read_picture
from tests.files import chunk, png, segment

ROW, RED = b"\0\xff\0\0", (255, 0, 0)
LARGE = zlib.compress(b"x" * 1_200_000)
BROKEN_CHUNKS = {
    "large zTXt": chunk(b"zTXt", b"comment\0\0" + LARGE),
    "large iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "large profile": chunk(b"iCCP", b"name\0\0" + LARGE),
    "EXIF": chunk(b"eXIf", b"garbage"),
    "EXIF as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 4\nzz")),
    "checksum of a text": chunk(b"tEXt", b"comment\0words", crc=5),
    "checksum of EXIF": chunk(b"eXIf", b"MM\0*\0\0\0\10", crc=5),
    "compression of a profile": chunk(b"iCCP", b"name\0\7"),
    "gamma": chunk(b"gAMA", b"1"),
    "transparency": chunk(b"tRNS", b"1"),
    "animation": chunk(b"acTL", b"1") + chunk(b"fcTL", bytes(26)),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("broken", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_a_png_file_with_a_broken_chunk_is_read(broken):
    for place in ("before", "after"):
        assert read_picture(io.BytesIO(png(ROW, 1, 1, **{place: [broken]}))).getpixel((0, 0)) == RED


def with_exif(kind: str, exif: bytes) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 8), RED).save(data, kind, exif=exif)
    return data.getvalue()


def test_a_jpeg_file_with_a_broken_segment_is_read():
    jpeg = with_exif("JPEG", b"")
    for marker, content in (
        (0xE0, b"JFIF\0"),
        (0xE1, b"Exif\0\0garbage"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"MPF\0garbage"),
        (0xED, b"Photoshop 3.0\0008BIM\3\xed"),
        (0xEE, b"Adobe"),
    ):
        read = read_picture(io.BytesIO(jpeg[:2] + segment(marker, content) + jpeg[2:]))
        assert (read.size, read.getpixel((4, 4))[0] > 250) == ((16, 8), True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_though_other_exif_data_are_broken(kind):
    """The horizontal resolution is a byte. Pillow reads it when it opens a JPEG file, and expects a fraction."""
    entries = [(0x112, 3, 1, 6 << 16), (0x11A, 1, 1, 7 << 24), (0x128, 3, 1, 2 << 16)]  # tag, type, count, value
    exif = b"Exif\0\0MM\0*\0\0\0\10\0\3" + b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4)
    jpeg = with_exif("JPEG", b"")
    file = jpeg[:2] + segment(0xE1, exif) + jpeg[20:] if kind == "JPEG" else with_exif(kind, exif)
    assert read_picture(io.BytesIO(file)).size == (8, 16)


def test_a_webp_file_may_end_within_its_metadata():
    data = with_exif("WEBP", b"Exif\0\0" + bytes(100))
    for cut in (1, 50, 100):
        assert read_picture(io.BytesIO(data[:-cut])).size == (16, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_follows_a_picture_is_left_aside(kind):
    assert read_picture(io.BytesIO(with_exif(kind, b"") + b"\xff\xd8 trailing data")).size == (16, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_with_broken_pixels_is_refused_in_words(kind):
    data = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(data, kind)
    for broken in (data.getvalue()[:1000], data.getvalue()[:20]):
        with pytest.raises(PictureError, match=f"^a {kind.lower()} file that is broken, cut off or of a rare kind$"):
            read_picture(io.BytesIO(broken))


def test_a_file_that_can_not_be_opened_is_refused_in_words(tmp_path):
    with pytest.raises(PictureError, match=r"^can't be opened \(No such file or directory\)$"):
        read_picture(tmp_path / "missing.png")
