"""What may be asked and what comes back: `Request`, `Result`, every limit, every error.

A `Request` validates itself when it is made; `None` means "the model's own" until `Request.resolve` fills it in from
the `Defaults` a model folder carries. Nothing here imports a model library.
"""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

MAX_PROMPT = 2000  # characters
MIN_SIZE, MAX_SIZE = 64, 1024  # pixels a side
MAX_PIXELS = 1_048_576
MAX_STEPS = 500
MIN_GUIDANCE, MAX_GUIDANCE = 1.0, 20.0
MAX_OUTPUTS = 8
MAX_SEED = 2**63 - 1
PROMPT_STRENGTH = 0.8
ALWAYS = (0.0, 1.0)  # guidance at every noise level
OUTPUT_FORMATS = ("png", "jpg", "webp")
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

Progress = Callable[[int, int], None]  # (UNet calls done, UNet calls in all)

# Characters that leave no ink, by category and by name (Hangul fillers, the blank Braille cell): a prompt of these
# alone asks for nothing. Unassigned ones may be newer than this Python: an emoji of next year is no blank.
INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me")
BLANKS = "\u115f\u1160\u2800\u3164\uffa0"


class InputError(ValueError):
    """An input that can't be served: `name` is the input's; the message says what was given and what is allowed."""

    def __init__(self, name: str, message: str):
        super().__init__(f"{name}: {message}")
        self.name = name


class NSFWError(ValueError):
    """The safety checker flagged every image of a request."""


class NaNError(ValueError):
    """Latents or pixels became NaN or infinite: there is no picture to show."""


class SettingError(ValueError):
    """A setting in the environment that can't be used; the message names it."""


class WeightsError(ValueError):
    """A model folder is missing, incomplete, altered or does not fit together."""


class MemoryShortError(ValueError):
    """A request does not fit the memory, even by itself and one picture at a time."""


class EngineLostError(ValueError):
    """Nothing can be drawn any more by this process: the device is lost, or the engine's thread. Start it again."""


class QueueFullError(ValueError):
    """More requests are waiting than the engine holds."""


@dataclass(frozen=True)
class Defaults:
    """What suits one model: `width`, `height` in pixels, sampling settings, and `cell`, the pixels a latent covers."""

    width: int
    height: int
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    scheduler: str = "K_LMS"
    guidance_interval: tuple[float, float] = ALWAYS
    cell: int = 8


@dataclass(frozen=True)
class Request:
    """One request: text to image; with `image` image to image; with `mask` too, inpainting: white is repainted.

    Image i of `num_outputs` is drawn with `seed + i`. `image` and `mask` are pictures of any mode and size
    (`images.read_input` opens files), `prompt_strength` is how far to depart from `image`, from 0 (not at all) to 1.
    Guidance is applied at the noise levels of `guidance_interval` only, (0, 1) being from clean to all noise, in shares
    of the training timesteps (Kynkäänniemi et al. 2024, arXiv 2404.07724, sec. 3); elsewhere a step costs half.
    `None` means the model's own value, for the size that of `image` if there is one; a `seed` of `None` is drawn at
    random by `resolve`. Raises `InputError` when made with a value outside the limits above.
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
    guidance_interval: tuple[float, float] | None = None

    def __post_init__(self):
        _check_text("prompt", self.prompt)
        if all(c in BLANKS or unicodedata.category(c) in INVISIBLE for c in self.prompt):
            raise InputError("prompt", f"{shown(self.prompt)} is blank; say in words what the picture shows, e.g. 猫")
        _check_text("negative_prompt", self.negative_prompt)
        for name in ("width", "height"):
            _check_int(name, getattr(self, name), MIN_SIZE, MAX_SIZE, optional=True)
        if self.width and self.height:
            _check_pixels(self.width, self.height)
        _check_int("num_outputs", self.num_outputs, 1, MAX_OUTPUTS)
        _check_int("num_inference_steps", self.num_inference_steps, 1, MAX_STEPS, optional=True)
        _check_number("guidance_scale", self.guidance_scale, MIN_GUIDANCE, MAX_GUIDANCE)
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", _checked_interval(self.guidance_interval))
        if self.scheduler is not None:
            _check_choice("scheduler", self.scheduler, SCHEDULER_NAMES)
        # The last image's seed must be a seed too.
        _check_int("seed", self.seed, 0, MAX_SEED + 1 - self.num_outputs, optional=True)
        _check_choice("output_format", self.output_format, OUTPUT_FORMATS)
        _check_int("output_quality", self.output_quality, 1, 100)
        for name in ("image", "mask"):
            _check_picture(name, getattr(self, name))
        _check_number("prompt_strength", self.prompt_strength, 0, 1, optional=False)
        if self.image is None:
            if self.mask is not None:
                raise InputError("mask", "given without an image; it says where image is repainted, so give image too")
            if self.prompt_strength != PROMPT_STRENGTH:
                raise InputError(
                    "prompt_strength", "given without an image to depart from; give image too, or leave it out"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """A request from a mapping such as parsed JSON. Raises `InputError` for unknown keys, naming them."""
        if not isinstance(values, Mapping):
            raise InputError("input", f"a mapping of names to values is wanted, {shown(values)} was given")
        allowed = [f.name for f in fields(cls)]
        unknown = [key for key in values if key not in allowed]
        if unknown:
            names = ", ".join(shown(key) for key in unknown[:5])
            raise InputError("input", f"there is no input called {names}; the inputs are {', '.join(allowed)}")
        if "prompt" not in values:
            raise InputError("prompt", "missing; every request needs one")
        return cls(**values)

    @property
    def rows(self) -> int:
        """UNet rows a guided evaluation costs: one an image, two with guidance (a resolved request only)."""
        return self.num_outputs * (1 if self.guidance_scale == 1 else 2)

    def resolve(self, defaults: Defaults) -> Request:
        """This request with nothing left open: the model's own values where none were given, and a seed.

        A size left open is that of `image`, as near as the limits and the model's latent cell allow; of a side left
        open it is the one that keeps the proportions. Raises `InputError` if the size does not fit the model's latent
        cell or has too many pixels.
        """
        if self.image is not None:
            defaults = replace(defaults, **fitting_size(self.image.size, defaults.cell, self.width, self.height))
        open_values = {
            name: getattr(defaults, name)
            for name in ("width", "height", "num_inference_steps", "guidance_scale", "scheduler", "guidance_interval")
            if getattr(self, name) is None
        }
        if self.seed is None:
            open_values["seed"] = secrets.randbelow(MAX_SEED + 2 - self.num_outputs)
        request = replace(self, **open_values)
        for name in ("width", "height"):
            _check_cell(name, getattr(request, name), defaults.cell)
        return request


@dataclass(frozen=True)
class Result:
    """What a request became.

    `images` and `seeds` hold the images shown and the seed of each; `flagged` counts those the safety checker held
    back. `request` is the resolved one. `timings` are seconds under queue, text, denoise, decode, safety. `tokens` is
    the prompt's length in tokens as used, `truncated` the tokens dropped from prompt and negative prompt together.
    `batch_rows` is how many rows, its own and others', its UNet calls had on average, at most.
    """

    images: list[Image.Image]
    seeds: list[int]
    flagged: int
    request: Request
    model: str
    timings: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    truncated: int = 0
    batch_rows: float = 0.0


def fitting_size(size: tuple[int, int], cell: int, width: int | None, height: int | None) -> dict[str, int]:
    """`width` and `height`, the ones that are None as near to a picture's `size` as the limits allow, multiples of
    `cell`.
    """
    if width and height:
        return {"width": width, "height": height}
    if width or height:
        scale = (width or 0) / size[0] or (height or 0) / size[1]
    else:
        scale = min(1.0, MAX_SIZE / max(size), math.sqrt(MAX_PIXELS / (size[0] * size[1])))
    least, most = -(-MIN_SIZE // cell) * cell, MAX_SIZE // cell * cell
    near = [min(max(round(side * scale) // cell * cell, least), most) for side in size]
    return {"width": width or near[0], "height": height or near[1]}


def shown(value: object, limit: int = 60) -> str:
    """`value` for an error message: `repr` (control characters escaped), shortened to about `limit` characters."""
    try:
        text = repr(value[:limit]) + "..." if isinstance(value, str) and len(value) > limit else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list: still worth a message
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InputError(name, f"a string is wanted, {shown(value)} was given")
    least = 1 if name == "prompt" else 0
    if not least <= len(value) <= MAX_PROMPT:
        raise InputError(name, f"{len(value)} characters were given; {least} to {MAX_PROMPT} are allowed")
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise InputError(name, f"{shown(value)} holds a NUL or half a surrogate pair; only Unicode text is allowed")


def _check_int(name: str, value: object, least: int, most: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(name, f"an integer is wanted, {shown(value)} was given; {least} to {most} are allowed")
    if not least <= value <= most:
        raise InputError(name, f"{shown(value)} was given; {least} to {most} are allowed")


def _check_picture(name: str, value: object) -> None:
    # Known by what it can do: this module imports no picture library.
    if value is None:
        return
    if not (hasattr(value, "size") and hasattr(value, "convert")):
        raise InputError(name, f"a picture is wanted, {shown(value)} was given; open files with jsd.images.read_input")
    if 0 in value.size:
        raise InputError(name, f"a picture of {value.size[0]} x {value.size[1]} pixels was given; it needs some")


def _check_number(name: str, value: object, least: float, most: float, optional: bool = True) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(name, f"a number is wanted, {shown(value)} was given; {least:g} to {most:g} are allowed")
    if (isinstance(value, float) and not math.isfinite(value)) or not least <= value <= most:
        raise InputError(name, f"{shown(value)} was given; {least:g} to {most:g} are allowed")


def _checked_interval(value: object) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError("guidance_interval", f"{shown(value)} was given; two numbers are wanted, e.g. 0.2, 0.8")
    for bound in value:
        _check_number("guidance_interval", bound, 0, 1, optional=False)
    if value[0] > value[1]:
        raise InputError("guidance_interval", f"{shown(value)} was given; the lower number comes first")
    return (float(value[0]), float(value[1]))


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise InputError(name, f"{shown(value)} was given; allowed are {', '.join(allowed)}")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError("width", f"{width} x {height} are {width * height} pixels; at most {MAX_PIXELS} are allowed")


def _check_cell(name: str, value: int, cell: int) -> None:
    if value % cell:
        below, above = value // cell * cell, (value // cell + 1) * cell
        near = " or ".join(str(v) for v in (below, above) if MIN_SIZE <= v <= MAX_SIZE)
        raise InputError(name, f"{value} was given; this model draws multiples of {cell}, so take {near}")
