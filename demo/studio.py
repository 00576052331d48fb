"""Draws for the visitors of the page, with one engine for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from demo.limits import Limits
from jsd.engine import Engine
from jsd.errors import QueueFullError, SettingError
from jsd.request import Request
from jsd.result import Result


@dataclass(frozen=True)
class Progress:
    """How far a drawing is: `done` of `total` UNet calls, 0 of 0 before the first. `left` is an estimate in seconds of
    the time until the last call, None before the second.
    """

    done: int = 0
    total: int = 0
    left: float | None = None


@dataclass(eq=False)
class Visit:
    """One drawing of a visitor. `future` is the engine's, None until the request has been read."""

    visitor: str
    future: Future[Result] | None = None
    cancelled: bool = False
    steps: list[tuple[int, int, float]] = field(default_factory=list)  # the first and the last: done, total, when

    def cancel(self) -> None:
        """End the drawing. The engine frees its rows before the next step."""
        self.cancelled = True
        if self.future is not None:
            self.future.cancel()

    def progress(self) -> Progress:
        """Return how far the engine is."""
        if not self.steps:
            return Progress()
        (first, _, began), (done, total, now) = self.steps[0], self.steps[-1]
        left = (now - began) / (done - first) * (total - done) if done > first else None
        return Progress(done, total, left)


class Studio:
    """Draws what visitors ask for within `limits`. All methods are called on the page's event loop."""

    def __init__(self, engine: Engine, limits: Limits):
        """Raises `SettingError` if the limits do not allow a picture of the model's own size."""
        own = engine.components.defaults
        if own.width * own.height > limits.size**2:
            size = f"{own.width} x {own.height}"
            raise SettingError(
                "JSD_DEMO_MAX_SIZE: {} is too small; the model's own pictures have {}", limits.size, size
            )
        self.engine, self.limits = engine, limits
        self._visits: set[Visit] = set()
        self._readers = ThreadPoolExecutor(4, "jsd-read")  # large pictures and adapters take memory

    async def draw(self, visitor: str, make_request: Callable[[], Request]) -> AsyncIterator[Progress | Result]:
        """Yield `Progress` at every step, and in the end the `Result`.

        `make_request` is called on another thread, since it may read large files. Raises what it raises, the errors
        of `Engine.submit` and of its future, `QueueFullError`, and `CancelledError` after `cancel(visitor)`. If the
        generator is closed before its end, because the visitor has left, the drawing is cancelled.
        """
        if len(self._visits) >= self.limits.queue:
            raise QueueFullError("{} requests are drawn or wait already; try again later", len(self._visits))
        visit, changed, loop = Visit(visitor), asyncio.Event(), asyncio.get_running_loop()

        def wake(*_: object) -> None:
            loop.call_soon_threadsafe(changed.set)

        def step(done: int, total: int) -> None:
            visit.steps[1:] = [(done, total, time.monotonic())]
            wake()

        def resolved() -> Request:
            request = self.engine.resolve(make_request())
            self.limits.check(request)
            return request

        self._visits.add(visit)
        try:
            yield visit.progress()
            request = await loop.run_in_executor(self._readers, resolved)
            if visit.cancelled:
                raise CancelledError
            visit.future = self.engine.submit(request, step)
            visit.future.add_done_callback(wake)
            while not visit.future.done():
                await changed.wait()
                changed.clear()
                yield visit.progress()
            yield visit.future.result()
        finally:
            visit.cancel()
            self._visits.discard(visit)

    def cancel(self, visitor: str) -> None:
        """Cancel all that is being drawn for a visitor."""
        for visit in self._visits:
            if visit.visitor == visitor:
                visit.cancel()
