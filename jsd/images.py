"""Picture files: `read_picture` and `read_input` open them, `save` writes them with metadata, `read_metadata` reads it.
PNG files hold the metadata in two text chunks: `metadata` is a JSON object, `parameters` the text of `jsd.infotext`.
JPEG and WebP files hold them in two EXIF tags: the JSON object as UTF-8 in ImageDescription, the text in UserComment.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from jsd.atomic import atomic_file
from jsd.containers import essentials, kind_of
from jsd.errors import InputError, PictureError, shown
from jsd.infotext import infotext
from jsd.language import Text
from jsd.pixels import to_rgb
from jsd.request import FORMAT_NAMES, OUTPUT_FORMATS

INPUT_FORMATS = ("PNG", "JPEG", "WEBP")
MAX_INPUT_PIXELS = 50_000_000
ENCODERS = {
    "png": {"format": "PNG", "compress_level": 4},  # a hundredth larger than with Pillow's 6, in half the time
    # Colour in full resolution. Half of it frays the edges of drawings and weakens the watermark.
    "jpg": {"format": "JPEG", "subsampling": 0},
    "webp": {"format": "WEBP"},
}


def read_picture(
    file: str | Path | BinaryIO,
    background: str = "white",
    formats: Sequence[str] | None = INPUT_FORMATS,
    most: int | None = MAX_INPUT_PIXELS,
) -> Image.Image:
    """Read a png, jpeg or webp file (first frame) as people see it (`pixels.to_rgb`), on a `background` colour.

    Broken metadata is left aside. With `formats=None` it reads all that Pillow can read. Raises `PictureError` for
    another format, for a broken file, and for more than `most` pixels, before they are decoded.
    """
    kind = ""
    try:
        with contextlib.ExitStack() as stack:
            stream = file if hasattr(file, "read") else stack.enter_context(open(file, "rb"))
            stream.seek(0)
            head = stream.read(12)
            kind = kind_of(head)
            if kind:
                stream = io.BytesIO(essentials(head + stream.read()))
            elif formats is not None:
                raise PictureError("not a png, jpeg or webp file")
            image = stack.enter_context(Image.open(stream, formats=formats))
            if most and image.width * image.height > most:
                raise PictureError("{} x {} pixels; at most {} are read", image.width, image.height, most)
            if kind == "png":
                _scale_transparency(image, *stream.getbuffer()[24:26])
            return to_rgb(image, background)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError("too many pixels; at most {} are read", most or 2 * Image.MAX_IMAGE_PIXELS) from None
    except MemoryError:
        raise PictureError("too large for the memory that is left") from None
    except Exception as error:  # noqa: BLE001  Pillow raises many classes of errors for broken files
        if isinstance(error, OSError) and error.strerror:
            raise PictureError("can't be opened ({})", Text(error.strerror)) from None
        if not kind:
            raise PictureError("not a picture of a known format, or a broken one") from None
        raise PictureError("a {} file that is broken, cut off or of a rare kind", kind) from None


def _scale_transparency(image: Image.Image, bits: int, colour_type: int) -> None:
    """Convert the transparent colour of a PNG file from its bits per channel to the 8 bits that Pillow decodes to."""
    if "transparency" in image.info and colour_type == 0 and bits in (2, 4):  # grey
        image.info["transparency"] *= 255 // (2**bits - 1)
    elif "transparency" in image.info and colour_type == 2 and bits == 16:  # RGB
        image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])


def read_input(name: str, file: str | Path | BinaryIO) -> Image.Image:
    """Read the file for the request's input `name`: "mask" as greyscale, "image" as RGB. Raises `InputError`."""
    try:
        return read_picture(file, "black").convert("L") if name == "mask" else read_picture(file)
    except PictureError as error:
        raise InputError(name, "{}; a whole png, jpeg or webp picture is wanted", error) from None


def crop_to(
    image: Image.Image,
    size: tuple[int, int],
    at: float = 0.5,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Crop a picture to the aspect ratio of `size` (width, height), and return it scaled to that size.

    `at` places the crop, from 0 (left, top) to 1 (right, bottom).
    """
    return ImageOps.fit(image, size, resampling, centering=(at, at))


def save(image: Image.Image, path: str | Path, format: str, quality: int, metadata: dict[str, Any]) -> Path:
    """Write `image` to the file `path` as `write` does, whole or not at all. Returns the path.

    Raises the errors of `write`, and `OSError` if the file can't be written.
    """
    with atomic_file(Path(path)) as part:
        write(image, part, format, quality, metadata)
    return Path(path)


def write(image: Image.Image, to: Path | BinaryIO, format: str, quality: int, metadata: dict[str, Any]) -> None:
    """Write `image`, with `metadata` in the file, as png, jpg or webp. `quality` is 1-100, for jpg and webp.

    Raises `InputError` for another format.
    """
    format = FORMAT_NAMES.get(format, format)
    if format not in ENCODERS:
        raise InputError("output_format", "{} was given; allowed are {}", shown(format), ", ".join(OUTPUT_FORMATS))
    options = ENCODERS[format] | _embedded(format, metadata)
    if format != "png":
        options["quality"] = quality
    image.convert("RGB").save(to, **options)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata that `save` wrote into a picture file. Returns an empty dict if there is none.

    Raises `OSError` if the file is not a readable picture, `ValueError` if its metadata is not a JSON object.
    """
    with Image.open(path) as image:
        if image.format == "PNG":
            text = image.text.get("metadata")
        else:
            # Pillow decodes EXIF text as Latin-1.
            text = image.getexif().get(ExifTags.Base.ImageDescription)
            text = text and text.encode("latin-1").decode()
    value = json.loads(text) if text else {}
    if not isinstance(value, dict):
        raise ValueError(Text("{}: its metadata is {}, not a JSON object", path, shown(text)))
    return value


def sheet(images: Sequence[Image.Image], cell: int, columns: int = 6) -> Image.Image:
    """Return one picture: `images` in a grid of `columns` columns, each scaled to `cell` x `cell` pixels.

    Raises ValueError if there are no images.
    """
    if not images:
        raise ValueError(Text("no pictures to arrange"))
    canvas = Image.new("RGB", (columns * cell, -(-len(images) // columns) * cell), "white")
    for i, image in enumerate(images):
        canvas.paste(image.resize((cell, cell), Image.Resampling.LANCZOS), (i % columns * cell, i // columns * cell))
    return canvas


def _embedded(format: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments for Pillow's `Image.save` that put `metadata` into a file of `format`."""
    text = json.dumps(metadata, ensure_ascii=False)
    if format == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("metadata", text)
        chunks.add_text("parameters", infotext(metadata))
        return {"pnginfo": chunks}
    exif = Image.Exif()
    exif.endian = ">"  # also that of UserComment: readers disagree about which of the two byte orders counts there
    exif[ExifTags.Base.Software] = str(metadata.get("generated_by", ""))
    exif[ExifTags.Base.ImageDescription] = text.encode()
    comment = b"UNICODE\0" + infotext(metadata).encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    # Pillow writes bytes of this tag (0x9286) as type 1, BYTE. The standard says 7, UNDEFINED, and piexif, with which
    # many programs read it, insists.
    return {"exif": exif.tobytes().replace(b"\x92\x86\0\x01", b"\x92\x86\0\x07", 1)}
