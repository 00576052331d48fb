"""Parse a request's inputs from the command line: `name=value` strings. A file is given by its name, image=@in.png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from jsd.errors import InputError, shown
from jsd.language import Text
from jsd.request import MAX_LORA, Request

NAMES = [field.name for field in fields(Request)]
OTHER_NAMES = {"steps": "num_inference_steps"}
FILES = {"image": "in.png", "mask": "mask.png", "lora": "my-cat.safetensors"}  # with an example of each
TEXTS = ("prompt", "negative_prompt")


def integer(text: str) -> int:
    """Return the integer that a text names. 1.0 is one, as in JSON Schema, 1.5 is not: it raises `ValueError`."""
    try:
        return int(text)
    except ValueError:
        if float(text).is_integer():
            return int(float(text))
        raise


NUMBERS = {
    "width": integer,
    "height": integer,
    "num_outputs": integer,
    "num_inference_steps": integer,
    "guidance_scale": float,
    "seed": integer,
    "output_quality": integer,
    "prompt_strength": float,
    "lora_scale": float,
    "guidance_interval": lambda text: [float(number) for number in text.split(",")],
}


def parse_inputs(pairs: Sequence[str]) -> dict[str, object]:
    """Parse `name=value` strings into a dict of arguments for `Request`, and read files. Raises `InputError`.

    `name=null` is left out, as it means the default. In a prompt it is the word.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError("-i", "{} was given; name=value is wanted, e.g. -i seed=1", shown(pair))
        name = OTHER_NAMES.get(name, name)
        if name not in NAMES:
            raise InputError("-i", "there is no input called {}; the inputs are {}", shown(name), ", ".join(NAMES))
        if name in values:
            raise InputError(name, "given twice")
        if text == "null" and name not in TEXTS:
            continue
        if name in FILES:
            values[name] = _content(name, text)
        else:
            values[name] = _number(name, text) if name in NUMBERS else text
    return values


def _content(name: str, text: str) -> object:
    if not text.startswith("@"):
        raise InputError(name, "{} was given; @FILE is wanted, e.g. -i {}=@{}", shown(text), name, FILES[name])
    path = Path(text[1:])
    if path.is_dir():
        raise InputError(name, "{} is a folder; name a file", shown(str(path), 1000))
    if not path.is_file():
        raise InputError(name, "there is no file {}", shown(str(path), 1000))
    if name == "lora":
        with path.open("rb") as file:
            return file.read(MAX_LORA + 1)  # a `Request` refuses more than MAX_LORA
    from jsd import images

    try:
        return images.read_input(name, path)
    except InputError as error:
        raise InputError(name, "{}: {}", shown(str(path), 1000), error.message) from error


def _number(name: str, text: str) -> float:
    try:
        return NUMBERS[name](text)
    except ValueError:
        wanted = {integer: Text("an integer"), float: Text("a number")}
        wanted = wanted.get(NUMBERS[name], Text("two numbers, as in 0.2,0.8"))
        raise InputError(name, "{} was given; {} is wanted, or null for the default", shown(text), wanted) from None
