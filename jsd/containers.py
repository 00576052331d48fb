"""What Pillow has to see of a PNG, JPEG or WebP file. It refuses a whole file for broken or large metadata.

So `essentials` leaves out all but the pixels, the colour profile, and what says which side is up (EXIF, XMP).
"""

from __future__ import annotations

import contextlib
import io
import struct

from PIL import ExifTags, Image, PngImagePlugin

PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PNG_KEPT = (b"tRNS", b"iCCP", b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")  # the last two name a text
# The segments of a JPEG file that are kept, by how they begin, and the bytes that each has at least.
JPEG_KEPT = {b"JFIF\0": 14, b"Adobe": 12, b"http://ns.adobe.com/xap/1.0/\0": 29, b"ICC_PROFILE\0": 14}
WEBP_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
WEBP_KEPT = (b"ICCP", b"EXIF", b"XMP ")


def kind_of(data: bytes) -> str:
    """Return "png", "jpeg" or "webp", by the first 12 bytes of a file, or "" for another kind of file."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def essentials(data: bytes) -> bytes:
    """Return a PNG, JPEG or WebP file without metadata that its pixels do not need or that is broken.

    An animated PNG file becomes its still picture. Broken pixels stay broken. Raises KeyError for another kind of file.
    """
    return {"png": _png, "jpeg": _jpeg, "webp": _webp}[kind_of(data)](data)


def _png(data: bytes) -> bytes:
    """Keep the critical chunks, and the first of each name in PNG_KEPT if Pillow can read it (PNG 3rd edition, 5.4)."""
    view, kept, seen = memoryview(data), [data[:8]], set()
    stream = PngImagePlugin.PngStream(io.BytesIO(data))
    stream.fp.seek(8)
    with contextlib.suppress(struct.error, SyntaxError):  # at the end, or at what is no chunk
        while True:
            kind, at, length = stream.read()
            name = data[at : at + 80].partition(b"\0")[0] if kind in PNG_TEXTS else kind
            good = kind[:1].isupper()
            if kind == b"IHDR" or (name in PNG_KEPT and name not in seen):
                seen.add(name)
                with contextlib.suppress(Exception):
                    stream.crc(kind, stream.call(kind, at, length))
                    good = True
            if good:
                kept.append(view[at - 8 : at + length + 4])
            stream.fp.seek(at + length + 4)
    return b"".join(kept)


def _jpeg(data: bytes) -> bytes:
    """Keep all segments but comments and those of applications (APPn) that are not in JPEG_KEPT (ITU T.81, annex B)."""
    view, kept, at = memoryview(data), [data[:2]], 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA:  # no segment, or the pixels
            break
        if marker == 0xFF:  # a fill byte
            end = at + 1
        elif marker == 0xE1 and data.startswith(b"Exif\0", at + 4):
            exif = _orientation_in(data[at + 4 : end])
            kept += [b"\xff\xe1", (len(exif) + 2).to_bytes(2), exif]
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _is_kept(data[at + 4 : end]):
            kept.append(view[at:end])
        at = end
    return b"".join([*kept, view[at:]])


def _is_kept(segment: bytes) -> bool:
    return any(segment.startswith(name) and len(segment) >= least for name, least in JPEG_KEPT.items())


def _orientation_in(exif: bytes) -> bytes:
    """Return EXIF data that has only the orientation of `exif`, or nothing if that is broken."""
    whole, kept = Image.Exif(), Image.Exif()
    with contextlib.suppress(Exception):
        whole.load(exif)
        kept[ExifTags.Base.Orientation] = int(whole[ExifTags.Base.Orientation])
    return kept.tobytes()


def _webp(data: bytes) -> bytes:
    """Keep the chunks with pixels, and those in WEBP_KEPT that are whole (RFC 9649, section 2)."""
    view, kept, at = memoryview(data), [b"WEBP"], 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind in WEBP_PIXELS or (kind in WEBP_KEPT and at + 8 + size <= len(data)):
            kept += [view[at : at + 8 + size], b"\0" * (size % 2)]
        at += 8 + size + size % 2
    return b"RIFF" + sum(map(len, kept)).to_bytes(4, "little") + b"".join(kept)
