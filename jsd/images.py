"""Pictures from and to files: `read_picture` opens whatever people send, `save` writes a picture whole or not at all,
with how it was made inside; `read_metadata` reads that.

PNG keeps the metadata as two text chunks: `metadata`, a JSON object, and `parameters`, the same for people. JPEG and
WebP keep the JSON object as UTF-8 in the EXIF tag ImageDescription.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from jsd import __version__, watermark
from jsd.request import OUTPUT_FORMATS, InputError, Request, Result, shown

GENERATOR = f"Japanese Stable Diffusion {__version__}"
INPUT_FORMATS = ("PNG", "JPEG", "WEBP")
MAX_INPUT_PIXELS = 50_000_000
ENCODERS = {
    "png": {"format": "PNG"},
    # Whole-resolution colour: halved, it frays a drawing's edges and wears the watermark.
    "jpg": {"format": "JPEG", "subsampling": 0},
    "webp": {"format": "WEBP"},
}


class PictureError(ValueError):
    """A file that is no picture we can read; the message says why in a few words."""


def read_picture(file: str | Path | BinaryIO, background: str = "white") -> Image.Image:
    """A png, jpeg or webp file as RGB: the right way up, its first frame, transparency on `background`.

    Raises `PictureError`: for other formats, for more than MAX_INPUT_PIXELS (before they are decoded), for a broken
    file.
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
    except Exception as error:  # noqa: BLE001  Pillow raises nearly anything for a broken file
        raise PictureError(f"unreadable ({type(error).__name__})") from None
    return to_rgb(image, background)


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """A picture of any mode as RGB, its transparency on `background`."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would cut off at 255
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def read_input(name: str, path: str | Path) -> Image.Image:
    """The picture a user gave as input `name` ("image" or "mask"). Raises `InputError`."""
    try:
        # What is transparent in a mask has not been painted white.
        return read_picture(path, "black").convert("L") if name == "mask" else read_picture(path)
    except PictureError as error:
        raise InputError(name, f"{error}; a whole png, jpeg or webp picture is wanted") from None


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of a picture in the proportions of `size`, scaled to it."""
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def metadata(result: Result, index: int) -> dict[str, Any]:
    """How image `index` of `result` was made: enough to make it again, and that a machine made it."""
    request, image = result.request, result.images[index]
    return {
        "generated_by": GENERATOR,
        "model": result.model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": result.seeds[index],
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "guidance_interval": request.guidance_interval,
        "scheduler": request.scheduler,
        "width": image.width,
        "height": image.height,
        **_start(request),
        "truncated_tokens": result.truncated,
        "watermark": watermark.can_mark(image.size),
        "timings": {name: round(seconds, 4) for name, seconds in result.timings.items()},
    }


def save(image: Image.Image, path: str | Path, format: str, quality: int, metadata: dict[str, Any]) -> Path:
    """Write `image` to `path` as png, jpg or webp, and return the path.

    `quality` is 1-100, for jpg and webp. The file appears whole: it is written beside `path` under another name and
    then renamed. Raises `InputError` for another format, `OSError` if it can't be written.
    """
    if format not in ENCODERS:
        raise InputError("output_format", f"{shown(format)} was given; allowed are {', '.join(OUTPUT_FORMATS)}")
    options = ENCODERS[format] | _embedded(format, metadata)
    if format != "png":
        options["quality"] = quality
    path = Path(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        image.convert("RGB").save(part, **options)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata `save` wrote into a file; empty if there is none.

    Raises `OSError` if the file is no readable picture, `ValueError` if its metadata is not a JSON object.
    """
    with Image.open(path) as image:
        if image.format == "PNG":
            text = image.text.get("metadata")
        else:
            # Pillow takes EXIF text for Latin-1.
            text = image.getexif().get(ExifTags.Base.ImageDescription)
            text = text and text.encode("latin-1").decode()
    value = json.loads(text) if text else {}
    if not isinstance(value, dict):
        raise ValueError(f"{path}: its metadata is {shown(text)}, not a JSON object")
    return value


def sheet(images: Sequence[Image.Image], cell: int, columns: int = 6) -> Image.Image:
    """The pictures, `cell` pixels wide and high each, in rows of `columns`. Raises ValueError when there are none."""
    if not images:
        raise ValueError("no pictures to arrange")
    canvas = Image.new("RGB", (columns * cell, -(-len(images) // columns) * cell), "white")
    for i, image in enumerate(images):
        canvas.paste(image.resize((cell, cell), Image.Resampling.LANCZOS), (i % columns * cell, i // columns * cell))
    return canvas


def _embedded(format: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Pillow's arguments that carry `metadata`."""
    text = json.dumps(metadata, ensure_ascii=False)
    if format == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("metadata", text)
        chunks.add_itxt("parameters", _for_people(metadata))
        return {"pnginfo": chunks}
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = GENERATOR
    exif[ExifTags.Base.ImageDescription] = text.encode()
    return {"exif": exif}


def _start(request: Request) -> dict[str, Any]:
    """What a picture was made from, if not from noise alone."""
    if request.image is None:
        return {}
    kind = "image to image" if request.mask is None else "inpainting"
    return {"start": kind, "prompt_strength": request.prompt_strength}


def _for_people(metadata: dict[str, Any]) -> str:
    rest = {key: value for key, value in metadata.items() if key not in ("prompt", "negative_prompt", "timings")}
    lines = [metadata.get("prompt", "")]
    if metadata.get("negative_prompt"):
        lines.append(f"Negative prompt: {metadata['negative_prompt']}")
    lines.append(", ".join(f"{key.replace('_', ' ').capitalize()}: {value}" for key, value in rest.items()))
    return "\n".join(lines)
