"""The denoising loop, for any number of requests at once: `prepare`, `step`, `finish`.

Every `step` calls the UNet once for all jobs given, whatever their timesteps, schedulers and guidance; only their
latent size must agree. `generate` is the loop for one request. Tensors bear the papers' names: x_t are noisy latents
(Ho et al. 2020, arXiv 2006.11239), eps is what the UNet predicts for them (noise, or v for a v-prediction model).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import SchedulerMixin
from PIL import Image

from jsd import safety, watermark
from jsd.request import NaNError, NSFWError, Request, Result
from jsd.schedulers import make_scheduler, set_timesteps, takes_generator
from jsd.weights import Components

Progress = Callable[[int, int], None]  # (UNet calls done, UNet calls in all)


@dataclass
class Job:
    """A request on its way. n images; c, h, w the latent's channels, height and width."""

    request: Request  # resolved
    scheduler: SchedulerMixin  # this job's own: schedulers keep state
    generators: list[torch.Generator]  # one an image, on the CPU: an image does not depend on its batch mates
    x_t: torch.Tensor  # (n, c, h, w), float32
    context: torch.Tensor  # (rows, tokens, width): text rows, those of the negative prompt first
    tokens: int
    truncated: int
    done: int = 0  # UNet calls
    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("queue", "text", "denoise", "decode", "safety"), 0.0)
    )

    @property
    def total(self) -> int:
        """UNet calls from start to end."""
        return len(self.scheduler.timesteps)

    @property
    def finished(self) -> bool:
        return self.done >= self.total


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
    """Text, scheduler and start latents of a request (resolved here if it is not yet)."""
    request = request.resolve(components.defaults)
    scheduler = make_scheduler(request.scheduler, components.scheduler_config)
    set_timesteps(scheduler, request.num_inference_steps)

    start = time.perf_counter()
    texts = [request.prompt] if request.guidance_scale == 1 else [request.negative_prompt, request.prompt]
    tokens = [components.tokenizer(text) for text in texts]
    context = encode_text(components, [t.ids for t in tokens]).repeat_interleave(request.num_outputs, dim=0)

    # Drawn on the CPU, one generator an image: the same seed is the same picture on any device, alone or in company.
    generators = [torch.Generator("cpu").manual_seed(request.seed + i) for i in range(request.num_outputs)]
    cell = components.defaults.cell
    shape = (1, components.unet.config.in_channels, request.height // cell, request.width // cell)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    job = Job(
        request=request,
        scheduler=scheduler,
        generators=generators,
        x_t=(noise * scheduler.init_noise_sigma).to(components.device),
        context=context,
        tokens=tokens[-1].used,
        truncated=sum(t.dropped for t in tokens),
    )
    job.timings["text"] = job.started - start
    return job


@torch.inference_mode()
def encode_text(components: Components, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Token ids, (rows, tokens), to what the UNet attends to, (rows, tokens, width)."""
    input_ids = torch.tensor(ids, device=components.device)
    return components.text_encoder(input_ids).last_hidden_state


def step(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> None:
    """Take one UNet call of every job: all of equal latent size, none finished. See `predict` for `max_rows`."""
    for job, eps in zip(jobs, predict(components, jobs, max_rows), strict=True):
        advance(job, eps)


@torch.inference_mode()
def predict(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> list[torch.Tensor]:
    """What the UNet sees in every job's latents, guidance applied: a (n, c, h, w) float32 tensor a job.

    One UNet call for all, or as few as keep each within `max_rows` rows. Changes no job: it may be tried again.
    """
    x, t, context = [], [], []
    for job in jobs:
        t_job = job.scheduler.timesteps[job.done]
        x_job = job.scheduler.scale_model_input(job.x_t, t_job)
        rows = len(job.context)
        x.append(x_job.repeat(rows // len(x_job), 1, 1, 1))
        t.append(t_job.float().expand(rows))
        context.append(job.context)
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
    return [_guide(eps_job, job) for eps_job, job in zip(eps.split([len(j.context) for j in jobs]), jobs, strict=True)]


def _guide(eps: torch.Tensor, job: Job) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, eq. 6, with w + 1 called the scale)."""
    if len(eps) == len(job.x_t):
        return eps
    eps_negative, eps_prompt = eps.chunk(2)
    return eps_negative + job.request.guidance_scale * (eps_prompt - eps_negative)


@torch.inference_mode()
def advance(job: Job, eps: torch.Tensor) -> None:
    """From x_t to the next latents, by the job's own scheduler and its own noise."""
    noise = {"generator": job.generators} if takes_generator(job.scheduler) else {}
    t = job.scheduler.timesteps[job.done]
    job.x_t = job.scheduler.step(eps, t, job.x_t, return_dict=False, **noise)[0]
    job.done += 1
    if job.finished:
        job.timings["denoise"] = time.perf_counter() - job.started


@torch.inference_mode()
def finish(components: Components, job: Job, cancelled: Callable[[], bool] = lambda: False) -> Result:
    """Latents to pictures: decoded, checked, marked. Asks `cancelled` before each picture.

    Raises `CancelledError` when it says so, `NaNError` if the latents or pixels are not finite, `NSFWError` if the
    safety checker flags every picture, and whatever the checker raises: it fails closed.
    """
    start = time.perf_counter()
    images = []
    for x_0 in job.x_t:  # one at a time bounds the memory
        if cancelled():
            raise CancelledError
        images.append(decode(components, x_0))
    job.timings["decode"] = time.perf_counter() - start

    start = time.perf_counter()
    flagged = [False] * len(images)
    if components.safety_checker is not None:
        flagged = safety.check(components.safety_checker, components.image_processor, images)
    job.timings["safety"] = time.perf_counter() - start
    if all(flagged):
        raise NSFWError("NSFW content detected: the safety checker flagged every image; try another prompt or seed")

    shown = [i for i, flag in enumerate(flagged) if not flag]
    return Result(
        images=[watermark.embed(images[i]) for i in shown],
        seeds=[job.request.seed + i for i in shown],
        flagged=sum(flagged),
        request=job.request,
        model=components.name,
        timings=dict(job.timings),
        tokens=job.tokens,
        truncated=job.truncated,
    )


@torch.inference_mode()
def decode(components: Components, x_0: torch.Tensor) -> Image.Image:
    """One image's latents, (c, h, w), to a picture of h and w times the model's cell. Raises `NaNError`."""
    if not x_0.isfinite().all():
        raise NaNError(
            "the latents became NaN or infinite; try another scheduler, more steps or a lower guidance_scale"
        )
    z = x_0[None] / components.vae.config.scaling_factor
    pixels = components.vae.decode(z.to(components.dtype), return_dict=False)[0][0].float()
    if not pixels.isfinite().all():
        raise NaNError("the decoded picture holds NaN or infinite pixels; try another seed, or JSD_DTYPE=fp32")
    pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray((pixels * 255).round().astype(np.uint8))
