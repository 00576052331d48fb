"""Progress of a prediction, in its log."""

from __future__ import annotations

import asyncio
import contextvars
import time

from tqdm import tqdm

from jsd.request import Progress


def progress_line() -> Progress:
    """Return a callback that prints progress into the prediction's log in tqdm's format, for Replicate's clients.

    The engine's thread calls it. It prints in this prediction's context, by which Cog tells whose log a line is for.
    """
    loop, context, began = asyncio.get_running_loop(), contextvars.copy_context(), time.perf_counter()

    def progress(done: int, total: int) -> None:
        loop.call_soon_threadsafe(print, tqdm.format_meter(done, total, time.perf_counter() - began), context=context)

    return progress
