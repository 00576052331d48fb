"""Many requests, one UNet: a thread that groups compatible jobs and takes them through `sampling` step by step.

    with Engine(components) as engine:
        future = engine.submit(Request("猫の肖像画 油絵"))
        future.result().images[0].save("out.png")

A future stays cancellable to its end: `future.cancel()`, or cancelling the `asyncio.wrap_future` around it, frees the
job's rows by the next tick. A plain thread, because Cog may run `setup` and `predict` on different event loops.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

from jsd import sampling
from jsd.request import Progress, QueueFullError, Request, Result
from jsd.sampling import Job
from jsd.weights import Components


@dataclass(eq=False)
class Ticket:
    """A request in the engine. It waits while `job` is None, then takes part in ticks.

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

    A request of more rows than that runs alone, its UNet calls split. At most `max_queue` requests wait.
    """

    def __init__(self, components: Components, max_batch_rows: int = 16, max_queue: int = 64):
        if max_batch_rows < 1 or max_queue < 1:
            raise ValueError(f"max_batch_rows {max_batch_rows} and max_queue {max_queue} must be at least 1")
        self.components = components
        self.max_batch_rows = max_batch_rows
        self.max_queue = max_queue
        self._wake = threading.Condition()  # guards the two below
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        self._active: list[Ticket] = []  # the thread's own
        self._thread = threading.Thread(target=self._run, name="jsd-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, progress: Progress | None = None) -> Future[Result]:
        """Queue a request. `progress(done, total)` is called on the engine's thread after each of its UNet calls.

        Raises `InputError` for what the model can't draw, `QueueFullError`, and RuntimeError after `close`. The
        future raises what `sampling.generate` raises.
        """
        # On the caller's thread: fitting a large picture must not hold up the others.
        ticket = Ticket(sampling.fitted(request.resolve(self.components.defaults)), progress)
        with self._wake:
            if self._closed:
                raise RuntimeError("the engine is closed; make a new one")
            self._drop_cancelled_waiting()
            if len(self._waiting) >= self.max_queue:
                raise QueueFullError(f"{self.max_queue} requests are waiting already; try again later")
            self._waiting.append(ticket)
            self._wake.notify()
        return ticket.future

    def close(self) -> None:
        """Cancel whatever has not ended and wait for the thread, for the tick it is in."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while self._admit():
                if self._active:
                    self._tick(self._next_group())
        finally:  # closed, or a defect of the loop itself: nobody may be left waiting
            with self._wake:
                self._closed = True
                left = [*self._active, *self._waiting]
            for ticket in left:
                ticket.future.cancel()
                ticket.settle()

    def _admit(self) -> bool:
        """Let cancelled jobs go and new ones in, sleeping while there are none. False when the engine closes."""
        for ticket in [t for t in self._active if t.future.cancelled()]:
            self._end(ticket)
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._active or self._waiting)
            if self._closed:
                return False
            self._drop_cancelled_waiting()
            rows = sum(ticket.request.rows for ticket in self._active)
            # In the order they came: a large request is never overtaken for ever by small ones.
            while self._waiting and (not rows or rows + self._waiting[0].request.rows <= self.max_batch_rows):
                ticket = self._waiting.popleft()
                self._active.append(ticket)
                rows += ticket.request.rows
        for ticket in [t for t in self._active if t.job is None]:
            queued = time.perf_counter() - ticket.submitted
            try:
                ticket.job = sampling.prepare(self.components, ticket.request)
                ticket.job.timings["queue"] = queued
                self._finish(ticket)  # an image that is not to be departed from has no steps
            except Exception as error:  # noqa: BLE001 - it belongs to this request, and the thread must live
                self._end(ticket, error=error)
        return True

    def _next_group(self) -> list[Ticket]:
        """The job that has waited longest for a tick and all others of its size; they go to the back of the line."""
        shape = self._active[0].job.x_t.shape[1:]
        group = [ticket for ticket in self._active if ticket.job.x_t.shape[1:] == shape]
        self._active = [ticket for ticket in self._active if ticket not in group] + group
        return group

    def _tick(self, group: list[Ticket]) -> None:
        """One UNet call for a group. If it fails, each job is tried alone, so that only the guilty one fails."""
        try:
            predictions = sampling.predict(self.components, [t.job for t in group], self.max_batch_rows)
        except Exception as error:  # noqa: BLE001 - as above
            if len(group) == 1:
                self._end(group[0], error=error)
            else:
                for ticket in group:
                    self._tick([ticket])
            return
        for ticket, eps in zip(group, predictions, strict=True):
            try:
                self._advance(ticket, eps)
            except Exception as error:  # noqa: BLE001 - as above
                self._end(ticket, error=error)

    def _advance(self, ticket: Ticket, eps: object) -> None:
        sampling.advance(ticket.job, eps)
        if ticket.progress:
            ticket.progress(ticket.job.done, ticket.job.total)
        self._finish(ticket)

    def _finish(self, ticket: Ticket) -> None:
        if ticket.job.finished and not ticket.future.cancelled():
            self._end(ticket, sampling.finish(self.components, ticket.job, ticket.future.cancelled))

    def _end(self, ticket: Ticket, result: Result | None = None, error: BaseException | None = None) -> None:
        self._active.remove(ticket)
        ticket.settle(result, error)

    def _drop_cancelled_waiting(self) -> None:
        """Under the lock: cancelled requests free their place in the queue."""
        for ticket in [t for t in self._waiting if t.future.cancelled()]:
            self._waiting.remove(ticket)
            ticket.settle()
