"""From what the fields of a tab hold to the arguments of a `Request`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from jsd import images
from jsd.errors import InputError
from jsd.inputs import parse_inputs

PAINTED = 32  # the least opacity (0-255) of a pixel that counts as painted over


class MissingError(InputError):
    """A field has no value that can be used. `key` is that of the sentence for it in `demo.texts`."""

    def __init__(self, name: str, key: str):
        super().__init__(name, key)
        self.key = key


def arguments(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Request` for the fields other than files. What has its default value is left out.

    The seed is text, and "" means a random one. Raises `InputError`.
    """
    values = {name: value for name, value in fields.items() if value is not None and value != defaults.get(name)}
    seed = str(values.pop("seed", "")).strip()
    return values | (parse_inputs([f"seed={seed}"]) if seed else {})


def uploaded(value: Mapping[str, Any] | None) -> dict[str, Image.Image]:
    """Return the argument `image` for an uploaded file, {"path": ...}. Raises `InputError`."""
    if not value:
        raise MissingError("image", "no_image")
    return {"image": images.read_input("image", _file("image", value))}


def adapter(value: Mapping[str, Any] | None) -> dict[str, bytes]:
    """Return the argument `lora` for an uploaded file, {"path": ...}, or nothing if there is none.

    Raises `InputError` if the page keeps the file no more. A `Request` checks what it holds.
    """
    return parse_inputs([f"lora=@{_file('lora', value)}"]) if value else {}


def painted(value: Mapping[str, Any] | None) -> dict[str, Image.Image]:
    """Return the arguments `image` and `mask` for what the editor holds: {"background": path, "layers": paths}.

    What was painted over becomes white, and the rest black. Raises `InputError`.
    """
    if not value or not value["background"]:
        raise MissingError("image", "no_image")
    image = images.read_input("image", value["background"])
    mask = Image.new("L", image.size)
    for layer in value["layers"]:
        with Image.open(layer) as strokes:
            if strokes.width * strokes.height > images.MAX_INPUT_PIXELS:
                raise MissingError("mask", "no_mask")  # no editor sends that
            opacity = strokes.convert("RGBA").getchannel("A").resize(image.size)
        mask = ImageChops.lighter(mask, opacity.point(lambda alpha: 255 if alpha >= PAINTED else 0))
    if mask.getbbox() is None:
        raise MissingError("mask", "no_mask")
    return {"image": image, "mask": mask}


def _file(name: str, value: Mapping[str, Any]) -> Path:
    """Return the path of an uploaded file. gradio removes old ones, also when a visitor still sees their names."""
    file = Path(value["path"])
    if not file.is_file():
        raise MissingError(name, "gone")
    return file
