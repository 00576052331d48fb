"""Continuous batching: `Batch` denoises the pictures of many requests together. A `Ticket` is one request in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from jsd import device, sampling
from jsd.adapters import Adapter
from jsd.device import Fitting, in_halves, is_lost, released
from jsd.job import Job
from jsd.model import Components
from jsd.request import Defaults, Progress, Request
from jsd.result import Result

STAY = 8  # steps with one adapter while others wait, because a switch takes time too (docs/speed.md)


@dataclass(eq=False)
class Ticket:
    """A request in the engine, and the future of its result. `job`, its sampling state, is None until `Batch.prepare`.

    The future stays pending until it has its result or error, because a running future can't be cancelled.
    """

    request: Request  # resolved
    progress: Progress | None
    defaults: Defaults  # of the model
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)  # seconds, by `time.perf_counter`
    job: Job | None = None

    @property
    def scale(self) -> int:
        """The number of pixels of one picture, divided by that of the model's default size and rounded up."""
        return math.ceil(self.request.width * self.request.height / (self.defaults.width * self.defaults.height))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the latents of one picture, (c, h, w)."""
        return tuple(self.job.state.shape[2:])

    @property
    def adapter(self) -> tuple[Adapter | None, float]:
        """The adapter that the request is drawn with, and its scale."""
        return self.request.lora, self.request.lora_scale

    @property
    def rows(self) -> int:
        """The most samples this request has in the UNet's batch, times `scale`: larger pictures take more memory."""
        return self.request.rows * self.scale

    def settle(self, result: Result | None = None, error: BaseException | None = None) -> None:
        """Set the future's result, or its error. If the future was cancelled, only tell those who wait for it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error) if error else self.future.set_result(result)


class Batch:
    """The requests (tickets) that are sampled together, each at its own step.

    Those of one latent shape and adapter share calls.
    `active` tickets have denoising steps left, `decoding` tickets have pictures left to decode. `max_rows` limits the
    samples in a UNet call and, unless there is only one ticket, the `rows` of all tickets. `decode_batch` limits the
    pictures of the model's default size decoded in one call. None: `jsd.device` chooses. Both limits are lower for
    larger pictures. If memory is short, a call is tried with half as many.
    An error of one request ends only that request. If the GPU is lost, the method that notices it raises the error.
    """

    def __init__(self, components: Components, max_rows: int | None = None, decode_batch: int | None = None):
        self.components = components
        self.max_rows = max_rows or device.max_batch_rows(components)
        self.decode_batch = decode_batch or device.decode_batch(components)
        self.active: list[Ticket] = []
        self.decoding: list[Ticket] = []
        self.ticks = self.ticked_rows = 0  # UNet steps so far, and the sum of their rows
        self._rows, self._pictures = Fitting(), Fitting()  # what fits into a UNet call, and into a VAE call
        self._adapter: tuple[Adapter | None, float] = (None, 1.0)  # that of the latest step
        self._stayed = 0  # steps with it in a row

    @property
    def tickets(self) -> list[Ticket]:
        return [*self.active, *self.decoding]

    @property
    def undecoded(self) -> int:
        """The number of pictures that are denoised but not decoded yet."""
        return sum(ticket.job.undecoded for ticket in self.decoding)

    def has_room(self, ticket: Ticket) -> bool:
        """Whether `ticket` (a request) fits into `max_rows` beside the present ones. If there are none, always."""
        rows = sum(ticket.rows for ticket in self.active) + self.undecoded
        return not rows or rows + ticket.rows <= self.max_rows

    def prepare(self) -> None:
        """For each active ticket (request) without a job, make one: encode its text and make its start latents."""
        for ticket in [ticket for ticket in self.active if ticket.job is None]:
            queued = time.perf_counter() - ticket.submitted
            try:
                ticket.job, _ = in_halves(lambda _, ticket=ticket: sampling.prepare(self.components, ticket.request), 1)
                ticket.job.timings["queue"] = queued
                self._move_on(ticket)  # with prompt_strength 0 a job has no steps
            except Exception as error:  # noqa: BLE001 - it belongs to this request
                self._fail(ticket, error)

    def drop_cancelled(self) -> None:
        for ticket in [ticket for ticket in self.tickets if ticket.future.cancelled()]:
            self.remove(ticket)
            ticket.settle()

    def tick(self) -> None:
        """Advance by one step the requests of one adapter and latent shape that `_next_group` chooses.

        If the shared UNet call fails, each request is tried alone, and only those that fail again end with an error.
        """
        group = self._next_group()
        self.active = [ticket for ticket in self.active if ticket not in group] + group
        error = self._step(group)
        if error and len(group) == 1:
            self._fail(group[0], error)
        elif error:
            for ticket in group:
                if error := self._step([ticket]):
                    self._fail(ticket, error)

    def decode(self, deliver: Callable[[Ticket], object]) -> None:
        """Decode up to `decode_batch` pictures, of the request that was denoised first and others of its latent shape.

        A ticket (request) whose pictures are now all decoded and checked leaves the batch and is given to `deliver`.
        """
        group = _of_one_shape(self.decoding, self.decoding[0])
        most = max(1, self.decode_batch // group[0].scale)
        error = self._decode_pictures(group, most)
        if error and (most > 1 or group[1:]):
            error = self._decode_pictures(group[:1], 1)
        if error:
            self._fail(group[0], error)
        for ticket in [ticket for ticket in group if ticket in self.decoding and not ticket.job.undecoded]:
            try:
                in_halves(lambda _, ticket=ticket: sampling.judge(self.components, ticket.job), 1)
                deliver(ticket)
                self.remove(ticket)
            except Exception as error:  # noqa: BLE001 - it belongs to this request
                self._fail(ticket, error)

    def remove(self, ticket: Ticket) -> None:
        for tickets in (self.active, self.decoding):
            if ticket in tickets:
                tickets.remove(ticket)

    def _next_group(self) -> list[Ticket]:
        """Return the active ticket that has waited longest for a step, and all others of its adapter and latent shape.

        But an adapter has STAY steps in a row, if its requests need so many.
        """
        first = self.active[0]
        if self._stayed < STAY:
            first = next((ticket for ticket in self.active if ticket.adapter == self._adapter), first)
        if first.adapter != self._adapter:
            self._adapter, self._stayed = first.adapter, 0
        self._stayed += 1
        return [ticket for ticket in _of_one_shape(self.active, first) if ticket.adapter == first.adapter]

    def _step(self, group: list[Ticket]) -> Exception | None:
        """Advance the tickets in `group`, all of one latent shape and adapter, by one step. If that fails, no job
        changes and the error is returned, otherwise None.
        """
        jobs = [ticket.job for ticket in group]
        rows = sum(job.rows for job in jobs)
        most = min(max(1, self.max_rows // group[0].scale), rows)
        try:
            self._rows.call(group[0].shape, most, lambda rows: sampling.step(self.components, jobs, rows))
        except Exception as error:  # noqa: BLE001 - `tick` finds out whose it is
            return released(error)
        self.ticks += 1
        self.ticked_rows += rows
        for ticket in group:
            try:
                if ticket.progress:
                    ticket.progress(ticket.job.done, ticket.job.total)
                self._move_on(ticket)
            except Exception as error:  # noqa: BLE001 - it belongs to this request
                self._fail(ticket, error)
        return None

    def _decode_pictures(self, group: list[Ticket], most: int) -> Exception | None:
        """Decode up to `most` pictures of the tickets in `group` in one call, fewer if memory is short. If that fails,
        no job changes and the error is returned, otherwise None.
        """
        jobs = [ticket.job for ticket in group]
        most = min(most, sum(job.undecoded for job in jobs))
        try:
            self._pictures.call(group[0].shape, most, lambda count: sampling.decode_next(self.components, jobs, count))
        except Exception as error:  # noqa: BLE001 - `decode` finds out whose it is
            return released(error)
        return None

    def _move_on(self, ticket: Ticket) -> None:
        """If a ticket (request) has no denoising steps left, move it from `active` to `decoding`."""
        if ticket.job.finished:
            self.active.remove(ticket)
            self.decoding.append(ticket)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if is_lost(error):
            raise error
        self.remove(ticket)
        ticket.settle(error=released(error))


def _of_one_shape(tickets: Sequence[Ticket], first: Ticket) -> list[Ticket]:
    """Return those of `tickets` whose latents have the same shape (c, h, w) as those of `first`."""
    return [ticket for ticket in tickets if ticket.shape == first.shape]
