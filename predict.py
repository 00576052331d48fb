"""The Cog adapter: typed inputs -> `Request` -> engine -> files. Nothing else lives here.

Cog reads the inputs from this file's text, so choices, defaults and limits are literals; a test holds them equal to
those of `jsd.request`.
"""

import asyncio
import contextvars
import os
import signal
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path as LocalPath

import cog
import coglet
import PIL.Image
from cog import BasePredictor, Input, Path
from tqdm import tqdm

from jsd import images, settings
from jsd.request import InputError, Progress, Request, Result, shown
from jsd.temporary import TemporaryFolders

LEAVE_SECONDS = 5  # for answers to go out, and health checks to be answered


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Load the model and start the engine. Raises `WeightsError` or `SettingError`, naming the file or setting."""
        self.engine = settings.make_engine(on_lost=partial(_leave, os.getppid()))
        self.reading = asyncio.Semaphore(2)
        self.folders = TemporaryFolders()

    def healthcheck(self) -> bool:
        """Whether pictures can be drawn. When they can't any more, the server ends some seconds later."""
        return self.engine.lost is None

    @cog.concurrent(max=32)
    async def predict(
        self,
        prompt: str = Input(
            default="サラリーマン 油絵",
            description="What the picture shows, in Japanese, e.g. 猫の肖像画 油絵",
            min_length=1,
            max_length=2000,
        ),
        negative_prompt: str = Input(
            default="",
            description="What the picture must not show. Has no effect when guidance_scale is 1.",
            max_length=2000,
        ),
        image: Path | None = Input(
            default=None,
            description="A picture to start from (png, jpeg, webp).",
        ),
        mask: Path | None = Input(
            default=None,
            description="Where to repaint `image`: white is repainted, black kept. Needs image.",
        ),
        prompt_strength: float = Input(
            default=0.8,
            description="How far to depart from `image`: 0 not at all, 1 wholly. Needs image.",
            ge=0,
            le=1,
        ),
        width: int | None = Input(
            default=None,
            description="Width in pixels, a multiple of the model's latent cell. Left out: image's or the model's own.",
            ge=64,
            le=1024,
        ),
        height: int | None = Input(
            default=None,
            description="Height in pixels; width x height may be 1048576 at most. Left out: as for width.",
            ge=64,
            le=1024,
        ),
        num_outputs: int = Input(default=1, description="How many pictures.", ge=1, le=8),
        num_inference_steps: int | None = Input(
            default=None,
            description="How many denoising steps. Left out: the model's own.",
            ge=1,
            le=500,
        ),
        steps: int | None = Input(
            default=None,
            description="Another name for num_inference_steps.",
            ge=1,
            le=500,
        ),
        guidance_scale: float | None = Input(
            default=None,
            description="How closely to follow the prompt; 1: no guidance, half the work. Left out: the model's own.",
            ge=1,
            le=20,
        ),
        scheduler: str | None = Input(
            default=None,
            description="The sampler. Left out: the model's own.",
            choices=[
                "DDIM",
                "K_LMS",
                "PNDM",
                "K_EULER",
                "K_EULER_ANCESTRAL",
                "K_HEUN",
                "DPM_SOLVER_PP_2M_KARRAS",
                "UNI_PC",
                "LCM",
            ],
        ),
        seed: int | None = Input(
            default=None,
            description="Same seed, same picture; picture i has seed + i. Left out: drawn at random, and recorded.",
            ge=0,
            le=9223372036854775807,
        ),
        output_format: str = Input(
            default="png",
            description="The file format of the pictures.",
            choices=["png", "jpg", "webp"],
        ),
        output_quality: int = Input(
            default=90,
            description="The quality of jpg and webp files; png is lossless.",
            ge=1,
            le=100,
        ),
    ) -> list[Path]:
        """Draw the prompt: one file a picture, those the safety checker holds back left out."""
        if None not in (steps, num_inference_steps):
            raise InputError("steps", "is another name for num_inference_steps; give only one of them")
        with self.folders.prediction():
            request = Request(
                prompt=prompt,
                negative_prompt=negative_prompt,
                width=width,
                height=height,
                num_outputs=num_outputs,
                num_inference_steps=steps if num_inference_steps is None else num_inference_steps,
                guidance_scale=guidance_scale,
                scheduler=scheduler,
                seed=seed,
                output_format=output_format,
                output_quality=output_quality,
                image=await self._read("image", image),
                mask=await self._read("mask", mask),
                prompt_strength=prompt_strength,
            )
            # Cancelling this coroutine cancels the engine's future, which frees the job's rows by the next tick.
            result = await asyncio.wrap_future(await self._submit(request))
            return await asyncio.to_thread(self._save, result)

    async def _read(self, name: str, path: Path | None) -> PIL.Image.Image | None:
        """The picture Cog has put into a temporary file; two at a time, because large ones take memory."""
        if path is None:
            return None
        if not isinstance(path, LocalPath):  # Cog hands on any other string as it is: a path of this machine, say
            raise InputError(name, f"{shown(path)} was given; a data URI or the address of a picture is wanted")
        async with self.reading:
            reading = asyncio.ensure_future(asyncio.to_thread(images.read_input, name, path))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                await asyncio.wait([reading])  # it can't be stopped, and is one of two until it has ended
                raise

    async def _submit(self, request: Request) -> Future[Result]:
        """The engine's future for a request, given to it on a thread because fitting a large picture takes long."""
        submitting = asyncio.ensure_future(asyncio.to_thread(self.engine.submit, request, _progress_line()))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            # It can't be stopped, and nobody else would cancel what it brings.
            submitting.add_done_callback(lambda done: done.exception() or done.result().cancel())
            raise

    def _save(self, result: Result) -> list[Path]:
        """Files in a folder of this prediction alone, and everything worth knowing as metrics and in the log."""
        start = time.perf_counter()
        folder = self.folders.new()
        request = result.request
        paths = [
            images.save(
                image,
                folder / f"out-{i}.{request.output_format}",
                request.output_format,
                request.output_quality,
                images.metadata(result, i),
            )
            for i, image in enumerate(result.images)
        ]
        facts = {
            "seeds": result.seeds,
            "model": result.model,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "guidance_interval": list(request.guidance_interval),
            "scheduler": request.scheduler,
            "batch_rows": round(result.batch_rows, 2),
            "tokens": result.tokens,
            "truncated_tokens": result.truncated,
            "flagged": result.flagged,
            "timings": {
                name: round(seconds, 4)
                for name, seconds in {**result.timings, "encode": time.perf_counter() - start}.items()
            },
        }
        for name, value in facts.items():
            self.record_metric(name, value)
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        if result.truncated:
            print(f"prompt, negative_prompt: too long, together their last {result.truncated} tokens were left out")
        if result.flagged:
            print(f"NSFW content detected: {result.flagged} of {request.num_outputs} pictures were left out")
        return [Path(path) for path in paths]


def _progress_line() -> Progress:
    """A callback for the engine's thread that prints tqdm-shaped lines, which Replicate's clients read, into the log
    of the prediction that asked: Cog tells predictions apart by context."""
    loop, context, start = asyncio.get_running_loop(), contextvars.copy_context(), time.perf_counter()

    def progress(done: int, total: int) -> None:
        line = tqdm.format_meter(done, total, time.perf_counter() - start)
        loop.call_soon_threadsafe(print, line, context=context)

    return progress


def _leave(server: int, error: Exception) -> None:
    """End the server, process `server`: nothing can be drawn any more, and whoever started it can start it again.

    Cog's server would outlive this process, which is its worker, and answer 409 for ever.
    """
    print(f"nothing can be drawn any more ({error}): this server ends in {LEAVE_SECONDS} seconds", flush=True)
    for number in (signal.SIGTERM, signal.SIGKILL) if coglet.server.active else ():
        time.sleep(LEAVE_SECONDS)
        if os.getppid() == server:
            os.kill(server, number)
