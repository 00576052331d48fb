"""The denoising loop, for any number of requests at once: `prepare`, `step`, `finish`.

Every `step` calls the UNet once for all jobs given, whatever their timesteps, schedulers and guidance; only their
latent size must agree. `generate` is the loop for one request. Image to image begins later and from other latents,
inpainting blends after each step; the denoising is the same. Tensors bear the papers' names: x_t are noisy latents
(Ho et al. 2020, arXiv 2006.11239), eps is what the UNet predicts for them (noise, or v for a v-prediction model).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from jsd import images, safety, watermark
from jsd.memory import give_back_freed_memory
from jsd.request import NaNError, NSFWError, Progress, Request, Result
from jsd.schedulers import make_scheduler, set_timesteps, takes_generator
from jsd.weights import Components

LARGE_PIXELS = 512 * 512  # of a picture whose decoding takes about a gigabyte
BLACK_WHITE = ((0, 0), (255, 255), (0, 255))  # the extremes of a mask that has been fitted


@dataclass
class Source:
    """The picture a job starts from. `mask` is 1 where it is repainted, (1, 1, h, w); None: everywhere."""

    z: torch.Tensor  # (n, c, h, w), its latents
    noise: torch.Tensor  # (n, c, h, w)
    mask: torch.Tensor | None


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
        x_t = _noise(components, request, generators) * scheduler.init_noise_sigma
    else:
        source = make_source(components, request, generators)
        timesteps, x_t = _depart(scheduler, source, request)
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


def _noise(components: Components, request: Request, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Fresh noise in the shape of the request's latents, (n, c, h, w), on the CPU."""
    cell = components.defaults.cell
    shape = (1, components.unet.config.in_channels, request.height // cell, request.width // cell)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


@torch.inference_mode()
def make_source(components: Components, request: Request, generators: Sequence[torch.Generator]) -> Source:
    """The latents of a fitted request's image and mask, and the noise that will cover them.

    From each generator first what the posterior is sampled with, then the noise: as stock diffusers draws them.
    """
    posterior = encode(components, request.image)
    z = posterior.mean.cpu() + posterior.std.cpu() * _noise(components, request, generators)
    mask = None
    if request.mask is not None:
        # A cell that is white anywhere is repainted whole; `finish` puts back the pixels that are not.
        white = torch.from_numpy(np.array(request.mask)).float()[None, None] / 255
        mask = torch.nn.functional.max_pool2d(white, components.defaults.cell).to(components.device)
    z = (z * components.vae.config.scaling_factor).to(components.device)
    return Source(z, _noise(components, request, generators).to(components.device), mask)


def fitted(request: Request) -> Request:
    """A resolved request with its image and mask as they are used: RGB, and black or white, both of its size.

    Needs no model and may take a second for a large picture: to be called before a request joins others.
    """
    size = (request.width, request.height)
    image, mask = request.image, request.mask
    if mask is not None and (mask.mode != "L" or mask.size != size or mask.getextrema() not in BLACK_WHITE):
        mask = images.fit(mask.convert("L").resize(image.size, Image.Resampling.NEAREST), size)
        mask = mask.point(lambda value: 255 * (value >= 128))
    if image is not None and (image.mode != "RGB" or image.size != size):
        image = images.fit(images.to_rgb(image), size)
    return replace(request, image=image, mask=mask)


def _depart(scheduler: SchedulerMixin, source: Source, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
    """The timesteps left when the first (1 - prompt_strength) of them are skipped, one at least unless it is 0, and the
    latents to begin with (SDEdit, Meng et al. 2022, arXiv 2108.01073, sec. 3).
    """
    taken = int(request.num_inference_steps * request.prompt_strength)
    taken = max(taken, 1) if request.prompt_strength > 0 else 0
    if not taken:
        return scheduler.timesteps[:0], source.z
    skipped = (request.num_inference_steps - taken) * scheduler.order
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    if request.prompt_strength == 1 and source.mask is not None:
        return timesteps, source.noise * scheduler.init_noise_sigma
    return timesteps, scheduler.add_noise(source.z, source.noise, timesteps[:1])


def _blend(job: Job) -> torch.Tensor:
    """The latents with the source's own, as noisy as the next step expects, where nothing is repainted (Lugmayr et
    al. 2022, arXiv 2201.09865, eq. 8)."""
    kept = job.source.z
    if not job.finished:
        kept = job.scheduler.add_noise(kept, job.source.noise, job.timesteps[job.done : job.done + 1])
    return (1 - job.source.mask) * kept + job.source.mask * job.x_t


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
        job.x_t = _blend(job)
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
        job.pictures = _put_back(components, job.request, job.pictures)
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


@torch.inference_mode()
def encode(components: Components, image: Image.Image) -> DiagonalGaussianDistribution:
    """An RGB picture to the VAE's distribution over its latents, (1, c, h, w), not scaled yet."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    posterior = components.vae.encode(pixels.to(components.device, components.dtype)).latent_dist
    return DiagonalGaussianDistribution(posterior.parameters.float())


def _put_back(components: Components, request: Request, painted: Sequence[Image.Image]) -> list[Image.Image]:
    """The pictures with the VAE's own rendering of the source wherever nothing is repainted: blending its latents
    alone would let what is painted show through for the width of a cell.
    """
    z = encode(components, request.image).mean * components.vae.config.scaling_factor
    (kept,) = decode(components, z)
    return [Image.composite(image, kept, request.mask) for image in painted]


@torch.inference_mode()
def decode(components: Components, x_0: torch.Tensor) -> list[Image.Image]:
    """Latents, (n, c, h, w), to n pictures of h and w times the model's cell. Raises `NaNError`."""
    if not x_0.isfinite().all():
        raise NaNError(
            "the latents became NaN or infinite; try another scheduler, more steps or a lower guidance_scale"
        )
    if x_0.device.type == "cpu" and x_0[0, 0].numel() * components.defaults.cell**2 >= LARGE_PIXELS:
        give_back_freed_memory()
    z = x_0 / components.vae.config.scaling_factor
    pixels = components.vae.decode(z.to(components.dtype), return_dict=False)[0].float()
    if not pixels.isfinite().all() and components.dtype == torch.float16:
        pixels = _decode_in_full(components, z)  # some latents overflow half precision
    if not pixels.isfinite().all():
        raise NaNError("the decoded picture holds NaN or infinite pixels; try another seed, or JSD_DTYPE=fp32")
    pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in (pixels * 255).round().astype(np.uint8)]


def _decode_in_full(components: Components, z: torch.Tensor) -> torch.Tensor:
    """Decode in float32, and leave the VAE as it was."""
    try:
        return components.vae.float().decode(z.float(), return_dict=False)[0]
    finally:
        components.vae.to(components.dtype)
