"""Pictures to files: `save` writes one whole or not at all, with how it was made inside; `read_metadata` reads that.

PNG keeps the metadata as two text chunks: `metadata`, a JSON object, and `parameters`, the same for people. JPEG and
WebP keep the JSON object as UTF-8 in the EXIF tag ImageDescription.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from jsd import __version__, watermark
from jsd.request import OUTPUT_FORMATS, InputError, Result, shown

GENERATOR = f"Japanese Stable Diffusion {__version__}"
ENCODERS = {
    "png": {"format": "PNG"},
    # Whole-resolution colour: halved, it frays a drawing's edges and wears the watermark.
    "jpg": {"format": "JPEG", "subsampling": 0},
    "webp": {"format": "WEBP"},
}


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
        "scheduler": request.scheduler,
        "width": image.width,
        "height": image.height,
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


def _for_people(metadata: dict[str, Any]) -> str:
    rest = {key: value for key, value in metadata.items() if key not in ("prompt", "negative_prompt", "timings")}
    lines = [metadata.get("prompt", "")]
    if metadata.get("negative_prompt"):
        lines.append(f"Negative prompt: {metadata['negative_prompt']}")
    lines.append(", ".join(f"{key.replace('_', ' ').capitalize()}: {value}" for key, value in rest.items()))
    return "\n".join(lines)
