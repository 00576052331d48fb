"""Picture files and colour profiles, built from their parts, so that a test can build one that is unusual or broken."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

# The colours of the primaries as XYZ, adapted to D50 (the colorants in Apple's Display P3 profile).
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    """Return a chunk of a PNG file, with the right checksum if `crc` is None."""
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(
    rows: bytes, width: int, height: int, before: Sequence[bytes] = (), after: Sequence[bytes] = (), **kind: int
) -> bytes:
    """Return a PNG file. `rows` holds a filter byte and the samples of each row, and may be of a wrong length.

    `before` and `after` are chunks around the pixels. `kind`: `bits` per channel (8), and `colour` type (2 is RGB).
    """
    header = struct.pack(">IIBBBBB", width, height, kind.get("bits", 8), kind.get("colour", 2), 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    parts = [chunk(b"IHDR", header), *before, pixels, *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def segment(marker: int, content: bytes) -> bytes:
    """Return a segment of a JPEG file."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def profile(space: bytes, **tags: bytes) -> bytes:
    """Return an ICC profile (version 4) for the colour space `space`, four characters, with tags of encoded content."""
    tags = {"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    offset, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name.encode() + struct.pack(">II", offset + len(content), len(value))
        content += value
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    head = bytes([4, 0x30, 0, 0]) + b"mntr" + space + (b"Lab " if space == b"CMYK" else b"XYZ ") + bytes(12) + b"acsp"
    head = bytes(4) + head + bytes(28) + illuminant
    body = head + bytes(128 - 4 - len(head)) + table + content
    return struct.pack(">I", len(body) + 4) + body


def xyz(*values: float) -> bytes:
    """Return a colour as the content of a profile's tag."""
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def curve(*parameters: float) -> bytes:
    """Return a curve as a profile's tag: a power alone, or the five numbers of a curve with a straight beginning."""
    numbers = struct.pack(f">{len(parameters)}i", *(round(value * 65536) for value in parameters))
    return b"para" + bytes(4) + struct.pack(">HH", 0 if len(parameters) == 1 else 3, 0) + numbers


def rgb_profile(primaries: Sequence[Sequence[float]]) -> bytes:
    """Return a profile with these primaries (X, Y, Z) and the curve of sRGB."""
    bent = curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    colours = {f"{name}XYZ": xyz(*values) for name, values in zip("rgb", primaries, strict=True)}
    return profile(b"RGB ", **colours, **dict.fromkeys(("rTRC", "gTRC", "bTRC"), bent))


def cmyk_profile(lab: tuple[int, int, int]) -> bytes:
    """Return a profile in which every ink but none at all has the colour `lab`, 16 bits each. No ink is white."""
    table = struct.pack(">3H", 0xFF00, 0x8000, 0x8000) + struct.pack(">3H", *lab) * 15
    matrix = struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    line, sizes = struct.pack(">2H", 0, 0xFFFF), struct.pack(">2H", 2, 2)
    head = b"mft2" + bytes(4) + bytes([4, 3, 2, 0])
    return profile(b"CMYK", A2B0=head + matrix + sizes + line * 4 + table + line * 3)
