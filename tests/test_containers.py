"""A picture file of very many parts costs little: repeated and empty ones are left out, and too many are refused."""

import io
import struct
import zlib

import pytest
from PIL import Image

from jsd.containers import essentials
from jsd.errors import PictureError
from jsd.images import read_picture
from tests.files import chunk, png, segment

ROW, RED = b"\0\xff\0\0", (255, 0, 0)
MANY = 9000
FEW = 20_000  # bytes


def saved(kind: str, **options) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 8), RED).save(data, kind, **options)
    return data.getvalue()


def exif(entries: list[tuple[int, int, int, int]]) -> bytes:
    """EXIF data of entries: tag, type, count, value."""
    packed = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"Exif\0\0MM\0*\0\0\0\10" + struct.pack(">H", len(entries)) + packed + bytes(4)


JPEG, WEBP = saved("JPEG"), saved("WEBP")
SCAN, TABLE = b"\xff\xda", JPEG.index(b"\xff\xdb")
UPRIGHT = exif([(0x112, 3, 1, 6 << 16)])
# 200 entries that share 60,000 bytes, and the orientation
SHARED = exif([(0x112, 3, 1, 6 << 16), *((tag, 7, 60_000, 8) for tag in range(0x9000, 0x90C8))]) + bytes(60_000)


def jpeg_of(*parts: bytes) -> bytes:
    return JPEG[:2] + b"".join(parts) + JPEG[2:]


REPEATED = {
    "EXIF segments": jpeg_of(segment(0xE1, UPRIGHT) * MANY),
    "JFIF segments": jpeg_of(segment(0xE0, b"JFIF\0" + bytes(9)) * MANY),
    "Adobe segments": jpeg_of(segment(0xEE, b"Adobe\0d\0\0\0\0\1") * MANY),
    "parts of a profile": jpeg_of(segment(0xE2, b"ICC_PROFILE\0\1\1") * MANY),
    "comments": jpeg_of(segment(0xFE, b"") * MANY),
    "empty tables": jpeg_of(segment(0xDB, b"") * MANY),
    "tables": JPEG.replace(SCAN, JPEG[TABLE : TABLE + 69] * MANY + SCAN),
    "fill bytes": jpeg_of(b"\xff" * FEW),
    "headers": png(ROW, 1, 1, [chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))] * MANY),
    "palettes": png(ROW, 1, 1, [chunk(b"PLTE", b"abc")] * MANY),
    "unknown chunks": png(ROW, 1, 1, [chunk(b"ABCD", b"")] * MANY),
    "empty pixels": png(ROW, 1, 1, [chunk(b"IDAT", b"")] * MANY),
    "EXIF chunks": WEBP + b"EXIF\0\0\0\0" * MANY,
    "ALPH chunks": WEBP + b"ALPH\2\0\0\0\0\0" * MANY,
}


@pytest.mark.parametrize("data", REPEATED.values(), ids=REPEATED)
def test_repeated_and_empty_parts_are_left_out(data):
    assert len(essentials(data)) < FEW
    assert read_picture(io.BytesIO(data)).getpixel((0, 0))[0] > 250


def test_only_the_first_picture_of_an_animation_is_looked_at():
    frames = [Image.new("RGB", (64, 64), (i, 0, 0)) for i in range(255, 155, -1)]
    data = io.BytesIO()
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:])
    assert len(essentials(data.getvalue())) < len(data.getvalue()) / 10
    assert read_picture(data).getpixel((0, 0))[0] > 250


@pytest.mark.parametrize(
    "data",
    [
        jpeg_of(segment(0xED, b"") * 2 * MANY),
        jpeg_of(b"\xff\xd0" * 2 * MANY),
        png(ROW, 1, 1, [chunk(b"abCd", b"")] * 2 * MANY),
        WEBP + b"EXIF\0\0\0\0" * 2 * MANY,
    ],
    ids=["segments", "markers", "PNG", "WebP"],
)
def test_too_many_parts_are_refused_in_words(data):
    with pytest.raises(PictureError, match="a file of more than 10[0-9]+ parts; save the picture again"):
        read_picture(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG text", "WEBP"])
def test_of_exif_data_only_the_orientation_is_read(kind):
    """Pillow reads every entry, and thousands may share the same megabytes."""
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 1\n" + SHARED.hex().encode())
    data = {
        "JPEG": lambda: jpeg_of(segment(0xE1, SHARED)),
        "PNG": lambda: png(ROW * 2, 1, 2, [chunk(b"eXIf", SHARED[6:])]),
        "PNG text": lambda: png(ROW * 2, 1, 2, [chunk(b"zTXt", text)]),
        "WEBP": lambda: saved("WEBP", exif=SHARED),
    }[kind]()
    assert len(essentials(data)) < 1000
    assert read_picture(io.BytesIO(data)).size == ((2, 1) if kind.startswith("PNG") else (8, 16))


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("marker", [0xDB, 0xE1, 0xED, 0xFE])
def test_a_segment_shorter_than_its_own_length_is_skipped(marker, length):
    assert read_picture(io.BytesIO(jpeg_of(bytes([0xFF, marker, 0, length])))).size == (16, 8)


def test_a_broken_palette_does_not_matter_where_pixels_have_colours():
    data = png(ROW, 1, 1, [chunk(b"PLTE", b"abc", crc=5)])
    assert read_picture(io.BytesIO(data)).getpixel((0, 0)) == RED
