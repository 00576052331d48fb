"""Read the caption and the pixels of a raw sample, which is one captioned picture of a webdataset shard.

A raw sample is a dict of file extension -> bytes, for example {"jpg": ..., "txt": ...}.
"""

from __future__ import annotations

import io
import json
from typing import Any

import torch
from PIL import Image

from jsd.errors import PictureError, SampleError
from jsd.images import crop_to, read_picture
from jsd.language import Text
from jsd.vae import to_tensor

IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = ("txt", "caption", "json")
NAMES = "__names__"  # of a raw sample: a Counter of the names of all samples read from its shard so far


def caption_of(sample: dict[str, Any]) -> str:
    """Return the caption of a raw sample as a single line.

    The caption is the text of `txt`, or else of `caption`. Without these it is the value of `caption`, or else of
    `text`, in `json`. Raises `SampleError` if the caption is missing, empty or unreadable.
    """
    kind = next((kind for kind in CAPTIONS if kind in sample), None)
    if kind is None:
        raise SampleError("no caption{}", _apart(sample))
    try:
        # Windows begins a text file with a byte order mark.
        text = _caption_in(sample[kind]) if kind == "json" else sample[kind].decode("utf-8-sig")
        text.encode("utf-8")  # json may hold half of a surrogate pair
    except UnicodeError:
        raise SampleError("caption not UTF-8") from None
    text = " ".join(text.split())
    if not text:
        raise SampleError("caption empty")
    return text


def _apart(sample: dict[str, Any]) -> str:
    """Return why a part of a raw sample may be missing from it, as the end of a reason. "" if nothing tells why."""
    if any("." in kind for kind in sample):
        return Text(" (a dot in its name: webdataset ends a name at the first dot; rename the files)")
    if sample.get(NAMES, {}).get(sample.get("__key__"), 0) > 1:
        return Text(
            " (the shard is not sorted: the files of a sample have to follow each other; tar --sort=name does it)"
        )
    return ""


def _caption_in(data: bytes) -> str:
    """Return the caption in a sample's JSON, "" if there is none. Bad JSON: `SampleError` or UnicodeDecodeError."""
    try:
        about = json.loads(data)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        raise SampleError("json unreadable") from None
    if not isinstance(about, dict):
        raise SampleError("json unreadable")
    text = about.get("caption") or about.get("text") or ""
    if not isinstance(text, str):
        raise SampleError("caption is not text")
    return text


def image_of(sample: dict[str, Any]) -> Image.Image:
    """Decode the picture of a raw sample: RGB, upright, transparency on white. Raises `SampleError` if it can't."""
    data = next((sample[kind] for kind in IMAGES if kind in sample), None)
    if data is None:
        raise SampleError("picture: none{}", _apart(sample))
    try:
        return read_picture(io.BytesIO(data))
    except PictureError as error:
        raise SampleError("picture: {}", error) from None


def pixels_of(sample: dict[str, Any], size: int, at: float = 0.5) -> torch.Tensor:
    """Decode the picture of a raw sample: float (3, size, size) in [-1, 1]. Raises `SampleError` if it can't.

    The picture is cropped to a square and scaled to `size`. `at` places the square, from 0 (left or top) to 1.
    """
    return to_tensor(crop_to(image_of(sample), (size, size), at))
