"""Many requests, one UNet: a thread that groups compatible jobs and takes them through `sampling` step by step.

The thread also ends the loading of the model. OpenMP keeps the workers of every thread that ever computed, and with
those of two threads on as many cores each parallel region has to wait for the scheduler: a step takes twice as long.

Between two ticks of the UNet one call decodes a picture or a few and one image may be encoded, so that nobody's steps
wait for all the pictures of somebody else; marking and whatever needs no model is done on a second thread.

    with Engine(components) as engine:
        future = engine.submit(Request("猫の肖像画 油絵"))
        future.result().images[0].save("out.png")

A future stays cancellable to its end: `future.cancel()`, or cancelling the `asyncio.wrap_future` around it, frees the
job's rows by the next tick. A plain thread, because Cog may run `setup` and `predict` on different event loops.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import torch

from jsd import capacity, sampling
from jsd.recovery import in_halves, is_lost, released
from jsd.request import EngineLostError, Progress, QueueFullError, Request, Result
from jsd.sampling import Job
from jsd.source import fitted
from jsd.weights import Components


@dataclass(eq=False)
class Ticket:
    """A request in the engine. It waits while `job` is None, takes part in ticks, is decoded, and sealed.

    The future is never marked as running before its end: a pending one is what `Future.cancel` can cancel.
    """

    request: Request
    progress: Progress | None
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)
    job: Job | None = None

    def settle(self, result: Result | None = None, error: BaseException | None = None) -> None:
        """Give the future its end; a cancelled one stays cancelled, and its waiters are told."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error) if error else self.future.set_result(result)


class Engine:
    """Serves requests in the order they came, as many together as fit `max_batch_rows` UNet rows a tick.

    A row is one of the model's own size: larger pictures count for more, and those that still have to be decoded for
    one each. A request of more rows than that runs alone, its UNet calls split. At most `max_queue` requests wait.
    `decode_batch` pictures are decoded in one call. What does not fit the memory is tried again in halves.
    """

    def __init__(
        self,
        components: Components | Callable[[], Components],
        max_batch_rows: int | None = None,
        max_queue: int = 64,
        decode_batch: int | None = None,
        on_lost: Callable[[Exception], None] = lambda error: None,
    ):
        """`components`, or what loads them; then whatever that raises is raised here. `max_batch_rows` and
        `decode_batch` are what suits the device unless given (see `jsd.capacity`). `on_lost` is called when nothing
        can be drawn any more, on the engine's thread, as its last act.
        """
        if min(limit for limit in (max_batch_rows, max_queue, decode_batch) if limit is not None) < 1:
            raise ValueError(
                f"max_batch_rows {max_batch_rows}, max_queue {max_queue} and decode_batch {decode_batch} must be at "
                "least 1"
            )
        self.max_batch_rows = max_batch_rows
        self.max_queue = max_queue
        self.decode_batch = decode_batch
        self.lost: Exception | None = None  # why nothing can be drawn any more
        self._on_lost = on_lost
        self._wake = threading.Condition()  # guards the two below
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        self._active: list[Ticket] = []  # the thread's own, as is the next
        self._decoding: list[Ticket] = []
        self._fitting: dict[torch.Size, int] = {}  # rows a call, for the sizes that once did not fit the memory
        self._sealer = ThreadPoolExecutor(1, "jsd-seal")
        loaded: Future[Components] = Future()
        self._thread = threading.Thread(target=self._run, args=(components, loaded), name="jsd-engine", daemon=True)
        self._thread.start()
        self.components = loaded.result()

    def submit(self, request: Request, progress: Progress | None = None) -> Future[Result]:
        """Queue a request. `progress(done, total)` is called on the engine's thread after each of its UNet calls.

        Raises `InputError` for what the model can't draw, `QueueFullError`, `EngineLostError`, and RuntimeError after
        `close`. The future raises what `sampling.generate` raises, `MemoryShortError`, and `EngineLostError`.
        """
        # On the caller's thread: fitting a large picture must not hold up the others.
        ticket = Ticket(fitted(request.resolve(self.components.defaults)), progress)
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

    def close(self) -> None:
        """Cancel whatever is not drawn yet and wait for the threads: the tick one is in, what the other has to mark."""
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
            self.max_batch_rows = self.max_batch_rows or capacity.max_batch_rows(self.components)
            self.decode_batch = self.decode_batch or capacity.decode_batch(self.components)
        except BaseException as error:  # noqa: BLE001 - the caller waits for it
            loaded.set_exception(error)
            return
        loaded.set_result(self.components)
        try:
            while self._admit():
                if self._active:
                    self._tick(self._next_group())
                if self._decoding:
                    self._decode()
        except Exception as error:  # noqa: BLE001 - a defect of the loop itself
            self.lost = released(error)
        with self._wake:
            self._closed = True
            left = [*self._active, *self._decoding, *self._waiting]
        for ticket in left:  # nobody may be left waiting
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
        """Let cancelled jobs go and new ones in, sleeping while there are none. False when there is nothing to do any
        more: the engine closes, or is lost.
        """
        if self.lost:
            return False
        for ticket in [t for t in [*self._active, *self._decoding] if t.future.cancelled()]:
            self._end(ticket)
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._active or self._decoding or self._waiting)
            if self._closed:
                return False
            self._drop_cancelled_waiting()
            rows = sum(self._rows(ticket.request) for ticket in self._active)
            rows += sum(ticket.job.undecoded for ticket in self._decoding)
            # In the order they came: a large request is never overtaken for ever by small ones.
            while self._waiting and (not rows or rows + self._rows(self._waiting[0].request) <= self.max_batch_rows):
                ticket = self._waiting.popleft()
                self._active.append(ticket)
                rows += self._rows(ticket.request)
                if ticket.request.image is not None:  # encoded before the next tick; the others wait for one at most
                    break
        for ticket in [t for t in self._active if t.job is None]:
            queued = time.perf_counter() - ticket.submitted
            try:
                ticket.job, _ = in_halves(lambda _, ticket=ticket: sampling.prepare(self.components, ticket.request), 1)
                ticket.job.timings["queue"] = queued
                self._move_on(ticket)  # an image that is not to be departed from has no steps
            except Exception as error:  # noqa: BLE001 - it belongs to this request, and the thread must live
                self._end(ticket, error=error)
        return True

    def _rows(self, request: Request) -> int:
        """What a request takes of a call, in rows of the model's own size."""
        return request.rows * self._scale(request)

    def _scale(self, request: Request) -> int:
        own = self.components.defaults
        return math.ceil(request.width * request.height / (own.width * own.height))

    def _next_group(self) -> list[Ticket]:
        """The job that has waited longest for a tick and all others of its size; they go to the back of the line."""
        shape = self._active[0].job.x_t.shape[1:]
        group = [ticket for ticket in self._active if ticket.job.x_t.shape[1:] == shape]
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
        """Take the group's jobs a step further, or say why that can't be done, with no job changed."""
        jobs = [ticket.job for ticket in group]
        shape = jobs[0].x_t.shape[1:]
        most = self._fitting.get(shape, max(1, self.max_batch_rows // self._scale(group[0].request)))
        try:
            most = min(most, sum(len(job.next_context) for job in jobs))
            predictions, fitting = in_halves(lambda rows: sampling.predict(self.components, jobs, rows), most)
        except Exception as error:  # noqa: BLE001 - as above
            return released(error)
        if fitting < most:
            self._fitting[shape] = fitting
        for ticket, eps in zip(group, predictions, strict=True):
            try:
                sampling.advance(ticket.job, eps, fitting)
                if ticket.progress:
                    ticket.progress(ticket.job.done, ticket.job.total)
                self._move_on(ticket)
            except Exception as error:  # noqa: BLE001 - as above
                self._end(ticket, error=error)
        return None

    def _move_on(self, ticket: Ticket) -> None:
        """A job that has done its steps leaves the ticks, and its rows are free."""
        if ticket.job.finished:
            self._active.remove(ticket)
            self._decoding.append(ticket)

    def _decode(self) -> None:
        """Decode the next pictures of the job that came first, with those of others of its size behind it."""
        first = self._decoding[0]
        shape = first.job.x_t.shape[1:]
        group = [ticket for ticket in self._decoding if ticket.job.x_t.shape[1:] == shape]
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
        """Decode up to `most` pictures in one call, or say why that can't be done, with no job changed."""
        jobs = [ticket.job for ticket in group]
        try:
            in_halves(lambda count: sampling.decode_next(self.components, jobs, count), most)
        except Exception as error:  # noqa: BLE001 - as above
            return released(error)
        return None

    def _seal(self, ticket: Ticket) -> None:
        """On the second thread: what needs no model."""
        if ticket.future.cancelled():
            ticket.settle()
            return
        try:
            ticket.settle(sampling.seal(self.components, ticket.job))
        except Exception as error:  # noqa: BLE001 - as above
            ticket.settle(error=error)

    def _end(self, ticket: Ticket, error: Exception | None = None) -> None:
        if error and is_lost(error):
            self.lost = error
            error = self._lost_error()
        for tickets in (self._active, self._decoding):
            if ticket in tickets:
                tickets.remove(ticket)
        ticket.settle(error=error and released(error))

    def _drop_cancelled_waiting(self) -> None:
        """Under the lock: cancelled requests free their place in the queue."""
        for ticket in [t for t in self._waiting if t.future.cancelled()]:
            self._waiting.remove(ticket)
            ticket.settle()
