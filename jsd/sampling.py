"""The denoising loop for any number of requests at once: `prepare`, `step`, `finish`.

`prepare` makes the `Job` (sampling state) of a request. Each `step` calls the UNet for all given jobs together. They
may differ in timestep, scheduler and guidance, but not in latent size. `generate` runs the loop for one request.
Tensors have the names of the papers: `x_t` are noisy latents (Ho et al. 2020, arXiv 2006.11239), `eps` is the UNet's
prediction for them (the noise, or v for a v-prediction model).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from diffusers import SchedulerMixin
from PIL import Image

from jsd import safety, watermark
from jsd.errors import NSFWError
from jsd.model import Components
from jsd.request import Progress, Request
from jsd.result import Result
from jsd.schedulers import make_scheduler, set_timesteps, takes_generator
from jsd.source import Source, at_size, blend, draw_noise, make_source, put_back, start
from jsd.vae import decode

STAGES = ("queue", "text", "denoise", "decode", "safety")


@dataclass(eq=False)
class Job:
    """The sampling state of one request: n pictures, whose latents have c channels, height h and width w."""

    request: Request  # resolved
    scheduler: SchedulerMixin  # schedulers keep state, so each job has its own
    generators: list[torch.Generator]  # one per picture, on the CPU, so that a picture does not depend on others
    timesteps: torch.Tensor  # one per UNet call; image to image skips the scheduler's first ones
    x_t: torch.Tensor  # (n, c, h, w), float32
    source: Source | None
    context: torch.Tensor  # text embeddings, (rows, tokens, width); the rows of the negative prompt come first
    tokens: int  # of the prompt, as used
    truncated: int  # tokens cut off from prompt and negative prompt
    done: int = 0  # UNet calls so far
    batch_rows: int = 0  # the sum of the rows of these calls, those of other jobs included
    pictures: list[Image.Image] = field(default_factory=list)  # the decoded ones
    flagged: list[bool] = field(default_factory=list)  # by the safety checker, one flag per picture
    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))  # seconds

    @property
    def total(self) -> int:
        """The number of UNet calls of this job from the first step to the last."""
        return len(self.timesteps)

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    @property
    def guided(self) -> bool:
        """Whether the next UNet call applies guidance, and so has two samples per picture instead of one."""
        noise_level = float(self.timesteps[self.done]) / self.scheduler.config.num_train_timesteps
        low, high = self.request.guidance_interval
        return self.request.guidance_scale != 1 and low <= noise_level <= high

    @property
    def next_context(self) -> torch.Tensor:
        """The text embeddings, (rows, tokens, width), for the next UNet call. With guidance, two rows per picture."""
        return self.context if self.guided else self.context[-len(self.x_t) :]

    @property
    def undecoded(self) -> int:
        """The number of this job's pictures that are not decoded yet."""
        return len(self.x_t) - len(self.pictures)


def generate(
    components: Components, request: Request, progress: Progress | None = None, max_rows: int | None = None
) -> Result:
    """Draw the pictures of one request and return its `Result`. `progress(done, total)` is called after every step.

    A UNet call has at most `max_rows` rows. Raises `InputError` if this model can't draw the request, `NaNError` if
    the numbers overflow, and `NSFWError` if the safety checker flags every picture.
    """
    job = prepare(components, request)
    while not job.finished:
        step(components, [job], max_rows)
        if progress:
            progress(job.done, job.total)
    return finish(components, job)


@torch.inference_mode()
def prepare(components: Components, request: Request) -> Job:
    """Make the job of a request: encode its text, make its scheduler, make its start latents. Raises `InputError`."""
    request = at_size(request.resolve(components.defaults))
    scheduler = make_scheduler(request.scheduler, components.scheduler_config)
    set_timesteps(scheduler, request.num_inference_steps)

    began = time.perf_counter()
    texts = [request.prompt] if request.guidance_scale == 1 else [request.negative_prompt, request.prompt]
    tokens = [components.tokenizer(text) for text in texts]
    ids = torch.tensor([t.ids for t in tokens], device=components.device)
    context = components.text_encoder(ids).last_hidden_state.repeat_interleave(request.num_outputs, dim=0)

    # One generator per picture, on the CPU. So a seed gives the same picture on any device and in any batch.
    generators = [torch.Generator("cpu").manual_seed(request.seed + i) for i in range(request.num_outputs)]
    if request.image is None:
        source, timesteps = None, scheduler.timesteps
        x_t = draw_noise(components, request, generators) * scheduler.init_noise_sigma
    else:
        source = make_source(components, request, generators)
        timesteps, x_t = start(scheduler, source, request)
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
    job.timings["text"] = job.started - began
    return job


def step(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> None:
    """Advance all jobs, in place, by one UNet call, or by several if they have more than `max_rows` samples together.

    No job may be finished, and all must have the same latent size.
    """
    rows = sum(len(job.next_context) for job in jobs)
    rows = min(rows, max_rows or rows)
    for job, eps in zip(jobs, predict(components, jobs, max_rows), strict=True):
        advance(job, eps, rows)


@torch.inference_mode()
def predict(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> list[torch.Tensor]:
    """Predict eps (the noise, or v) for every job, with guidance. Returns one float32 tensor (n, c, h, w) per job.

    All jobs share one UNet call, which is split if they have more than `max_rows` samples together. No job is changed,
    so a failed call can be repeated.
    """
    x, t, context = [], [], [job.next_context for job in jobs]
    rows = [len(states) for states in context]
    for job, job_rows in zip(jobs, rows, strict=True):
        t_job = job.timesteps[job.done]
        x_job = job.scheduler.scale_model_input(job.x_t, t_job)
        x.append(x_job.repeat(job_rows // len(x_job), 1, 1, 1))
        t.append(t_job.float().expand(job_rows))
    x, t, context = torch.cat(x), torch.cat(t), torch.cat(context)
    # Only the UNet computes in the model's precision. The sampler computes in float32.
    x, t = x.to(components.dtype), t.to(components.device)
    size = max_rows or len(x)
    calls = zip(x.split(size), t.split(size), context.split(size), strict=True)
    eps = torch.cat([components.unet(*call, return_dict=False)[0] for call in calls]).float()
    return [_guide(eps_job, job) for eps_job, job in zip(eps.split(rows), jobs, strict=True)]


def _guide(eps: torch.Tensor, job: Job) -> torch.Tensor:
    """Return eps after guidance (arXiv 2207.12598, eq. 6; guidance_scale is w + 1), or unchanged without guidance."""
    if len(eps) == len(job.x_t):
        return eps
    eps_negative, eps_prompt = eps.chunk(2)
    return eps_negative + job.request.guidance_scale * (eps_prompt - eps_negative)


@torch.inference_mode()
def advance(job: Job, eps: torch.Tensor, rows: int) -> None:
    """Advance a job, in place, by one step of its scheduler. With a mask, `blend` then restores what the mask keeps.

    `eps` is what `predict` returned for the job, `rows` the number of samples in that UNet call (for `batch_rows`).
    """
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
    """Decode a denoised job, check and watermark its pictures. Returns its `Result`. Raises `NaNError`, `NSFWError`."""
    while job.undecoded:
        decode_next(components, [job])
    judge(components, job)
    return seal(components, job)


@torch.inference_mode()
def decode_next(components: Components, jobs: Sequence[Job], count: int = 1) -> None:
    """Decode the next `count` pictures of denoised jobs in one VAE call, and add them to `pictures` of their jobs.

    All jobs must have the same latent size. Raises `NaNError` if latents or pixels are not finite, and changes no job
    then.
    """
    began = time.perf_counter()
    todo = [(job, i) for job in jobs for i in range(len(job.pictures), len(job.x_t))][:count]
    pictures = decode(components, torch.stack([job.x_t[i] for job, i in todo]))
    seconds = time.perf_counter() - began
    for (job, _), picture in zip(todo, pictures, strict=True):
        job.pictures.append(picture)
    for job in {job for job, _ in todo}:
        job.timings["decode"] += seconds


def judge(components: Components, job: Job) -> None:
    """Restore the source's pixels where they are kept, then let the safety checker flag the pictures of a job.

    Raises `NSFWError` if every picture is flagged. An error of the checker is raised too, so no picture is shown
    unchecked.
    """
    began = time.perf_counter()
    if job.request.image is not None:
        job.pictures = put_back(job.request, job.pictures)
        job.timings["decode"] += time.perf_counter() - began
    began = time.perf_counter()
    job.flagged = [False] * len(job.pictures)
    if components.safety_checker is not None:
        job.flagged = safety.check(components.safety_checker, components.image_processor, job.pictures)
    job.timings["safety"] = time.perf_counter() - began
    if all(job.flagged):
        raise NSFWError("NSFW content detected: the safety checker flagged every image; try another prompt or seed")


def seal(components: Components, job: Job) -> Result:
    """Return the `Result` of a job that `judge` has checked: the pictures that are not flagged, with the watermark.

    Calls no model, so it can run on another thread.
    """
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
        own_size=(components.defaults.width, components.defaults.height),
    )
