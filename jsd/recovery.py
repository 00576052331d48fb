"""After an error on a device: try with less, let go of the memory, or know that nothing can be drawn any more."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from jsd.request import MemoryShortError

T = TypeVar("T")


def in_halves(call: Callable[[int], T], count: int) -> tuple[T, int]:
    """`call(count)`; while that does not fit the memory, again with half as many, down to one. Its result, and the
    count that did fit.

    Raises `MemoryShortError` when one alone does not fit.
    """
    while True:
        try:
            return call(count), count
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            # On a CPU torch has no error of its own for it, and CUDA's libraries have others.
            known = isinstance(error, torch.OutOfMemoryError | MemoryError)
            known = known or any(words in str(error) for words in ("allocate memory", "out of memory"))
            if not known:
                raise
            if count == 1:
                raise MemoryShortError(
                    "out of memory even for one picture at a time; take a smaller width and height, or fewer users"
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count //= 2


def released(error: Exception) -> Exception:
    """The error without the tensors that the frames of its traceback hold: others need the memory."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
    return error


def is_lost(error: Exception) -> bool:
    """Whether no later call can succeed either: CUDA answers each with the error that broke its context."""
    return isinstance(error, torch.AcceleratorError)
