"""The Cog adapter: turns Cog's inputs into a `Request`, gives it to the engine and writes the pictures as files.

Cog reads the inputs from the text of this file, so choices, defaults and limits are literals. A test compares them with
those of `jsd.request`.
"""

import asyncio
import contextvars
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cog
from cog import BasePredictor, Input, Path
from tqdm import tqdm

from cog_folders import PredictionFolders, leave
from jsd import images, settings
from jsd.errors import InputError, shown
from jsd.request import Progress, Request
from jsd.result import Result


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Load the model and start the engine, once per container. Raises the errors of `settings.load_components`."""
        self.engine = settings.make_engine(on_lost=partial(leave, os.getppid()))
        self.readers = ThreadPoolExecutor(2, "jsd-read")  # large pictures take memory
        self.folders = PredictionFolders()

    def healthcheck(self) -> bool:
        """Whether the engine can still draw pictures. If not, the server ends itself some seconds later."""
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
        image: Path | None = Input(default=None, description="A picture to start from (png, jpeg, webp)."),
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
        steps: int | None = Input(default=None, description="Another name for num_inference_steps.", ge=1, le=500),
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
        """Draw the pictures asked for. Returns one file for each, without those that the safety checker holds back."""
        if None not in (steps, num_inference_steps):
            raise InputError("steps", "is another name for num_inference_steps; give only one of them")
        with self.folders.prediction():
            make_request = partial(
                self._make_request,
                {"image": image, "mask": mask},
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
                prompt_strength=prompt_strength,
            )
            if image is None and mask is None:
                request = make_request()
            else:  # reading and resizing take long
                request = await asyncio.get_running_loop().run_in_executor(self.readers, make_request)
            # When this coroutine is cancelled, so is the engine's future, and the job's rows are free at the next tick.
            result = await asyncio.wrap_future(self.engine.submit(request, _progress_line()))
            return await asyncio.to_thread(self._save, result)

    def _make_request(self, pictures: dict[str, Path | None], **inputs: object) -> Request:
        """Read the pictures from Cog's temporary files, and make the resolved request. Raises `InputError`."""
        for name, path in pictures.items():
            if path is not None and not isinstance(path, os.PathLike):  # Cog hands on any other string as it is
                raise InputError(name, f"{shown(path)} was given; a data URI or the address of a picture is wanted")
            inputs[name] = path and images.read_input(name, path)
        return self.engine.resolve(Request(**inputs))

    def _save(self, result: Result) -> list[Path]:
        """Write the pictures to a new folder and return their paths. Reports figures to Cog's metrics and the log."""
        began = time.perf_counter()
        folder, request = self.folders.new(), result.request
        files = [folder / f"out-{i}.{request.output_format}" for i in range(len(result.images))]
        for i, file in enumerate(files):
            images.save(result.images[i], file, request.output_format, request.output_quality, result.metadata(i))
        encode = time.perf_counter() - began
        for name, value in result.metrics(encode=encode).items():
            self.record_metric(name, value)
        print("\n".join([result.log_line(encode=encode), *result.notes()]))
        return [Path(file) for file in files]


def _progress_line() -> Progress:
    """Return a callback that prints progress into the prediction's log in tqdm's format, for Replicate's clients.

    The engine's thread calls it. It prints in this prediction's context, by which Cog tells whose log a line is for.
    """
    loop, context, began = asyncio.get_running_loop(), contextvars.copy_context(), time.perf_counter()

    def progress(done: int, total: int) -> None:
        loop.call_soon_threadsafe(print, tqdm.format_meter(done, total, time.perf_counter() - began), context=context)

    return progress
