"""A request on its way through the engine."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from jsd.request import Progress, Request
from jsd.result import Result
from jsd.sampling import Job


@dataclass(eq=False)
class Ticket:
    """A request in the engine, and the future of its result. `job` is None until the request has left the queue.

    The future stays pending until its end, because a running future can't be cancelled.
    """

    request: Request
    progress: Progress | None
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)  # seconds, by `time.perf_counter`
    job: Job | None = None

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(c, h, w) of the job's latents. Only jobs of one shape share a call of the UNet or the autoencoder."""
        return tuple(self.job.x_t.shape[1:])

    @property
    def cancelled(self) -> bool:
        return self.future.cancelled()

    def settle(self, result: Result | None = None, error: BaseException | None = None) -> None:
        """End the future with a result or an error. A cancelled future only notifies its waiters."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error) if error else self.future.set_result(result)
