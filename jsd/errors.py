"""The errors that this project raises for its users. All derive from `JSDError`.

The command line prints only the message of these, of OSError and of failed subprocesses. Others show a traceback.
"""

from __future__ import annotations

from jsd.language import Text


class JSDError(ValueError):
    """The base class of this project's errors. The message says what is wrong and, where possible, what to do.

    It is made from a template and its values, as a `Text` is, so that it can be said in any language.
    """

    def __init__(self, template: str, /, *values: object):
        super().__init__(Text(template, *values))


class InputError(JSDError):
    """An input of a request, or an option of a command, has a wrong value. `name` is the input's name, and `message`
    the sentence without it.
    """

    def __init__(self, name: str, template: str, /, *values: object):
        self.name, self.message = name, Text(template, *values)
        super().__init__("{}: {}", name, self.message)

    def __reduce__(self) -> tuple:  # so that it can come out of another process
        return InputError, (self.name, self.message)


class PictureError(JSDError):
    """A file is not a picture that can be read. The message gives the reason in a few words."""


class SettingError(JSDError):
    """An environment variable (JSD_...) has a wrong value, or one that can't be used on this machine."""


class MissingPackageError(JSDError):
    """A Python package or system library that a feature needs is not installed."""


class WeightsError(JSDError):
    """A model folder or LoRA file is missing, incomplete or altered, or the parts of a model do not belong together."""


class HubError(WeightsError):
    """A model can't be fetched from the Hugging Face hub, or not into this folder."""


class NSFWError(JSDError):
    """The safety checker flagged every picture of a request, so there is none to show."""


class NaNError(JSDError):
    """Latents, pixels or embeddings became NaN or infinite, so there is no picture to show."""


class MemoryShortError(JSDError):
    """A request does not fit into memory, even alone and one picture at a time."""


class QueueFullError(JSDError):
    """The engine refuses a request, because as many as its queue holds are waiting already."""


class EngineLostError(JSDError):
    """This process can't draw any more: its GPU or the engine's thread failed. It has to be started again."""


class SampleError(JSDError):
    """A training sample can't be used. The message gives the reason in a few words."""


class TrainingError(JSDError):
    """A training run can't start or go on as it is, because of its data, its settings or its folder."""


def shown(value: object, limit: int = 60) -> str:
    """Return `repr(value)`, shortened for an error message: a string to `limit` characters, others to twice as many."""
    try:
        text = repr(value[:limit]) + "..." if isinstance(value, str) and len(value) > limit else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a very deep list
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."
