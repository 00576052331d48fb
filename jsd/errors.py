"""Every error that this project raises on purpose. All derive from `JSDError`, whose message is written for the user.

An error of another class is a defect, or comes from a library: the command line shows its traceback.
"""

from __future__ import annotations


class JSDError(ValueError):
    """The base class. Its message names the input or file, the value given, what is allowed and what to do."""


class InputError(JSDError):
    """An input of a request has a wrong value. `name` is the input's name."""

    def __init__(self, name: str, message: str):
        super().__init__(f"{name}: {message}")
        self.name = name


class PictureError(JSDError):
    """A file is not a picture that can be read. The message gives the reason in a few words."""


class SettingError(JSDError):
    """A setting in the environment has a wrong value, or can't be used on this machine."""


class MissingPackageError(JSDError):
    """A Python package or system library that a feature needs is not installed."""


class WeightsError(JSDError):
    """A model folder is missing, incomplete, altered, or its parts do not belong together."""


class HubError(WeightsError):
    """The Hugging Face hub did not deliver a model."""


class NSFWError(JSDError):
    """The safety checker flagged every picture of a request."""


class NaNError(JSDError):
    """Latents, pixels or embeddings became NaN or infinite, so there is no picture to show."""


class MemoryShortError(JSDError):
    """A request does not fit into memory, even alone and one picture at a time."""


class QueueFullError(JSDError):
    """The engine's queue is full."""


class EngineLostError(JSDError):
    """This process can't draw any more: its GPU or the engine's thread failed. It has to be started again."""


class SampleError(JSDError):
    """A training sample can't be used. The message gives the reason in a few words."""


class TrainingError(JSDError):
    """A training run, its data or its settings can't be used as they are."""


def shown(value: object, limit: int = 60) -> str:
    """`value` for an error message: its `repr`, in which control characters are escaped, cut after `limit` characters.

    A `repr` that is not a string's is cut after twice as many.
    """
    try:
        text = repr(value[:limit]) + "..." if isinstance(value, str) and len(value) > limit else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a very deep list
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."
