"""How much a visitor of the page may ask for: the environment variables JSD_DEMO_*, for a page that strangers reach."""

from __future__ import annotations

import os
from dataclasses import dataclass

from jsd.errors import InputError, SettingError, shown
from jsd.request import MAX_LORA, MAX_OUTPUTS, MAX_SIZE, MAX_STEPS, MIN_SIZE, Request

MAX_PICTURE = 64 << 20  # bytes of a picture's file; a photo that was painted over comes as a png file


@dataclass(frozen=True)
class Limits:
    """`size`: a picture has at most size x size pixels, also when it is oblong. `outputs` and `steps` are per request.
    `queue` is the number of requests of all visitors that may be drawn or wait at the same time. `lora` says whether
    visitors may draw with adapters of their own.
    """

    size: int = MAX_SIZE
    outputs: int = MAX_OUTPUTS
    steps: int = MAX_STEPS
    queue: int = 64
    lora: bool = True

    @property
    def upload(self) -> int:
        """The most bytes of an uploaded file."""
        return MAX_LORA if self.lora else MAX_PICTURE

    @classmethod
    def from_environment(cls) -> Limits:
        """Read the limits from the environment. Raises `SettingError`, which names the variable."""
        return cls(
            size=_number("JSD_DEMO_MAX_SIZE", cls.size, MIN_SIZE, MAX_SIZE),
            outputs=_number("JSD_DEMO_MAX_OUTPUTS", cls.outputs, 1, MAX_OUTPUTS),
            steps=_number("JSD_DEMO_MAX_STEPS", cls.steps, 1, MAX_STEPS),
            queue=_number("JSD_DEMO_MAX_QUEUE", cls.queue, 1, 10_000),
            lora=_switch("JSD_DEMO_LORA", cls.lora),
        )

    def check(self, request: Request) -> None:
        """Check a resolved request. Raises `InputError`."""
        if request.width * request.height > self.size**2:
            size, most = f"{request.width} x {request.height}", f"{self.size} x {self.size}"
            raise InputError("width", "{} pixels are more than this page draws, {}; take a smaller size", size, most)
        for name, value, most in (
            ("num_outputs", request.num_outputs, self.outputs),
            ("num_inference_steps", request.num_inference_steps, self.steps),
        ):
            if value > most:
                raise InputError(name, "{} was given; this page allows {} at most", value, most)


def _number(name: str, default: int, least: int, most: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and least <= int(text) <= most):
        raise SettingError("{}: {} was given; a number from {} to {} is wanted", name, shown(text), least, most)
    return int(text)


def _switch(name: str, default: bool) -> bool:
    text = os.environ.get(name) or ("on" if default else "off")
    if text not in ("on", "off"):
        raise SettingError("{}: {} was given; on or off is wanted", name, shown(text))
    return text == "on"
