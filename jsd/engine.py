"""Many requests share one UNet: a thread takes compatible jobs through `jsd.sampling` together, step by step.

    with Engine(components) as engine:
        future = engine.submit(Request("猫の肖像画 油絵"))
        future.result().images[0].save("out.png")

The loop of the thread has three parts. `_admit` takes requests from the queue and prepares their jobs. `_tick` makes
one UNet call for all jobs of one latent shape. `_decode` decodes a few pictures of finished jobs, so that no job
waits for all the pictures of another one. The watermark needs no model and is written on a second thread.

`future.cancel()` works until the future has ended, and frees the job's rows before the next tick. The engine is a plain
thread because Cog may run `setup` and `predict` on different event loops.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from jsd import device, sampling
from jsd.device import in_halves, is_lost, released
from jsd.errors import EngineLostError, QueueFullError
from jsd.model import Components
from jsd.request import Progress, Request
from jsd.result import Result
from jsd.source import at_size
from jsd.ticket import Ticket


class Engine:
    """Serves requests in the order they came, as many at once as have `max_batch_rows` UNet rows together.

    A row is one of the model's own size. A larger picture counts as several rows. A picture that waits for decoding
    counts as one row. A request with more rows than `max_batch_rows` runs alone, in several UNet calls. At most
    `max_queue` requests wait. `decode_batch` pictures are decoded in one call. A call that does not fit into memory is
    tried again in halves.
    """

    def __init__(
        self,
        components: Components | Callable[[], Components],
        max_batch_rows: int | None = None,
        max_queue: int = 64,
        decode_batch: int | None = None,
        on_lost: Callable[[Exception], None] = lambda error: None,
    ):
        """`components` may be a function that loads them; its errors are raised here.

        By default `jsd.device` chooses `max_batch_rows` and `decode_batch`. `on_lost` is called on the engine's thread,
        as its last action, when nothing can be drawn any more.
        """
        if min(limit for limit in (max_batch_rows, max_queue, decode_batch) if limit is not None) < 1:
            raise ValueError(
                f"max_batch_rows {max_batch_rows}, max_queue {max_queue} and decode_batch {decode_batch} must be at "
                "least 1"
            )
        self.max_batch_rows = max_batch_rows
        self.max_queue = max_queue
        self.decode_batch = decode_batch
        self.lost: Exception | None = None  # the reason why nothing can be drawn any more
        self._on_lost = on_lost
        self._wake = threading.Condition()  # guards _waiting and _closed
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        # Only the engine's thread uses these three.
        self._active: list[Ticket] = []
        self._decoding: list[Ticket] = []
        self._rows_that_fit: dict[tuple[int, ...], int] = {}  # by latent shape, where memory was once short
        self._sealer = ThreadPoolExecutor(1, "jsd-seal")
        loaded: Future[Components] = Future()
        self._thread = threading.Thread(target=self._run, args=(components, loaded), name="jsd-engine", daemon=True)
        self._thread.start()
        self.components = loaded.result()

    def submit(self, request: Request, progress: Progress | None = None) -> Future[Result]:
        """Queue a request. `progress(done, total)` is called on the engine's thread after each of its UNet calls.

        Raises `InputError` if the model can't draw the request, `QueueFullError`, `EngineLostError`, and RuntimeError
        after `close`. The future raises the errors of `sampling.generate`, `MemoryShortError` and `EngineLostError`.
        """
        ticket = Ticket(self.resolve(request), progress)
        with self._wake:
            if self.lost:
                raise self._lost_error()
            if self._closed:
                raise RuntimeError("the engine is closed; make a new one")
            self._drop_cancelled_waiting()
            if len(self._waiting) >= self.max_queue:
                raise QueueFullError(f"{self.max_queue} requests are waiting already; try again later")
            self._waiting.append(ticket)
            self._wake.notify()
        return ticket.future

    def resolve(self, request: Request) -> Request:
        """The request with this model's own values, and with its pictures resized.

        `submit` does this too, on the caller's thread. A large picture takes long.
        """
        return at_size(request.resolve(self.components.defaults))

    @property
    def running(self) -> int:
        """How many requests have left the queue and have no result yet, but for those that wait for their watermark."""
        return len(self._active) + len(self._decoding)

    @property
    def undecoded(self) -> int:
        """How many pictures of finished jobs are not decoded yet."""
        return sum(ticket.job.undecoded for ticket in self._decoding)

    def close(self) -> None:
        """Cancel all requests that are not drawn yet, and wait for the current tick and the current watermark."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._sealer.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, components: Components | Callable[[], Components], loaded: Future[Components]) -> None:
        try:
            self.components = components() if callable(components) else components
            self.max_batch_rows = self.max_batch_rows or device.max_batch_rows(self.components)
            self.decode_batch = self.decode_batch or device.decode_batch(self.components)
        except BaseException as error:  # noqa: BLE001 - `__init__` raises it
            loaded.set_exception(error)
            return
        loaded.set_result(self.components)
        try:
            while not self.lost and self._admit():
                if self._active:
                    self._tick(self._next_group())
                if self._decoding:
                    self._decode()
        except Exception as error:  # noqa: BLE001 - a defect of the loop itself
            self.lost = released(error)
        with self._wake:
            self._closed = True
            left = [*self._active, *self._decoding, *self._waiting]
        for ticket in left:  # nobody may wait for ever
            if self.lost:
                ticket.settle(error=self._lost_error())
            else:
                ticket.future.cancel()
                ticket.settle()
        if self.lost:
            self._on_lost(self.lost)

    def _lost_error(self) -> EngineLostError:
        return EngineLostError(f"nothing can be drawn any more ({self.lost}); the server has to be started again")

    def _admit(self) -> bool:
        """Drop cancelled jobs and admit waiting requests. Sleeps while there are none. Returns False after `close`."""
        for ticket in [t for t in [*self._active, *self._decoding] if t.cancelled]:
            self._end(ticket)
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._active or self._decoding or self._waiting)
            if self._closed:
                return False
            self._drop_cancelled_waiting()
            rows = sum(self._rows(ticket.request) for ticket in self._active) + self.undecoded
            # In the order they came, so that small requests never overtake a large one for ever.
            while self._waiting and (not rows or rows + self._rows(self._waiting[0].request) <= self.max_batch_rows):
                ticket = self._waiting.popleft()
                self._active.append(ticket)
                rows += self._rows(ticket.request)
                if ticket.request.image is not None:  # a tick waits for the encoding of one image at most
                    break
        for ticket in [t for t in self._active if t.job is None]:
            queued = time.perf_counter() - ticket.submitted
            try:
                ticket.job, _ = in_halves(lambda _, ticket=ticket: sampling.prepare(self.components, ticket.request), 1)
                ticket.job.timings["queue"] = queued
                self._move_on(ticket)  # with prompt_strength 0 a job has no steps
            except Exception as error:  # noqa: BLE001 - it belongs to this request, and the thread must live
                self._end(ticket, error=error)
        return True

    def _rows(self, request: Request) -> int:
        """The UNet rows of a request, in rows of the model's own size."""
        return request.rows * self._scale(request)

    def _scale(self, request: Request) -> int:
        own = self.components.defaults
        return math.ceil(request.width * request.height / (own.width * own.height))

    def _next_group(self) -> list[Ticket]:
        """The job that has waited longest for a tick, and all others of its latent shape. They move to the end of the
        line.
        """
        shape = self._active[0].latent_shape
        group = [ticket for ticket in self._active if ticket.latent_shape == shape]
        self._active = [ticket for ticket in self._active if ticket not in group] + group
        return group

    def _tick(self, group: list[Ticket]) -> None:
        """One UNet call for a group. If it fails, each job is tried alone, so that only the guilty one fails."""
        failed = self._step(group)
        if failed is None:
            return
        if len(group) == 1:
            self._end(group[0], error=failed)
        else:
            for ticket in group:
                self._tick([ticket])

    def _step(self, group: list[Ticket]) -> Exception | None:
        """Advance the group's jobs by one step. Returns the error if the UNet call fails; then no job is changed."""
        jobs, shape = [ticket.job for ticket in group], group[0].latent_shape
        most = self._rows_that_fit.get(shape, max(1, self.max_batch_rows // self._scale(group[0].request)))
        most = min(most, sum(len(job.next_context) for job in jobs))
        try:
            predictions, rows = in_halves(lambda rows: sampling.predict(self.components, jobs, rows), most)
        except Exception as error:  # noqa: BLE001 - as above
            return released(error)
        if rows < most:
            self._rows_that_fit[shape] = rows
        for ticket, eps in zip(group, predictions, strict=True):
            try:
                sampling.advance(ticket.job, eps, rows)
                if ticket.progress:
                    ticket.progress(ticket.job.done, ticket.job.total)
                self._move_on(ticket)
            except Exception as error:  # noqa: BLE001 - as above
                self._end(ticket, error=error)
        return None

    def _move_on(self, ticket: Ticket) -> None:
        """Move a job that has done its steps from the ticks to the decoding. This frees its rows."""
        if ticket.job.finished:
            self._active.remove(ticket)
            self._decoding.append(ticket)

    def _decode(self) -> None:
        """Decode the next pictures of the job that finished first, and of others of its latent shape."""
        first = self._decoding[0]
        group = [ticket for ticket in self._decoding if ticket.latent_shape == first.latent_shape]
        failed = self._decode_pictures(group, self.decode_batch)
        if failed is not None and (self.decode_batch > 1 or group[1:]):
            failed = self._decode_pictures([first], 1)
        if failed is not None:
            self._end(first, error=failed)
        for ticket in [ticket for ticket in group if ticket in self._decoding and ticket.job.decoded]:
            try:
                in_halves(lambda _, ticket=ticket: sampling.judge(self.components, ticket.job), 1)
                self._sealer.submit(self._seal, ticket)
                self._decoding.remove(ticket)
            except Exception as error:  # noqa: BLE001 - as above
                self._end(ticket, error=error)

    def _decode_pictures(self, group: list[Ticket], most: int) -> Exception | None:
        """Decode up to `most` pictures in one call. Returns the error if that fails; then no job is changed."""
        jobs = [ticket.job for ticket in group]
        try:
            in_halves(lambda count: sampling.decode_next(self.components, jobs, count), most)
        except Exception as error:  # noqa: BLE001 - as above
            return released(error)
        return None

    def _seal(self, ticket: Ticket) -> None:
        """Write the watermark and deliver the result. Runs on the second thread."""
        try:
            ticket.settle(None if ticket.cancelled else sampling.seal(self.components, ticket.job))
        except Exception as error:  # noqa: BLE001 - as above
            ticket.settle(error=error)

    def _end(self, ticket: Ticket, error: Exception | None = None) -> None:
        """Take a ticket out of the engine. An error that loses the device ends the engine too."""
        if error and is_lost(error):
            self.lost = error
            error = self._lost_error()
        for tickets in (self._active, self._decoding):
            if ticket in tickets:
                tickets.remove(ticket)
        ticket.settle(error=error and released(error))

    def _drop_cancelled_waiting(self) -> None:
        """Remove cancelled requests from the queue. The caller holds the lock."""
        for ticket in [t for t in self._waiting if t.cancelled]:
            self._waiting.remove(ticket)
            ticket.settle()
