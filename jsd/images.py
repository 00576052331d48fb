"""Picture files: `read_picture` and `read_input` open them, `save` writes them with metadata, `read_metadata` reads it.
PNG files hold the metadata in two text chunks: `metadata` is a JSON object, `parameters` the text of `jsd.infotext`.
JPEG and WebP files hold them in two EXIF tags: the JSON object as UTF-8 in ImageDescription, the text in UserComment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from jsd.atomic import atomic_file
from jsd.errors import InputError, PictureError, shown
from jsd.infotext import infotext
from jsd.request import FORMAT_NAMES, OUTPUT_FORMATS

INPUT_FORMATS = ("PNG", "JPEG", "WEBP")
MAX_INPUT_PIXELS = 50_000_000
ENCODERS = {
    "png": {"format": "PNG"},
    # Colour in full resolution. Half of it frays the edges of drawings and weakens the watermark.
    "jpg": {"format": "JPEG", "subsampling": 0},
    "webp": {"format": "WEBP"},
}


def read_picture(file: str | Path | BinaryIO, background: str = "white") -> Image.Image:
    """Read a png, jpeg or webp file (first frame) as RGB, turned upright by its EXIF, on a `background` colour.

    Raises `PictureError` for another format, for a broken file, and for more than MAX_INPUT_PIXELS pixels, before they
    are decoded.
    """
    try:
        with Image.open(file, formats=INPUT_FORMATS) as image:
            if image.width * image.height > MAX_INPUT_PIXELS:
                raise PictureError(f"{image.width} x {image.height} pixels; at most {MAX_INPUT_PIXELS} are read")
            image.load()
            image = ImageOps.exif_transpose(image)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("not a png, jpeg or webp file") from None
    except Image.DecompressionBombError:
        raise PictureError(f"too many pixels; at most {MAX_INPUT_PIXELS} are read") from None
    except Exception as error:  # noqa: BLE001  Pillow raises many classes of errors for broken files
        raise PictureError(f"unreadable ({type(error).__name__})") from None
    return to_rgb(image, background)


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Convert a picture of any mode to RGB. Where it is transparent, the colour `background` shows."""
    if image.mode.startswith("I"):  # 16 bits per pixel: convert() would clip them at 255
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def read_input(name: str, file: str | Path | BinaryIO) -> Image.Image:
    """Read the file for the request's input `name`: "image" as RGB, "mask" as greyscale. Raises `InputError`."""
    try:
        # Transparent parts of a mask count as black, because nobody painted them white.
        return read_picture(file, "black").convert("L") if name == "mask" else read_picture(file)
    except PictureError as error:
        raise InputError(name, f"{error}; a whole png, jpeg or webp picture is wanted") from None


def crop_to(image: Image.Image, size: tuple[int, int], at: float = 0.5) -> Image.Image:
    """Crop a picture to the aspect ratio of `size` (width, height), and return it scaled to that size.

    `at` places the crop, from 0 (left, top) to 1 (right, bottom).
    """
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS, centering=(at, at))


def save(image: Image.Image, path: str | Path, format: str, quality: int, metadata: dict[str, Any]) -> Path:
    """Write `image`, with `metadata` in the file, to `path` as png, jpg or webp, whole or not at all. Returns the path.

    `quality` is 1-100, for jpg and webp. Raises `InputError` for another format, `OSError` if the file can't be
    written.
    """
    format = FORMAT_NAMES.get(format, format)
    if format not in ENCODERS:
        raise InputError("output_format", f"{shown(format)} was given; allowed are {', '.join(OUTPUT_FORMATS)}")
    options = ENCODERS[format] | _embedded(format, metadata)
    if format != "png":
        options["quality"] = quality
    with atomic_file(Path(path)) as part:
        image.convert("RGB").save(part, **options)
    return Path(path)


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
        raise ValueError(f"{path}: its metadata is {shown(text)}, not a JSON object")
    return value


def sheet(images: Sequence[Image.Image], cell: int, columns: int = 6) -> Image.Image:
    """Return one picture: `images` in a grid of `columns` columns, each scaled to `cell` x `cell` pixels.

    Raises ValueError if there are no images.
    """
    if not images:
        raise ValueError("no pictures to arrange")
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
