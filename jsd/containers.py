"""What Pillow has to see of a PNG, JPEG or WebP file. Pillow refuses a whole file for broken or large metadata.

So `essentials` leaves out all but the pixels, the colour profile, and what says which side is up (EXIF, XMP). A file of
megabytes may have millions of parts, and Python would take a minute for them. So repeated and empty parts are left out
too, and a file with too many is refused.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

from PIL import ExifTags, Image, PngImagePlugin

from jsd.errors import PictureError

PARTS = 10_000  # the most parts (chunks, segments) that a file may have, and one more for each kilobyte
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PNG_PIXELS = (b"IHDR", b"PLTE", b"IEND")  # and IDAT, the only one that may come often
PNG_EXIF = (b"eXIf", b"Raw profile type exif")
PNG_KEPT = (b"tRNS", b"iCCP", b"XML:com.adobe.xmp", *PNG_EXIF)  # two of them name a text
JPEG_MARKER = re.compile(rb"[^\xff]*+\xff++(.)", re.DOTALL)  # after what belongs to no segment, and fill bytes
JPEG_SCAN = 0xDA  # the pixels follow
JPEG_TABLES = {*range(0xC0, 0xD0), *range(JPEG_SCAN, 0xE0)}
TABLES = 16  # the most segments of a kind of table
# The metadata that are kept, by how they begin: the marker, the bytes that they have at least, and the most segments.
JPEG_KEPT = {
    b"JFIF\0": (0xE0, 14, 1),
    b"Exif\0": (0xE1, 5, 1),
    b"http://ns.adobe.com/xap/1.0/\0": (0xE1, 29, 1),
    b"ICC_PROFILE\0": (0xE2, 14, 255),
    b"Adobe": (0xEE, 12, 1),
}
WEBP_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
WEBP_KEPT = (b"ICCP", b"EXIF", b"XMP ")
EXIF_BEGIN = re.compile(rb"(?:Exif\0\0)*+")
EXIF_NUMBERS = {1: "B", 3: "H", 4: "L"}  # the types of an orientation: BYTE, SHORT, LONG


def kind_of(data: bytes) -> str:
    """Return "png", "jpeg" or "webp", by the first 12 bytes of a file, or "" for another kind of file."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def essentials(data: bytes) -> bytes:
    """Return a PNG, JPEG or WebP file without metadata that its pixels do not need or that is broken.

    An animated file becomes its still picture or its first one. Broken pixels stay broken. Raises `PictureError` for a
    file of too many parts, and KeyError for another kind of file.
    """
    return {"png": _png, "jpeg": _jpeg, "webp": _webp}[kind_of(data)](data)


def _counted(parts: Iterator[tuple], data: bytes) -> Iterator[tuple]:
    """Yield the `parts` of the file `data`. Raises `PictureError` if they are too many."""
    most = PARTS + len(data) // 1000
    for number, part in enumerate(parts):
        if number == most:
            raise PictureError("a file of more than {} parts; save the picture again with another program", most)
        yield part


def _png(data: bytes) -> bytes:
    """Keep the pixels, and the first of each name in PNG_KEPT if Pillow can read it (PNG 3rd edition, 5.4)."""
    view, kept, seen = memoryview(data), [data[:8]], set()
    stream = PngImagePlugin.PngStream(io.BytesIO(data))
    for kind, at, length in _counted(_png_chunks(data), data):
        name = data[at : at + 80].partition(b"\0")[0] if kind in PNG_TEXTS else kind
        whole = view[at - 8 : at + length + 4]
        if kind == b"IDAT" and length:
            kept.append(whole)
        if name in seen or name not in PNG_PIXELS + PNG_KEPT or (kind == b"PLTE" and data[25:26] != b"\3"):
            continue  # a palette is not needed where the pixels have colours of their own
        seen.add(name)
        if kind in PNG_PIXELS:
            kept.append(whole)
        with contextlib.suppress(Exception):
            stream.fp.seek(at)
            stream.crc(kind, stream.call(kind, at, length))
            if name in PNG_EXIF:
                text = stream.im_info.get(name.decode(), "")
                exif = _orientation_in(data[at : at + length] if name == kind else _from_hex(text))
                kept.append(_png_chunk(b"eXIf", exif) if exif else b"")
            elif name in PNG_KEPT:
                kept.append(whole)
    return b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content begins, and its length, until the last, or what is no chunk."""
    at, kind = 16, b""
    while kind != b"IEND" and at <= len(data) and data[at - 4 : at].isalnum():
        kind, length = data[at - 4 : at], int.from_bytes(data[at - 8 : at - 4])
        yield kind, at, length
        at += length + 12


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def _from_hex(text: str) -> bytes:
    """Return the bytes of a raw profile, as ImageMagick writes it: a blank line, its name, its length, lines of hex."""
    return bytes.fromhex("".join(text.split("\n")[3:]))


def _jpeg(data: bytes) -> bytes:
    """Keep the tables and the pixels, and of the rest what is in JPEG_KEPT (ITU T.81, annex B)."""
    view, kept, counts = memoryview(data), [data[:2]], Counter()
    for marker, at, end in _counted(_jpeg_segments(data), data):
        content = data[at + 2 : min(end, at + 40)]
        name, most = marker, TABLES if marker in JPEG_TABLES else 0
        for begin, (own, least, segments) in JPEG_KEPT.items():
            if marker == own and content.startswith(begin) and end - at - 2 >= least:
                name, most = begin, segments
        counts[name] += bool(content)
        if not content or counts[name] > most:
            continue
        if name != b"Exif\0":
            kept += [b"\xff", view[at - 1 : end]]
        elif exif := _orientation_in(data[at + 2 : end]):
            kept += [b"\xff\xe1", (len(exif) + 2).to_bytes(2), exif]
    return b"".join(kept)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield what follows each marker: the marker, where its length stands, and its end. The pixels are one segment."""
    at = 2
    while found := JPEG_MARKER.match(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == JPEG_SCAN:
            end = len(data)
        elif marker < 0xC0 or 0xD0 <= marker <= 0xD9:  # it stands alone
            end = at
        else:
            end = at + max(2, int.from_bytes(data[at : at + 2]))
        yield marker, at, end
        at = end


def _webp(data: bytes) -> bytes:
    """Keep the first of each kind of chunk with pixels, and of those in WEBP_KEPT that are whole (RFC 9649, sec. 2)."""
    view, kept, seen = memoryview(data), [b"WEBP"], set()
    for kind, at, size in _counted(_webp_chunks(data), data):
        content = view[at : at + size]
        if not size or kind in seen or not (kind in WEBP_PIXELS or (kind in WEBP_KEPT and len(content) == size)):
            continue
        seen.add(kind)
        if kind == b"EXIF":
            content = _orientation_in(bytes(content))
            size = len(content)
        if size:
            kept += [kind, size.to_bytes(4, "little"), content, b"\0" * (size % 2)]
    return b"RIFF" + sum(map(len, kept)).to_bytes(4, "little") + b"".join(kept)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content begins, and its size."""
    at = 20
    while at <= len(data):
        kind, size = data[at - 8 : at - 4], int.from_bytes(data[at - 4 : at], "little")
        yield kind, at, size
        at += size + size % 2 + 8


def _orientation_in(exif: bytes) -> bytes:
    """Return EXIF data that has only the orientation of `exif`, or nothing if there is none (TIFF 6.0, section 2).

    Pillow would read every entry, and thousands of them may share the same megabytes.
    """
    start, kept = EXIF_BEGIN.match(exif).end(), Image.Exif()
    order = "<" if exif.startswith(b"II", start) else ">"
    with contextlib.suppress(struct.error, KeyError):
        directory = start + struct.unpack_from(f"{order}L", exif, start + 4)[0]
        for number in range(struct.unpack_from(f"{order}H", exif, directory)[0]):
            at = directory + 2 + 12 * number
            tag, kind = struct.unpack_from(f"{order}HH", exif, at)
            if tag == ExifTags.Base.Orientation:
                (kept[tag],) = struct.unpack_from(order + EXIF_NUMBERS[kind], exif, at + 8)
                return kept.tobytes()
    return b""
