"""The denoising loop for any number of requests at once: `prepare`, `step`, `finish`.

`prepare` makes the `Job` (sampling state) of a request. Each `step` calls the UNet for all given jobs together. They
may differ in timestep, sampler and guidance, but not in latent size and adapter. `generate` runs the loop for one
request. On a GPU a step only queues work, whose numbers lie there since `prepare`. The CPU runs at most one step ahead.
Tensors have the names of the papers: `x_t` are noisy latents (Ho et al. 2020, arXiv 2006.11239), `eps` is the UNet's
prediction for them (the noise, or v for a v-prediction model).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from jsd import safety, watermark
from jsd.device import Fitting, mark, settle
from jsd.errors import InputError, NSFWError, WeightsError
from jsd.job import Job
from jsd.model import Components
from jsd.prompt import read
from jsd.request import Progress, Request
from jsd.result import Result
from jsd.schedule import ROWS, Schedule, advance, make_schedule
from jsd.source import at_size, blend, draw_noise, make_source, put_back, start
from jsd.vae import decode


def generate(
    components: Components, request: Request, progress: Progress | None = None, max_rows: int | None = None
) -> Result:
    """Draw the pictures of one request and return its `Result`. `progress(done, total)` is called after every step.

    A UNet call has at most `max_rows` rows, fewer if memory is short. Raises `InputError` if this model can't draw the
    request, `MemoryShortError`, `NaNError` if numbers overflow, and `NSFWError` if every picture is flagged.
    """
    job, fitting = prepare(components, request), Fitting()
    while not job.finished:
        fitting.call((), min(max_rows or job.rows, job.rows), lambda rows: step(components, [job], rows))
        if progress:
            progress(job.done, job.total)
    return finish(components, job)


def schedule_of(components: Components, request: Request) -> Schedule:
    """Return the schedule of a resolved request. Raises `InputError` if its sampler can't sample this model's noise."""
    strength = request.prompt_strength if request.image is not None else 1.0
    return make_schedule(request.scheduler, components.scheduler_config, request.num_inference_steps, strength)


def resolve(components: Components, request: Request) -> Request:
    """Return a copy of a request with missing settings filled in, its pictures resized and its adapter read.

    Raises `InputError`, and `QueueFullError` if there is no room for the adapter.
    """
    request = at_size(request.resolve(components.defaults))
    if isinstance(request.lora, bytes):
        with _as_input():
            request = replace(request, lora=components.adapters.read(request.lora))
    return request


@contextmanager
def _as_input() -> Iterator[None]:
    """Context manager: a `WeightsError` inside becomes an `InputError` about the request's adapter."""
    try:
        yield
    except WeightsError as error:
        raise InputError("lora", *error.args) from error


@torch.inference_mode()
def prepare(components: Components, request: Request) -> Job:
    """Make the job of a request: encode its text, make its schedule and its start latents. Raises `InputError`."""
    request = resolve(components, request)
    device, pictures = components.device, request.num_outputs
    schedule = schedule_of(components, request)

    began = time.perf_counter()
    texts = [request.prompt] if request.guidance_scale == 1 else [request.negative_prompt, request.prompt]
    ids, reading = read(components.tokenizer, texts)
    with _as_input():
        components.adapters.merge("text_encoder", request.lora, request.lora_scale)
    context = components.text_encoder(torch.tensor(ids, device=device)).last_hidden_state.repeat_interleave(
        pictures, dim=0
    )

    # One generator per picture, on the CPU. So a seed gives the same picture on any device and in any batch.
    generators = [torch.Generator("cpu").manual_seed(request.seed + i) for i in range(pictures)]
    source = None if request.image is None else make_source(components, request, generators)
    x_t = start(components, request, schedule, source, generators)
    state = x_t.new_zeros((pictures, ROWS, *x_t.shape[1:]))
    state[:, 0] = x_t
    low, high = request.guidance_interval
    trained = components.scheduler_config.get("num_train_timesteps", 1000)
    job = Job(
        request=request,
        schedule=schedule,
        steps=schedule.steps.to(device),
        guided=[request.guidance_scale != 1 and low <= t / trained <= high for t in schedule.timesteps],
        generators=generators,
        state=state,
        source=source,
        context=context,
        guidance_scale=torch.full((pictures, 1, 1, 1), request.guidance_scale, device=device),
        reading=reading,
    )
    job.timings["text"] = job.started - began
    return job


@torch.inference_mode()
def step(components: Components, jobs: Sequence[Job], max_rows: int | None = None) -> None:
    """Advance all jobs, in place, by one UNet call, or by several if they have more than `max_rows` samples together.

    No job may be finished, and all must have the same latent size and adapter. If this fails, no job has changed.
    Raises `InputError` if the adapter is too strong for the UNet.
    """
    with _as_input():
        components.adapters.merge("unet", jobs[0].request.lora, jobs[0].request.lora_scale)
    generators = [generator for job in jobs if job.schedule.noise[job.done] for generator in job.generators]
    before = [generator.get_state() for generator in generators]
    try:
        _step(components, jobs, max_rows)
    except BaseException:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
        raise


def _step(components: Components, jobs: Sequence[Job], max_rows: int | None) -> None:
    jobs = sorted(jobs, key=lambda job: not job.guided[job.done])  # so that the pictures with guidance come first
    pictures = [len(job.state) for job in jobs]
    state = torch.cat([job.state for job in jobs])
    numbers = torch.cat([job.steps[job.done].expand(n, -1) for job, n in zip(jobs, pictures, strict=True)])
    weights, t, scale = numbers[:, :-2], numbers[:, -2], numbers[:, -1]
    eps = _predict(components, jobs, state[:, 0] * scale.view(-1, 1, 1, 1), t, max_rows)
    states = advance(weights, state, eps).split(pictures)
    for job, new_state in zip(jobs, states, strict=True):
        if added := job.schedule.noise[job.done]:
            new_state[:, 0] += added * draw_noise(components, job.request, job.generators)
        if job.source is not None and job.source.mask is not None:
            blend(job.source, new_state[:, 0], job.schedule.noised[job.done + 1 : job.done + 2])
    queued = mark(components.device)
    for mark_before in {job.queued for job in jobs if job.queued}:
        mark_before.synchronize()
    rows = sum(job.rows for job in jobs)
    rows = min(rows, max_rows or rows)
    for job, new_state in zip(jobs, states, strict=True):
        job.state, job.queued = new_state, queued
        job.done += 1
        job.batch_rows += rows


def _predict(
    components: Components, jobs: Sequence[Job], x: torch.Tensor, t: torch.Tensor, max_rows: int | None
) -> torch.Tensor:
    """Return eps (the noise, or v) after guidance, float32 (n, c, h, w), for the n pictures of all jobs.

    `x`, (n, c, h, w), is the UNet's input and `t`, (n,), its timesteps. Guidance is eq. 6 of arXiv 2207.12598 with
    guidance_scale = w + 1. The jobs that apply it come first.
    """
    guided = [job for job in jobs if job.guided[job.done]]
    n = sum(len(job.state) for job in guided)
    context = [job.context[: len(job.state)] for job in guided] + [job.context[-len(job.state) :] for job in jobs]
    # Only the UNet computes in the model's precision. The sampler computes in float32.
    x, context = (tensor.to(components.dtype) for tensor in (torch.cat([x[:n], x]), torch.cat(context)))
    t = torch.cat([t[:n], t])
    size = max_rows or len(x)
    calls = zip(x.split(size), t.split(size), context.split(size), strict=True)
    eps = torch.cat([components.unet(*call, return_dict=False)[0].float() for call in calls])
    if guided:
        scale = torch.cat([job.guidance_scale for job in guided])
        eps_negative, eps = eps[:n], eps[n:]
        eps[:n] = eps_negative + scale * (eps[:n] - eps_negative)
    return eps


def finish(components: Components, job: Job) -> Result:
    """Decode a denoised job, check and watermark its pictures. Returns its `Result`. Raises `NaNError`, `NSFWError`."""
    while job.undecoded:
        decode_next(components, [job])
    judge(components, job)
    return seal(components, job)


@torch.inference_mode()
def decode_next(components: Components, jobs: Sequence[Job], count: int = 1) -> None:
    """Decode the next `count` pictures of denoised jobs in one VAE call, and add them to `pixels` of their jobs.

    All jobs must have the same latent size. Raises `NaNError` if latents or pixels are not finite, and changes no job
    then.
    """
    todo = [(job, i) for job in jobs for i in range(len(job.pixels), len(job.state))][:count]
    latents = torch.stack([job.x_t[i] for job, i in todo])
    settle(components.device)  # the queued steps belong to the denoising
    began = time.perf_counter()
    pixels = decode(components, latents)
    settle(components.device)
    seconds = time.perf_counter() - began
    for job in {job for job, _ in todo}:
        if not job.pixels:
            job.timings["denoise"] = began - job.started
        job.timings["decode"] += seconds
    for (job, _), picture in zip(todo, pixels, strict=True):
        job.pixels.append(picture)


@torch.inference_mode()
def judge(components: Components, job: Job) -> None:
    """Restore the source's pixels where they are kept, let the safety checker flag the pictures of a job, and write the
    watermark into the others.

    Raises `NSFWError` if every picture is flagged. An error of the checker is raised too, so no picture is shown
    unchecked.
    """
    began = time.perf_counter()
    if job.request.image is not None:
        job.pixels = put_back(job.request, job.pixels)
        job.timings["decode"] += time.perf_counter() - began
    began = time.perf_counter()
    job.flagged = [False] * len(job.pixels)
    if components.safety_checker is not None:
        job.flagged = safety.check(components.safety_checker, components.image_processor, torch.stack(job.pixels))
    job.timings["safety"] = time.perf_counter() - began
    if all(job.flagged):
        raise NSFWError("NSFW content detected: the safety checker flagged every image; try another prompt or seed")
    shown = [picture for picture, flag in zip(job.pixels, job.flagged, strict=True) if not flag]
    job.pixels = list(watermark.mark(torch.stack(shown)))


def seal(components: Components, job: Job) -> Result:
    """Return the `Result` of a job that `judge` has checked: the pictures that are not flagged.

    Calls no model, so it can run on another thread.
    """
    return Result(
        images=job.pictures,
        seeds=[job.request.seed + i for i, flag in enumerate(job.flagged) if not flag],
        flagged=sum(job.flagged),
        request=job.request,
        model=components.name,
        timings=dict(job.timings),
        batch_rows=job.batch_rows / max(job.done, 1),
        **job.reading,
        own_size=(components.defaults.width, components.defaults.height),
    )
