"""A picture's pixels as people see them: upright, in the colours of sRGB, on a background where it is transparent."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image, ImageCms

from jsd.errors import InputError, shown

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # the colour space of an ICC profile: its mode in Pillow
COLOURS = Image.fromarray(np.moveaxis(np.indices((16, 16, 16), np.uint8) * 17, 0, -1).reshape(64, 64, 3).copy())
TURNS = {  # what turns a picture upright, by its EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Convert a Pillow picture of any mode to RGB as people see it. `background` shows where it is transparent.

    It is turned by its EXIF orientation, and its ICC profile is applied. Either is ignored if it is broken. 16 bits per
    pixel become 8. A result has no `info`, so it is never converted twice. Raises what Pillow raises for broken files.
    """
    image.load()
    if image.mode == "RGB" and not image.info:
        return image
    turn, profile, alpha = _turn(image), image.info.get("icc_profile"), None
    if image.mode.startswith("I"):  # 16 bits per pixel: convert() would clip them at 255
        values, hidden = np.asarray(image), image.info.get("transparency")
        few = image.mode == "I" and values.max() <= 255  # a picture of 8 bits, which a program converted
        colours = Image.fromarray((values if few else values // 257).clip(0, 255).astype(np.uint8))
        if hidden is not None:
            alpha = Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8))
    else:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow converts it to nothing else
        mode = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
        colours = image if image.mode == mode else image.convert(mode)
    colours = _to_srgb(colours, profile)
    if alpha is not None:
        colours, drawn = Image.new("RGB", colours.size, background), colours
        colours.paste(drawn, mask=alpha)
    if turn is not None:
        colours = colours.transpose(turn)
    colours = colours.copy() if colours is image else colours
    colours.info = {}
    return colours


def as_input(name: str, image: Image.Image) -> Image.Image:
    """Convert the Pillow picture of an input: "mask" or "mask_image" to greyscale, any other to RGB.

    Transparent parts of a mask count as black, because nobody painted them white. Raises `InputError` if the picture
    can't be decoded.
    """
    is_mask = name.startswith("mask")
    try:
        image.load()
        if is_mask and image.mode == "L" and not image.info:
            return image
        return to_rgb(image, "black").convert("L") if is_mask else to_rgb(image)
    except Exception as error:
        raise InputError(name, "this picture can't be decoded: {}; open another file", shown(str(error))) from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # noqa: BLE001  broken EXIF data raise many classes of errors
        return None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a picture of mode RGB, L or CMYK to RGB, by its ICC profile if that is sound and of the same kind."""
    plain = image if image.mode == "RGB" else image.convert("RGB")
    if not profile:
        return plain
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if SPACES.get(source.profile.xcolor_space) != image.mode:
            return plain
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        sample = COLOURS.convert(image.mode)
        change = np.subtract(transform.apply(sample), sample.convert("RGB"), dtype=int)
        # Most profiles say sRGB. Rounding must not change these pictures.
        return transform.apply(image) if abs(change).max() > 1 else plain
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return plain
