"""Draw many requests."""

from collections.abc import Iterator, Sequence

from jsd import sampling
from jsd.model import Components
from jsd.request import Request


def decoded_jobs(components: Components, requests: Sequence[Request], size: int = 8) -> Iterator[sampling.Job]:
    """Draw and decode the requests, `size` at a time, and yield their jobs in order.

    Their pictures have neither passed the safety checker nor got the watermark.
    """
    for first in range(0, len(requests), size):
        jobs = [sampling.prepare(components, request) for request in requests[first : first + size]]
        while left := [job for job in jobs if not job.finished]:
            sampling.step(components, left)
        while left := [job for job in jobs if not job.decoded]:
            sampling.decode_next(components, left, size)
        yield from jobs
