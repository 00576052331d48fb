"""The denoising loop, for any number of requests at once: `prepare`, `step`, `finish`.

Every `step` calls the UNet once for all jobs given, whatever their timesteps, schedulers and guidance; only their
latent size must agree. `generate` is the loop for one request. Image to image begins later and from other latents,
inpainting blends after each step; the denoising is the same. Tensors bear the papers' names: x_t are noisy latents
(Ho et al. 2020, arXiv 2006.11239), eps is what the UNet predicts for them (noise, or v for a v-prediction model).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from diffusers import SchedulerMixin
from PIL import Image

from jsd import safety, watermark
from jsd.latents import decode, draw_noise
from jsd.request import NSFWError, Progress, Request, Result
from jsd.schedulers import make_scheduler, set_timesteps, takes_generator
from jsd.source import Source, blend, depart, fitted, make_source, put_back
from jsd.weights import Components


@dataclass
class Job:
    """A request on its way. n images; c, h, w the latent's channels, height and width."""

    request: Request  # resolved
    scheduler: SchedulerMixin  # this job's own: schedulers keep state
    generators: list[torch.Generator]  # one an image, on the CPU: an image does not depend on its batch mates
    timesteps: torch.Tensor  # one a UNet call; fewer than the scheduler's when an image is departed from
    x_t: torch.Tensor  # (n, c, h, w), float32
    source: Source | None
    context: torch.Tensor  # (rows, tokens, width): text rows, those of the negative prompt first
    tokens: int
    truncated: int
    done: int = 0  # UNet calls
    batch_rows: int = 0  # of all those calls, its own and others'
    pictures: list[Image.Image] = field(default_factory=list)  # those decoded so far
    flagged: list[bool] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("queue", "text", "denoise", "decode", "safety"), 0.0)
    )

    @property
    def total(self) -> int:
        """UNet calls from start to end."""
        return len(self.timesteps)

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    @property
    def guided(self) -> bool:
        """Whether guidance is applied at the next UNet call, which then has two rows an image."""
        noise_level = float(self.timesteps[self.done]) / self.scheduler.config.num_train_timesteps
        low, high = self.request.guidance_interval
        return self.request.guidance_scale != 1 and low <= noise_level <= high

    @property
    def next_context(self) -> torch.Tensor:
        """The text rows of the next UNet call."""
        return self.context if self.guided else self.context[-len(self.x_t) :]

    @property
    def undecoded(self) -> int:
        """Pictures still to be decoded."""
        return len(self.x_t) - len(self.pictures)

    @property
    def decoded(self) -> bool:
        return not self.undecoded


def generate(
    components: Components, request: Request, progress: Progress | None = None, max_rows: int | None = None
) -> Result:
    """Serve one request from start to end. `progress(done, total)` is called after every step; see `predict` for
    `max_rows`.

    Raises `InputError` for what this model can't draw, `NaNError`, `NSFWError`.
    """
    job = prepare(components, request)
    while not job.finished:
        step(components, [job], max_rows)
        if progress:
            progress(job.done, job.total)
    return finish(components, job)


@torch.inference_mode()
def prepare(components: Components, request: Request) -> Job:
    """Text, scheduler and start latents of a request (resolved and fitted here if it is not yet)."""
    request = fitted(request.resolve(components.defaults))
    scheduler = make_scheduler(request.scheduler, components.scheduler_config)
    set_timesteps(scheduler, request.num_inference_steps)

    start = time.perf_counter()
    texts = [request.prompt] if request.guidance_scale == 1 else [request.negative_prompt, request.prompt]
    tokens = [components.tokenizer(text) for text in texts]
    context = encode_text(components, [t.ids for t in tokens]).repeat_interleave(request.num_outputs, dim=0)

    # Drawn on the CPU, one generator an image: the same seed is the same picture on any device, alone or in company.
    generators = [torch.Generator("cpu").manual_seed(request.seed + i) for i in range(request.num_outputs)]
    if request.image is None:
        source, timesteps = None, scheduler.timesteps
        x_t = draw_noise(components, request, generators) * scheduler.init_noise_sigma
    else:
        source = make_source(components, request, generators)
        timesteps, x_t = depart(scheduler, source, request)
    job = Job(
        request=request,
        scheduler=scheduler,
        generators=generators,
        timesteps=timesteps,
        x_t=x_t.to(components.device),
        source=source,
        context=context,
        tokens=tokens[-1].used,
        truncated=sum(t.dropped for t in tokens),
    )
    job.timings["text"] = job.started - start
    return job


def decoded_jobs(components: Components, requests: Sequence[Request], size: int = 8) -> Iterator[Job]:
    """The requests' jobs with their pictures decoded, in their order, `size` at a time; neither judged nor marked."""
    for start in range(0, len(requests), size):
        jobs = [prepare(components, request) for request in requests[start : start + size]]
        while left := [job for job in jobs if not job.finished]:
            step(components, left)
        while left := [job for job in jobs if not job.decoded]:
            decode_next(components, left, size)
        yield from jobs


@torch.inference_mode()
def encode_text(components: Components, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Token ids, (rows, tokens), to what the UNet attends to, (rows, tokens, width)."""
    input_ids = torch.tensor(ids, device=components.device)
    return components.text_encoder(input_ids).last_hidden_state


def step(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> None:
    """Take one UNet call of every job: all of equal latent size, none finished. See `predict` for `max_rows`."""
    rows = sum(len(job.next_context) for job in jobs)
    rows = min(rows, max_rows or rows)
    for job, eps in zip(jobs, predict(components, jobs, max_rows), strict=True):
        advance(job, eps, rows)


@torch.inference_mode()
def predict(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> list[torch.Tensor]:
    """What the UNet sees in every job's latents, guidance applied: a (n, c, h, w) float32 tensor a job.

    One UNet call for all, or as few as keep each within `max_rows` rows. Changes no job: it may be tried again.
    """
    x, t, context = [], [], []
    for job in jobs:
        t_job = job.timesteps[job.done]
        x_job = job.scheduler.scale_model_input(job.x_t, t_job)
        context.append(job.next_context)
        rows = len(context[-1])
        x.append(x_job.repeat(rows // len(x_job), 1, 1, 1))
        t.append(t_job.float().expand(rows))
    rows = [len(states) for states in context]
    x, t, context = torch.cat(x), torch.cat(t), torch.cat(context)
    # Sampler arithmetic is float32; only the network itself runs in the model's precision.
    x, t = x.to(components.dtype), t.to(components.device)
    size = max_rows or len(x)
    eps = torch.cat(
        [
            components.unet(x[i : i + size], t[i : i + size], context[i : i + size], return_dict=False)[0]
            for i in range(0, len(x), size)
        ]
    ).float()
    return [_guide(eps_job, job) for eps_job, job in zip(eps.split(rows), jobs, strict=True)]


def _guide(eps: torch.Tensor, job: Job) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, eq. 6, with w + 1 called the scale)."""
    if len(eps) == len(job.x_t):
        return eps
    eps_negative, eps_prompt = eps.chunk(2)
    return eps_negative + job.request.guidance_scale * (eps_prompt - eps_negative)


@torch.inference_mode()
def advance(job: Job, eps: torch.Tensor, rows: int) -> None:
    """From x_t to the next latents, by the job's own scheduler and its own noise. `rows` had the call that saw eps."""
    noise = {"generator": job.generators} if takes_generator(job.scheduler) else {}
    t = job.timesteps[job.done]
    job.x_t = job.scheduler.step(eps, t, job.x_t, return_dict=False, **noise)[0]
    job.done += 1
    job.batch_rows += rows
    if job.source is not None and job.source.mask is not None:
        job.x_t = blend(job.source, job.scheduler, job.x_t, job.timesteps[job.done : job.done + 1])
    if job.finished:
        job.timings["denoise"] = time.perf_counter() - job.started


def finish(components: Components, job: Job) -> Result:
    """Latents to pictures: `decode_next` until all are decoded, `judge`, `seal`. Raises what they raise."""
    while not job.decoded:
        decode_next(components, [job])
    judge(components, job)
    return seal(components, job)


@torch.inference_mode()
def decode_next(components: Components, jobs: Sequence[Job], count: int = 1) -> None:
    """One call of the VAE: decode the next `count` pictures of finished jobs of equal latent size, in their order.

    Raises `NaNError` if latents or pixels are not finite. Changes no job then.
    """
    start = time.perf_counter()
    todo = [(job, i) for job in jobs for i in range(len(job.pictures), len(job.x_t))][:count]
    pictures = decode(components, torch.stack([job.x_t[i] for job, i in todo]))
    seconds = time.perf_counter() - start
    for (job, _), picture in zip(todo, pictures, strict=True):
        job.pictures.append(picture)
    for job in jobs:
        job.timings["decode"] += seconds if any(job is other for other, _ in todo) else 0.0


def judge(components: Components, job: Job) -> None:
    """Ask the safety checker about a decoded job's pictures, and put back what a mask keeps.

    Raises `NSFWError` if it flags every picture, and whatever the checker raises: it fails closed.
    """
    start = time.perf_counter()
    if job.request.mask is not None:
        job.pictures = put_back(components, job.request, job.pictures)
        job.timings["decode"] += time.perf_counter() - start
    start = time.perf_counter()
    job.flagged = [False] * len(job.pictures)
    if components.safety_checker is not None:
        job.flagged = safety.check(components.safety_checker, components.image_processor, job.pictures)
    job.timings["safety"] = time.perf_counter() - start
    if all(job.flagged):
        raise NSFWError("NSFW content detected: the safety checker flagged every image; try another prompt or seed")


def seal(components: Components, job: Job) -> Result:
    """The result of a judged job: the pictures that may be shown, marked. Needs no model: any thread may call it."""
    shown = [i for i, flag in enumerate(job.flagged) if not flag]
    return Result(
        images=[watermark.embed(job.pictures[i]) for i in shown],
        seeds=[job.request.seed + i for i in shown],
        flagged=sum(job.flagged),
        request=job.request,
        model=components.name,
        timings=dict(job.timings),
        tokens=job.tokens,
        truncated=job.truncated,
        batch_rows=job.batch_rows / max(job.done, 1),
    )
