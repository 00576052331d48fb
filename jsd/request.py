"""A request for pictures, checked against every limit (`Request`), and a model's default values for it (`Defaults`).

A `Request` checks its values when it is made. `None` leaves a value to `Request.resolve`: it becomes the model's
default, a size in the proportions of the given image, or a random seed. This module imports no model library.
"""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jsd.checks import check_choice, check_lora, check_number, check_text, integer, interval
from jsd.errors import InputError, shown
from jsd.language import Text

if TYPE_CHECKING:
    from PIL import Image

    from jsd.adapters import Adapter

MAX_PROMPT = 2000  # characters
MIN_SIZE, MAX_SIZE = 64, 1024  # pixels a side
MAX_STEPS = 500
MIN_GUIDANCE, MAX_GUIDANCE = 1.0, 20.0
MAX_OUTPUTS = 8
MAX_SEED = 2**53 - 1  # JavaScript, jq and spreadsheets round larger integers
SEED_HINT = Text(", because many programs round larger ones; leave seed out for a random one")
PROMPT_STRENGTH = 0.8
MAX_LORA = 256 << 20  # bytes of an adapter's file
MIN_LORA_SCALE, MAX_LORA_SCALE = -2.0, 2.0
ALWAYS = (0.0, 1.0)  # the guidance_interval of every noise level
OUTPUT_FORMATS = ("png", "jpg", "webp")
FORMAT_NAMES = {"jpeg": "jpg"}  # other names of these
SCHEDULER_NAMES = (
    "DDIM",
    "K_LMS",
    "PNDM",
    "K_EULER",
    "K_EULER_ANCESTRAL",
    "K_HEUN",
    "DPM_SOLVER_PP_2M_KARRAS",
    "UNI_PC",
    "LCM",
)

Progress = Callable[[int, int], None]  # called with (UNet calls done, UNet calls in total)

# A prompt that consists of invisible characters asks for nothing. BLANKS are Hangul fillers, the blank Braille cell,
# and the placeholder of a picture that was copied with its text. Unassigned characters count as visible, because they
# may be emoji that this Python does not know yet.
INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me")
BLANKS = "\u115f\u1160\u2800\u3164\uffa0\ufffc"


@dataclass(frozen=True)
class Defaults:
    """A model's own values for what a `Request` leaves open. `width` and `height` are in pixels. `cell` is the VAE's
    downsampling factor: the side in pixels of the square that one latent position covers.
    """

    width: int
    height: int
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    scheduler: str = "K_LMS"
    guidance_interval: tuple[float, float] = ALWAYS
    cell: int = 8
    lora: Adapter | None = None
    lora_scale: float = 1.0


@dataclass(frozen=True)
class Request:
    """What is asked for. A prompt alone means text to image, with an `image` image to image, with a `mask` inpainting.

    Picture i of `num_outputs` is drawn with `seed + i`. `image` and `mask` are Pillow pictures of any mode and size;
    `images.read_input` reads them from files. They become RGB and greyscale, as `pixels.as_input` converts them. White
    areas of the mask are repainted, black ones kept; in grey areas the two are mixed. `prompt_strength` says how far
    the picture departs from `image`: it is the noise level where the denoising begins. A noise level is a timestep as a
    share of the training timesteps, from 0 (clean, so nothing is changed) to 1 (pure noise, so everything is).
    `guidance_interval` limits guidance to a range of noise levels. Outside the interval a step has no guidance, so it
    costs half (Kynkäänniemi et al. 2024, arXiv 2404.07724, sec. 3).
    `lora` is an adapter for the model: a .safetensors file of at most MAX_LORA bytes, as bytes. `lora_scale` says how
    strongly it changes the model.
    `None` means the model's own value. For `width` and `height` with an `image` it means about the model's own area, in
    the proportions of `image`. For `seed` it means a random number, which `resolve` draws. An integer may be given as a
    float, 1.0. The output_format "jpeg" becomes "jpg". Raises `InputError` for a value outside its limits, and for a
    picture that can't be decoded.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    num_outputs: int = 1
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    seed: int | None = None
    output_format: str = "png"
    output_quality: int = 90
    image: Image.Image | None = None
    mask: Image.Image | None = None
    prompt_strength: float = PROMPT_STRENGTH
    lora: bytes | Adapter | None = field(default=None, repr=False)
    lora_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = None

    def __post_init__(self):
        check_text("prompt", self.prompt, 1, MAX_PROMPT)
        if all(c in BLANKS or unicodedata.category(c) in INVISIBLE for c in self.prompt):
            raise InputError("prompt", "{} is blank; say in words what the picture shows, e.g. 猫", shown(self.prompt))
        check_text("negative_prompt", self.negative_prompt, 0, MAX_PROMPT)
        take = partial(object.__setattr__, self)  # this class is frozen
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                take(name, integer(name, getattr(self, name), MIN_SIZE, MAX_SIZE))
        take("num_outputs", integer("num_outputs", self.num_outputs, 1, MAX_OUTPUTS))
        if self.num_inference_steps is not None:
            take("num_inference_steps", integer("num_inference_steps", self.num_inference_steps, 1, MAX_STEPS))
        if self.guidance_scale is not None:
            check_number("guidance_scale", self.guidance_scale, MIN_GUIDANCE, MAX_GUIDANCE)
        if self.guidance_interval is not None:
            take("guidance_interval", interval("guidance_interval", self.guidance_interval))
        if self.scheduler is not None:
            check_choice("scheduler", self.scheduler, SCHEDULER_NAMES)
        if self.seed is not None:
            # The seed of the last picture must be allowed as well.
            take("seed", integer("seed", self.seed, 0, MAX_SEED + 1 - self.num_outputs, SEED_HINT))
        if isinstance(self.output_format, str):
            take("output_format", self.output_format.lower())
        check_choice("output_format", self.output_format, (*OUTPUT_FORMATS, *FORMAT_NAMES))
        take("output_format", FORMAT_NAMES.get(self.output_format, self.output_format))
        take("output_quality", integer("output_quality", self.output_quality, 1, 100))
        for name in ("image", "mask"):
            take(name, _checked_picture(name, getattr(self, name)))
        check_number("prompt_strength", self.prompt_strength, 0, 1)
        if self.image is None:
            if self.mask is not None:
                raise InputError("mask", "given without an image; it says where image is repainted, so give image too")
            if self.prompt_strength != PROMPT_STRENGTH:
                raise InputError(
                    "prompt_strength", "given without an image to depart from; give image too, or leave it out"
                )
        check_lora("lora", self.lora, MAX_LORA)
        check_number("lora_scale", self.lora_scale, MIN_LORA_SCALE, MAX_LORA_SCALE)
        if self.lora is None and self.lora_scale != 1:
            raise InputError("lora_scale", "given without lora, the adapter that it is for; give lora too")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """Make a request from a mapping, e.g. from parsed JSON. `None` means the default, for every input but `prompt`.

        Raises `InputError`, which names unknown keys.
        """
        if not isinstance(values, Mapping):
            raise InputError("input", "a mapping of names to values is wanted, {} was given", shown(values))
        allowed = [f.name for f in fields(cls)]
        unknown = [key for key in values if key not in allowed]
        if unknown:
            names = ", ".join(shown(key) for key in unknown[:5])
            raise InputError("input", "there is no input called {}; the inputs are {}", names, ", ".join(allowed))
        given = {name: value for name, value in values.items() if value is not None}
        if "prompt" not in given:
            raise InputError("prompt", "missing; every request needs one")
        return cls(**given)

    @property
    def rows(self) -> int:
        """The most samples in a UNet call: two per picture, or one if guidance_scale is 1. Needs a resolved request."""
        return self.num_outputs * (1 if self.guidance_scale == 1 else 2)

    def resolve(self, defaults: Defaults) -> Request:
        """Return a copy in which each setting that was `None` has the model's own value, and a missing seed is random.

        With an `image`, a missing size follows from its proportions (`size_like`). Raises `InputError` if the size is
        no multiple of the latent cell or has too many pixels.
        """
        if self.image is not None:
            defaults = replace(defaults, **size_like(self.image.size, defaults, self.width, self.height))
        open_values = {
            name: getattr(defaults, name)
            for name in ("width", "height", "num_inference_steps", "guidance_scale", "scheduler", "guidance_interval")
            if getattr(self, name) is None
        }
        if self.seed is None:
            open_values["seed"] = secrets.randbelow(MAX_SEED + 2 - self.num_outputs)
        if self.lora is None:
            open_values |= {"lora": defaults.lora, "lora_scale": defaults.lora_scale}
        request = replace(self, **open_values)
        for name in ("width", "height"):
            _check_cell(name, getattr(request, name), defaults.cell)
        return request


def size_like(size: tuple[int, int], defaults: Defaults, width: int | None, height: int | None) -> dict[str, int]:
    """Return a dict of `width` and `height`, in pixels, for a request whose image has the `size` (width, height).

    A side that is None follows from the image's proportions. If both are, the area is about the model's own, because a
    model draws what it has learnt at other sizes twice or in parts. They are multiples of the latent cell, and within
    the limits.
    """
    if width or height:
        scale = (width or 0) / size[0] or (height or 0) / size[1]
    else:
        scale = math.sqrt(defaults.width * defaults.height / (size[0] * size[1]))
    cell = defaults.cell
    least, most = -(-MIN_SIZE // cell), MAX_SIZE // cell
    near = [min(max(round(side * scale / cell), least), most) * cell for side in size]
    return {"width": width or near[0], "height": height or near[1]}


def _checked_picture(name: str, value: Any) -> Image.Image | None:
    # Checks for two attributes instead of the class, because Pillow is imported only where there is a picture.
    if value is None:
        return None
    if not (hasattr(value, "size") and hasattr(value, "convert")):
        raise InputError(name, "a picture is wanted, {} was given; open files with jsd.images.read_input", shown(value))
    if 0 in value.size:
        raise InputError(name, "a picture of {} x {} pixels was given; 1 x 1 at least", value.size[0], value.size[1])
    from jsd.pixels import as_input

    return as_input(name, value)


def _check_cell(name: str, value: int, cell: int) -> None:
    if value % cell:
        below, above = value // cell * cell, (value // cell + 1) * cell
        near = [v for v in (below, above) if MIN_SIZE <= v <= MAX_SIZE]
        near = Text("{} or {}", *near) if len(near) > 1 else Text("{}", *near)
        raise InputError(name, "{} was given; this model draws multiples of {}, so take {}", value, cell, near)
