"""The Cog adapter: turns Cog's inputs into a `Request`, gives it to the engine and writes the pictures as files.

Cog reads the inputs from the text of this file, so choices, defaults and limits are literals. A test compares them with
those of `jsd.request`. Each description is one literal, in English and Japanese, since Cog joins no parts.
"""
# ruff: noqa: E501

import asyncio
import contextlib
import contextvars
import io
import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import cog
from cog import BasePredictor, Input, Path

from jsd import images, settings
from jsd.errors import InputError
from jsd.language import english
from jsd.request import Request
from serving.folders import PredictionFolders
from serving.memory import use_heaps
from serving.pictures import fetch
from serving.progress import progress_line
from serving.slots import Slots, end_server

if TYPE_CHECKING:  # it imports torch, for which `settings.make_engine` prepares first
    from jsd.result import Result


os.environ.setdefault("JSD_LANG", "en")  # a server's language is a setting, whatever the locale is


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Load the model and start the engine, once per container. Raises the errors of `settings.load_components`."""
        use_heaps()
        self.addresses, watched = settings.input_urls(), settings.metrics_address()
        self.slots = Slots(partial(end_server, os.getppid()))
        self.engine = settings.make_engine(
            lambda error: self.slots.end(f"nothing can be drawn any more ({english(error)})")
        )
        if watched:
            from serving.metrics import Metrics

            self.metrics = Metrics(self.engine, watched)
        self.readers = ThreadPoolExecutor(2, "jsd-read")  # large pictures take memory
        self.loras = asyncio.Semaphore(4)  # their files wait in memory until they are read
        self.writers = ThreadPoolExecutor(4, "jsd-write")
        self.folders = PredictionFolders()

    def healthcheck(self) -> bool:
        """Return True, or raise `ServerEndsError` with the reason, which Cog's health answer quotes."""
        self.slots.check()
        return True

    @cog.concurrent(max=32)
    async def predict(
        self,
        prompt: str = Input(
            default="サラリーマン 油絵",
            description="What to draw, in Japanese. Weights such as (猫:1.3) are ignored. / 描きたいものを日本語で。例: 青い背景の猫 油絵。(猫:1.3) のような重み付けは無視します。",
            min_length=1,
            max_length=2000,
        ),
        negative_prompt: str = Input(
            default="",
            description="What not to draw. Has no effect when guidance_scale is 1. / 描きたくないもの。例: 白黒。guidance_scale が 1 のときは効きません。",
            max_length=2000,
        ),
        image: Path | None = Input(
            default=None, description="A picture to start from (png, jpeg, webp). / 元にする画像(png、jpeg、webp)。"
        ),
        mask: Path | None = Input(
            default=None,
            description="Where to repaint image: white is repainted, black kept, grey mixed. Needs image. / 描き直す場所。白は描き直し、黒は残し、灰色は混ぜます。image が必要です。",
        ),
        prompt_strength: float = Input(
            default=0.8,
            description="How far to depart from image: 0 not at all, 1 wholly. Needs image. / image からどれだけ変えるか。0 は元のまま、1 は全面的に描き直します。image が必要です。",
            ge=0,
            le=1,
        ),
        width: int | None = Input(
            default=None,
            description="Width in pixels, a multiple of the model's latent cell. Left out: the model and image decide. / 幅(ピクセル)。モデルの潜在変数 1 マス分(通常は 8)の倍数。省略時はモデルと image から決まります。",
            ge=64,
            le=1024,
        ),
        height: int | None = Input(
            default=None,
            description="Height in pixels; width x height may be 1048576 at most. Left out: as for width. / 高さ(ピクセル)。width x height は 1048576 まで。省略時は width と同様です。",
            ge=64,
            le=1024,
        ),
        num_outputs: int = Input(default=1, description="How many pictures. / 生成する枚数。", ge=1, le=8),
        num_inference_steps: int | None = Input(
            default=None,
            description="How many denoising steps. Left out: the model's own. / ステップ数。省略時はモデルの既定値。",
            ge=1,
            le=500,
        ),
        steps: int | None = Input(
            default=None,
            description="Another name for num_inference_steps. / num_inference_steps の別名。",
            ge=1,
            le=500,
        ),
        guidance_scale: float | None = Input(
            default=None,
            description="How closely to follow the prompt; 1: no guidance, half the work. Left out: the model's own. / プロンプトにどれだけ従うか。1 はガイダンスなしで、計算量が半分になります。省略時はモデルの既定値。",
            ge=1,
            le=20,
        ),
        scheduler: str | None = Input(
            default=None,
            description="The sampler. Left out: the model's own. / サンプラー。省略時はモデルの既定値。",
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
            description="Same seed, same picture; picture i has seed + i. For a random one leave it out (no -1). / 乱数のシード。同じ値なら同じ画像になり、i 枚目は seed + i です。ランダムにするには省略します(-1 は不可)。",
            ge=0,
            le=9007199254740991,
        ),
        lora: Path | None = Input(
            default=None,
            description="An adapter to draw with: a LoRA for this model (.safetensors). / 使用する LoRA(このモデル用の .safetensors ファイル)。",
        ),
        lora_scale: float = Input(
            default=1,
            description="How strongly lora changes the model; 0 not at all. Needs lora. / LoRA の強さ。0 なら効果なし。lora が必要です。",
            ge=-2,
            le=2,
        ),
        output_format: str = Input(
            default="png",
            description="The file format of the pictures; jpeg is jpg. / 画像のファイル形式。jpeg は jpg と同じです。",
            choices=["png", "jpg", "jpeg", "webp"],
        ),
        output_quality: int = Input(
            default=90,
            description="The quality of jpg and webp files; png is lossless. / jpg と webp の画質。png は無劣化です。",
            ge=1,
            le=100,
        ),
    ) -> list[Path]:
        """Draw the pictures asked for. Returns one file for each, without those that the safety checker holds back."""
        if None not in (steps, num_inference_steps):
            raise InputError("steps", "is another name for num_inference_steps; give only one of them")
        with self.slots.prediction(), self.folders.prediction():
            inputs = {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "width": width,
                "height": height,
                "num_outputs": num_outputs,
                "num_inference_steps": steps if num_inference_steps is None else num_inference_steps,
                "guidance_scale": guidance_scale,
                "scheduler": scheduler,
                "seed": seed,
                "output_format": output_format,
                "output_quality": output_quality,
                "prompt_strength": prompt_strength,
                "lora_scale": lora_scale,
            }
            async with self.loras if lora else contextlib.nullcontext():
                request = await self._with_files(inputs, {"image": image, "mask": mask, "lora": lora})
            # When this coroutine is cancelled, so is the engine's future, and the job's rows are free at the next tick.
            result = await asyncio.wrap_future(self.engine.submit(request, progress_line()))
            save = partial(contextvars.copy_context().run, self._save, result)  # the log and metrics are by context
            return await asyncio.get_running_loop().run_in_executor(self.writers, save)

    async def _with_files(self, inputs: dict[str, Any], uris: dict[str, str | None]) -> Request:
        """Fetch the files, and return the resolved request with them. "" means none. Raises `InputError`."""
        files = {name: await fetch(name, uri, self.addresses) for name, uri in uris.items() if uri}

        def resolve() -> Request:
            read = {n: data if n == "lora" else images.read_input(n, io.BytesIO(data)) for n, data in files.items()}
            return self.engine.resolve(Request.from_dict(inputs | read))

        # It may take long, and requests without pictures don't wait for those with some.
        return await asyncio.get_running_loop().run_in_executor(self.readers if files else None, resolve)

    def _save(self, result: "Result") -> list[Path]:
        """Write the pictures to a new folder and return their paths. Reports figures to Cog's metrics and the log."""
        began = time.perf_counter()
        folder, request = self.folders.new(), result.request
        # Uploaded files (--upload-url) go by their names, so no two may share one.
        files = [folder / f"{uuid.uuid4().hex}-{i}.{request.output_format}" for i in range(len(result.images))]
        try:
            for i, file in enumerate(files):
                images.save(result.images[i], file, request.output_format, request.output_quality, result.metadata(i))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # the disk may be full
            raise
        encode = time.perf_counter() - began
        for name, value in result.metrics(encode=encode).items():
            self.record_metric(name, value)
        print("\n".join([result.log_line(encode=encode), *map(english, result.notes())]))
        return [Path(file) for file in files]


# Cog fetches what is annotated as a Path at run time, without limits. `fetch` has some, so it gets the URIs. Cog's
# parser reads the text above.
Predictor.predict.__annotations__ |= dict.fromkeys(("image", "mask", "lora"), str | None)
