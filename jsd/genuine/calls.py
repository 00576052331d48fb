"""What a call of a pipeline takes: pictures of any kind, at their own size, given by name, by position or in lists."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jsd.errors import InputError
from jsd.pixels import as_input

PICTURES = ("image", "mask_image", "ip_adapter_image")


class View:
    """An object as it is, but for some attributes that have other values here. What is set on it is set on the object.

    The object itself is not changed, so other threads may use it.
    """

    def __init__(self, seen: Any, **others: Any):
        vars(self).update(others, _seen=seen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._seen, name, value)

    @property
    def __class__(self) -> type:
        """The class of the object, so that `isinstance` tells what it is."""
        return type(self._seen)

    def __getitem__(self, key: Any) -> Any:
        return self._seen[key]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object."""
        return self._seen(*args, **kwargs)


def inputs_of(call: Callable, args: Sequence[Any], kwargs: Mapping[str, Any], cell: int) -> dict[str, Any]:
    """Return the arguments for `call`, a diffusers pipeline's `__call__`, by name. `init_image` is the `image` of 2022.

    PIL pictures become RGB, and masks greyscale: diffusers takes four channels for latents. A call with `width` and
    `height` gets the size of the first PIL `image`, rounded down to a multiple of `cell`, because diffusers would
    squeeze it into the model's own size. Raises `InputError` if a picture can't be decoded, or if `strength` leaves no
    step.
    """
    kwargs = {"image" if name == "init_image" else name: value for name, value in kwargs.items()}
    signature = inspect.signature(call)
    inputs = signature.bind(None, *args, **kwargs).arguments
    inputs |= inputs.pop("kwargs", {})
    del inputs["self"]
    inputs |= {name: _converted(name, inputs[name]) for name in PICTURES if name in inputs}
    first = inputs.get("image")
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, Image.Image) and "width" in signature.parameters:
        for name, side in zip(("width", "height"), first.size, strict=True):
            inputs[name] = inputs.get(name) or side // cell * cell
    if "strength" in signature.parameters:
        defaults = {name: signature.parameters[name].default for name in ("strength", "num_inference_steps")}
        _check_strength(defaults | inputs)
    return inputs


def _converted(name: str, given: Any) -> Any:
    if isinstance(given, Image.Image):
        return as_input(name, given)
    if isinstance(given, list | tuple):
        return [_converted(name, one) for one in given]
    if isinstance(given, np.ndarray) and name == "image" and given.shape[-1] == 4:  # RGBA, from 0 to 1
        return given[..., :3] * given[..., 3:] + 1 - given[..., 3:]
    return given


def _check_strength(inputs: Mapping[str, Any]) -> None:
    chosen = [inputs[name] for name in ("timesteps", "sigmas") if inputs.get(name) is not None]
    strength, steps = inputs["strength"], len(chosen[0]) if chosen else inputs["num_inference_steps"]
    if strength >= 0 and int(steps * strength) < 1:  # diffusers would fail without saying why
        if not steps:
            raise InputError("strength", "{} of {} steps leaves none to draw; take a step or more", strength, steps)
        raise InputError(
            "strength",
            "{} of {} steps leaves none to draw; take a strength of {:g} or more, or more steps",
            strength,
            steps,
            math.ceil(1000 / steps) / 1000,
        )
