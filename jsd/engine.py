"""Many requests share one UNet: a thread with a bounded queue in front of a `Batch`.

    with Engine(components) as engine:
        future = engine.submit(Request("猫の肖像画 油絵"))
        future.result().images[0].save("out.png")

The loop of the thread admits requests from the queue, makes one denoising step, and decodes a few finished pictures. So
no request waits for all the pictures of another one. A second thread fetches finished pictures from the device.
`future.cancel()` works until the future has ended, and frees the request's share of the UNet's batch before the next
step. The engine is a plain thread because Cog may run `setup` and `predict` on different event loops.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from jsd import sampling
from jsd.batch import Batch, Ticket
from jsd.device import released
from jsd.errors import EngineLostError, QueueFullError
from jsd.language import Text
from jsd.model import Components
from jsd.request import Progress, Request
from jsd.result import Result


class Engine:
    """Serves requests in the order they came, several at once if together they have at most `max_batch_rows` UNet rows.

    A picture of the model's default size takes two rows (samples in the UNet's batch), without guidance one. A larger
    picture takes more, and a picture that waits for decoding one. A request with more than `max_batch_rows` runs alone,
    in several UNet calls. At most `max_queue` requests wait. `decode_batch` is the most pictures decoded in one call.
    """

    def __init__(
        self,
        components: Components | Callable[[], Components],
        max_batch_rows: int | None = None,
        max_queue: int = 64,
        decode_batch: int | None = None,
        on_lost: Callable[[Exception], None] = lambda error: None,
    ):
        """Start the thread and wait for the model. `components` is a model or a function that loads one on the thread.

        Errors of loading are raised here. By default `jsd.device` chooses `max_batch_rows` and `decode_batch`. If the
        GPU or the thread fails, so that nothing can be drawn any more, the thread's last action is `on_lost(error)`.
        """
        if min(limit for limit in (max_batch_rows, max_queue, decode_batch) if limit is not None) < 1:
            raise ValueError(Text("max_batch_rows, max_queue and decode_batch must be at least 1"))
        self.max_queue = max_queue
        self.lost: Exception | None = None  # the reason why nothing can be drawn any more
        # Called on any thread when a request of `submit` has ended, with it and its future.
        self.on_end: Callable[[Request, Future[Result]], object] = lambda request, future: None
        self._on_lost = on_lost
        self._wake = threading.Condition()  # guards _waiting and _closed
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        self._sealer = ThreadPoolExecutor(1, "jsd-seal")
        loaded: Future[Batch] = Future()

        def load() -> Batch:
            return Batch(components() if callable(components) else components, max_batch_rows, decode_batch)

        self._thread = threading.Thread(target=self._run, args=(load, loaded), name="jsd-engine", daemon=True)
        self._thread.start()
        self._batch = loaded.result()  # only the engine's thread changes it
        self.components = self._batch.components
        self.max_batch_rows = self._batch.max_rows

    def submit(self, request: Request, progress: Progress | None = None) -> Future[Result]:
        """Queue a request. Returns the future of its `Result`. Each step calls `progress(done, total)` on the thread.

        Raises `InputError` if the model can't draw the request, `QueueFullError`, `EngineLostError`, and RuntimeError
        after `close`. The future raises the errors of `sampling.generate`, `MemoryShortError` and `EngineLostError`.
        """
        ticket = Ticket(self.resolve(request), progress, self.components.defaults)
        with self._wake:
            if self.lost:
                raise self._lost_error()
            if self._closed:
                raise RuntimeError(Text("the engine is closed; make a new one"))
            self._drop_cancelled_waiting()
            if len(self._waiting) >= self.max_queue:
                raise QueueFullError("{} requests are waiting already; try again later", self.max_queue)
            self._waiting.append(ticket)
            self._wake.notify()
        # It holds no ticket, since a ticket holds the future: a circle would keep the adapter until the collector runs.
        ticket.future.add_done_callback(lambda future, request=ticket.request: self.on_end(request, future))
        return ticket.future

    def resolve(self, request: Request) -> Request:
        """Return a copy of a request, ready to be drawn. Raises the errors of `sampling.resolve`.

        `submit` calls this too. It takes long for a large picture or an adapter, so a server calls it before, outside
        its event loop. The request's schedule is made as well, which the engine then finds in the cache.
        """
        request = sampling.resolve(self.components, request)
        sampling.schedule_of(self.components, request)
        return request

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._waiting)

    @property
    def ticks(self) -> int:
        """The number of UNet steps so far. A step has the rows of all requests that share it."""
        return self._batch.ticks

    @property
    def ticked_rows(self) -> int:
        """The sum of the rows (samples) of these steps."""
        return self._batch.ticked_rows

    @property
    def running(self) -> int:
        """The number of requests being denoised or decoded."""
        return len(self._batch.tickets)

    @property
    def undecoded(self) -> int:
        """The number of pictures that are denoised and wait for decoding."""
        return self._batch.undecoded

    def close(self) -> None:
        """Cancel all requests that are not decoded yet. Waits for the current step and for finished pictures."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._sealer.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, load: Callable[[], Batch], loaded: Future[Batch]) -> None:
        try:
            batch = load()
        except BaseException as error:  # noqa: BLE001 - `__init__` raises it
            loaded.set_exception(error)
            return
        loaded.set_result(batch)
        try:
            while self._admit(batch):
                batch.prepare()
                if batch.active:
                    batch.tick()
                if batch.decoding:
                    batch.decode(lambda ticket: self._sealer.submit(self._seal, ticket))
        except Exception as error:  # noqa: BLE001 - a lost device, or a defect of the loop
            self.lost = released(error)
        with self._wake:
            self._closed = True
            left = [*batch.tickets, *self._waiting]
        for ticket in left:  # nobody may wait for ever
            if self.lost:
                ticket.settle(error=self._lost_error())
            else:
                ticket.future.cancel()
                ticket.settle()
        if self.lost:
            self._on_lost(self.lost)

    def _admit(self, batch: Batch) -> bool:
        """Drop cancelled requests, move those that fit to the batch. Sleeps if there are none. False: it is closed."""
        batch.drop_cancelled()
        with self._wake:
            self._wake.wait_for(lambda: self._closed or batch.tickets or self._waiting)
            if self._closed:
                return False
            self._drop_cancelled_waiting()
            # In the order they came, so that small requests never overtake a large one for ever.
            while self._waiting and batch.has_room(self._waiting[0]):
                batch.active.append(self._waiting.popleft())
                if batch.active[-1].request.image is not None:  # a step waits for the encoding of one image at most
                    break
        return True

    def _seal(self, ticket: Ticket) -> None:
        """Fetch the pictures of a request and set its future's result. Runs on the second thread."""
        try:
            ticket.settle(None if ticket.future.cancelled() else sampling.seal(self.components, ticket.job))
        except Exception as error:  # noqa: BLE001 - it belongs to this request
            ticket.settle(error=error)

    def _lost_error(self) -> EngineLostError:
        return EngineLostError("nothing can be drawn any more ({}); the server has to be started again", self.lost)

    def _drop_cancelled_waiting(self) -> None:
        """Remove cancelled requests from the waiting queue. The caller must hold its lock."""
        for ticket in [ticket for ticket in self._waiting if ticket.future.cancelled()]:
            self._waiting.remove(ticket)
            ticket.settle()
