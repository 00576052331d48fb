"""Generate pictures for many prompts with a model, several requests at a time."""

from collections.abc import Iterator, Sequence

from PIL import Image
from tqdm import tqdm

from jsd import sampling
from jsd.errors import NaNError, NSFWError
from jsd.model import Components
from jsd.request import Request


def draw(components: Components, prompts: Sequence[str], seed: int) -> list[Image.Image | None]:
    """Generate one picture per prompt with the model's default settings. Prompt i has the seed `seed` + i. A picture is
    None if the safety checker holds it back, or if its numbers are not finite.
    """
    requests = [Request(prompt, seed=i) for i, prompt in enumerate(prompts, seed)]
    jobs = decoded_jobs(components, requests)
    return [_finish(components, job) for job in tqdm(jobs, "drawing", len(requests))]


def decoded_jobs(components: Components, requests: Sequence[Request], size: int = 8) -> Iterator[sampling.Job]:
    """Generate pictures, `size` requests at a time, and yield a job (the state of a request) for each, in order.
    `job.pictures` are decoded. The safety check and the watermark are still missing: `sampling.finish` does both.
    """
    for first in range(0, len(requests), size):
        jobs = [sampling.prepare(components, request) for request in requests[first : first + size]]
        while left := [job for job in jobs if not job.finished]:
            sampling.step(components, left)
        while left := [job for job in jobs if job.undecoded]:
            sampling.decode_next(components, left, size)
        yield from jobs


def _finish(components: Components, job: sampling.Job) -> Image.Image | None:
    try:
        return sampling.finish(components, job).images[0]
    except (NSFWError, NaNError):
        return None
