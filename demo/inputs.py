"""From what the fields of a tab hold to the arguments of a `Request`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageChops

from jsd import images
from jsd.errors import InputError
from jsd.inputs import parse_inputs

PAINTED = 32  # the least opacity (0-255) of a pixel that counts as painted over


class MissingError(InputError):
    """A field was left empty that a tab needs."""


def arguments(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Request` for the fields other than pictures. What has its default value is left out.

    The seed is text, and "" means a random one. Raises `InputError`.
    """
    values = {name: value for name, value in fields.items() if value is not None and value != defaults.get(name)}
    seed = str(values.pop("seed", "")).strip()
    return values | (parse_inputs([f"seed={seed}"]) if seed else {})


def uploaded(value: Mapping[str, Any] | None) -> dict[str, Image.Image]:
    """Return the argument `image` for an uploaded file, {"path": ...}. Raises `InputError`."""
    if not value:
        raise MissingError("image", "none was given; choose one first")
    return {"image": images.read_input("image", value["path"])}


def painted(value: Mapping[str, Any] | None) -> dict[str, Image.Image]:
    """Return the arguments `image` and `mask` for what the editor holds: {"background": path, "layers": paths}.

    What was painted over becomes white, and the rest black. Raises `InputError`.
    """
    if not value or not value["background"]:
        raise MissingError("image", "none was given; choose one first")
    image = images.read_input("image", value["background"])
    mask = Image.new("L", image.size)
    for layer in value["layers"]:
        with Image.open(layer) as strokes:
            opacity = strokes.convert("RGBA").getchannel("A").resize(image.size)
        mask = ImageChops.lighter(mask, opacity.point(lambda alpha: 255 if alpha >= PAINTED else 0))
    if mask.getbbox() is None:
        raise MissingError("mask", "nothing is painted over; paint where the picture is to change")
    return {"image": image, "mask": mask}
