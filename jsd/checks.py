"""Checks of single values. Each raises `InputError`, which names the input, the value given, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from jsd.errors import InputError, shown

MAX_HEADER = 16 << 20  # bytes: the header of a safetensors file is parsed before anything can be refused


def check_text(name: str, value: object, least: int, most: int) -> None:
    """Check that a value is Unicode text of `least` to `most` characters."""
    if not isinstance(value, str):
        raise InputError(name, "a string is wanted, {} was given", shown(value))
    if not least <= len(value) <= most:
        raise InputError(name, "{} characters were given; {} to {} are allowed", len(value), least, most)
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise InputError(name, "{} holds a NUL or half a surrogate pair; only Unicode text is allowed", shown(value))


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Check that a value is a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(name, "a number is wanted, {} was given; {:g} to {:g} are allowed", shown(value), least, most)
    if not least <= value <= most:  # NaN is in no range
        raise InputError(name, "{} was given; {:g} to {:g} are allowed", shown(value), least, most)


def integer(name: str, value: object, least: int, most: int, hint: str = "") -> int:
    """Return a value as an int from `least` to `most`. 1.0 is one, as in JSON Schema, and so are numpy's integers."""
    if isinstance(value, bool) or not isinstance(value, Real) or value % 1:  # NaN and infinity have a remainder
        raise InputError(
            name, "an integer is wanted, {} was given; {} to {} are allowed{}", shown(value), least, most, hint
        )
    if not least <= value <= most:
        raise InputError(name, "{} was given; {} to {} are allowed{}", shown(value), least, most, hint)
    return int(value)


def interval(name: str, value: object) -> tuple[float, float]:
    """Return a list or tuple of two numbers from 0 to 1, the lower first, as a tuple of floats."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(name, "{} was given; two numbers are wanted, e.g. 0.2, 0.8", shown(value))
    for bound in value:
        check_number(name, bound, 0, 1)
    if value[0] > value[1]:
        raise InputError(name, "{} was given; the lower number comes first", shown(value))
    return (float(value[0]), float(value[1]))


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Check that a value is one of the strings that are allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(name, "{} was given; allowed are {}", shown(value), ", ".join(allowed))


def check_lora(name: str, value: object, most: int) -> None:
    """Check that a value is None, an adapter that was read, or at most `most` bytes that begin as safetensors do."""
    if value is None or hasattr(value, "sha256"):
        return
    if not isinstance(value, bytes):
        raise InputError(name, "{} was given; the bytes of a .safetensors file are wanted", shown(value))
    if len(value) > most:
        raise InputError(name, "more than {} MB were given, the most that an adapter may have", most >> 20)
    if value[8:9] != b"{" or int.from_bytes(value[:8], "little") > min(len(value) - 8, MAX_HEADER):
        raise InputError(
            name,
            "no .safetensors file, or one that is cut off or has a header of more than {} MB; other formats are not "
            "read",
            MAX_HEADER >> 20,
        )
