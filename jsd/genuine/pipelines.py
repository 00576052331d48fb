"""The Python API of 2022 on today's diffusers: thin subclasses of its pipelines.

    from jsd import JapaneseStableDiffusionPipeline

    pipe = JapaneseStableDiffusionPipeline.from_pretrained("rinna/japanese-stable-diffusion", use_auth_token=True)
    pipe("猫の肖像画 油絵")["sample"][0].save("output.png")

Adapters, callbacks, offloading, prompt embeddings and so on work as in diffusers (docs/pipelines.md). Four things
differ: the model is loaded by `jsd.model` (safetensors only, verified where there is a manifest), a repository on the
hub is fetched and converted once, sentencepiece itself reads the Japanese tokenizer, and PIL pictures carry the
invisible watermark. A prompt is taken as it is: the syntax of other tools stays in it, because programs such as compel
expect that, and unknown characters are not counted.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Self

import torch
from diffusers import (
    SchedulerMixin,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from jsd import watermark
from jsd.atomic import give_usual_permissions
from jsd.errors import InputError
from jsd.genuine.calls import View, inputs_of
from jsd.genuine.loading import device_of, find, open_verified, types_of
from jsd.genuine.saving import name_for_diffusers, save_pipeline
from jsd.genuine.tokenizer import PipelineTokenizer
from jsd.genuine.unverified import open_unverified
from jsd.language import Text
from jsd.manifest import MANIFEST
from jsd.schedulers import LinearMultistepScheduler, LMSDiscreteScheduler, check_noise

P = ParamSpec("P")
# What the documentation of each pipeline's call begins with.
CALL = """Draw pictures, as diffusers' pipeline does. `init_image` is an older name of `image`.

PIL pictures may have any mode. A PIL `image` is drawn at its own size, rounded down to whole latents, unless `width`
and `height` are given to inpainting: code of 2022 scales its pictures itself. As in diffusers, what a mask keeps comes
back as the autoencoder renders it.

Returns a `JapaneseStableDiffusionPipelineOutput`, or a tuple with `return_dict=False`. PIL pictures carry the watermark
if they have at least 256 x 256 pixels. Raises `InputError` if a picture can't be decoded, or if `strength` leaves no
step. The documentation of diffusers follows.
"""


@dataclass
class JapaneseStableDiffusionPipelineOutput(StableDiffusionPipelineOutput):
    """The pictures in `images`, and one flag per picture in `nsfw_content_detected`, None without a safety checker.

    `output["sample"]`, the name of 2022, is the same as `output["images"]`.
    """

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__("images" if key == "sample" else key)


class _Japanese:
    """What the three pipelines share: `from_pretrained`, which loads a model, and a call that watermarks pictures."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        scheduler: SchedulerMixin | None = None,
        use_auth_token: bool | str | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        dtype: torch.dtype | str | Mapping[str, torch.dtype | str] | None = None,
        torch_dtype: torch.dtype | str | Mapping[str, torch.dtype | str] | None = None,
        variant: str | None = None,
        device_map: str | int | torch.device | Mapping[str, Any] | None = None,
        use_safetensors: bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        proxies: Mapping[str, str] | None = None,
        cache_dir: str | Path | None = None,
        low_cpu_mem_usage: bool | None = None,
        **parts: Any,
    ) -> Self:
        """Load a model folder, or a repository of the hub ("owner/name"), which is fetched and converted once.

        A folder of diffusers without a manifest is opened too, with a warning, if it holds safetensors only.

        `scheduler`: a scheduler of diffusers, by default the one in the model's manifest. It keeps its class and its
        settings, except for those of the noise the model was trained on.
        `token`: a token of the hub, by default HF_TOKEN or a saved login. `use_auth_token` is its name of 2022.
        `revision`: a branch, tag or commit of the repository. A branch or a tag is fetched anew in every call.
        `dtype`: a floating-point type or its name, float32 by default. "auto" is the type that is stored. A dict has
        one for each part, {"unet": torch.float16, "default": torch.float32}. `torch_dtype` is its older name.
        `variant`: "fp16" opens the files `*.fp16.safetensors` of a folder without a manifest. Others have none.
        `device_map`: the device of all parts, "cuda" for example. "balanced" is a GPU if there is one.
        `local_files_only`: fetch nothing. A repository that was fetched before is loaded from `weights/`.
        `force_download`: fetch the repository again, even if it is in `weights/`.
        `cache_dir`, `low_cpu_mem_usage`, `proxies`: have no effect, the last with a warning.
        `use_safetensors`: None or True, because nothing else is read.
        `parts`: parts that replace the model's own, by their names in diffusers. `safety_checker=None` switches the
        safety checker off.

        Raises `InputError` for a value that is not allowed, `WeightsError` if the folder is missing or damaged, and
        `HubError` if the hub does not deliver the model.
        """
        unknown = set(parts) - set(inspect.signature(cls.__init__).parameters) - {"self"}
        if unknown:
            raise TypeError(Text("from_pretrained() has no argument {}", ", ".join(sorted(unknown))))
        if use_safetensors is False:
            raise InputError("use_safetensors", "False was given; nothing but safetensors is read, so leave it out")
        if proxies:
            warnings.warn(Text("proxies has no effect; set the environment variable HTTPS_PROXY"), stacklevel=2)
        source = str(pretrained_model_name_or_path)
        name, given = ("torch_dtype", torch_dtype) if dtype is None else ("dtype", dtype)
        types_of(name, given, Path(source))  # a wrong one is reported before anything is fetched
        device = device_of(device_map)
        token = use_auth_token if token is None else token
        folder = find(source, revision, token, local_files_only, force_download)
        types = types_of(name, given, folder, variant)
        if (folder / MANIFEST).is_file():
            pipeline = open_verified(cls, folder, types, variant, scheduler, parts)
        else:
            pipeline = open_unverified(super().from_pretrained, folder, types, variant, scheduler, parts)
        pipeline.register_to_config(_name_or_path=str(folder.resolve()))
        return pipeline if device is None else pipeline.to(device)

    def save_pretrained(self, save_directory: str | Path, safe_serialization: bool = True, **options: Any) -> None:
        """Write a model folder that `from_pretrained` opens, here and in diffusers, and the server too.

        See `jsd.genuine.saving.save_pipeline`. A pipeline with a tokenizer of another kind is saved as diffusers does,
        without a manifest. Pickles are never written, whatever `safe_serialization` is.
        """
        if not safe_serialization:
            warnings.warn(
                Text("safe_serialization=False: safetensors are written all the same, no pickles"), stacklevel=2
            )
        if isinstance(self.tokenizer, PipelineTokenizer):
            return save_pipeline(self, Path(save_directory), **options)
        super().save_pretrained(save_directory, **options)
        for file in Path(save_directory).rglob("*.safetensors"):
            give_usual_permissions(file)
        return name_for_diffusers(Path(save_directory))

    def register_modules(self, **parts: Any) -> None:
        """Make the parts attributes of the pipeline, as diffusers does, but with a scheduler of its own.

        A scheduler keeps state while it draws. Two pipelines of the same parts would disturb each other in threads.
        """
        if "scheduler" in parts:
            parts["scheduler"] = copy.copy(parts["scheduler"])
        super().register_modules(**parts)

    def _draw(self, draw: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call `draw`, the `__call__` of a diffusers pipeline, and watermark its pictures. See `_drawing`."""
        check_noise(type(self.scheduler).__name__, type(self.scheduler), self.scheduler.config)
        if type(self.scheduler) is LMSDiscreteScheduler:  # it leaves noise where the first steps are skipped
            self.scheduler = LinearMultistepScheduler.from_config(self.scheduler.config)
        inputs = inputs_of(draw, args, kwargs, self.vae_scale_factor)
        return_dict = inputs.pop("return_dict", True)
        output = draw(self._seen_by_diffusers(), **inputs, return_dict=True)
        pictures = output.images
        if isinstance(pictures, list):
            pictures = [watermark.embed(picture) for picture in pictures]
        output = JapaneseStableDiffusionPipelineOutput(pictures, output.nsfw_content_detected)
        return output if return_dict else output.to_tuple()

    def _seen_by_diffusers(self) -> Any:
        """Return the pipeline as the code of diffusers shall see it."""
        return self


def _drawing(draw: Callable[P, Any]) -> Callable[P, Any]:
    """Return a `__call__` with the signature and documentation of `draw`, the `__call__` of a diffusers pipeline."""

    @wraps(draw)
    def __call__(self: _Japanese, *args: Any, **kwargs: Any) -> Any:
        return self._draw(draw, args, kwargs)

    __call__.__doc__ = f"{CALL}\n{inspect.cleandoc(draw.__doc__)}"
    return __call__


class JapaneseStableDiffusionPipeline(_Japanese, StableDiffusionPipeline):
    """Text to image: draws a prompt. See diffusers' `StableDiffusionPipeline` for the arguments of a call."""

    __call__ = _drawing(StableDiffusionPipeline.__call__)


class JapaneseStableDiffusionImg2ImgPipeline(_Japanese, StableDiffusionImg2ImgPipeline):
    """Image to image: changes a picture to fit a prompt. Arguments: see diffusers' `StableDiffusionImg2ImgPipeline`."""

    __call__ = _drawing(StableDiffusionImg2ImgPipeline.__call__)


class JapaneseStableDiffusionInpaintPipeline(_Japanese, StableDiffusionInpaintPipeline):
    """Inpainting: repaints the white part of a mask. For arguments see diffusers' `StableDiffusionInpaintPipeline`."""

    __call__ = _drawing(StableDiffusionInpaintPipeline.__call__)

    def _seen_by_diffusers(self) -> Any:
        """Return the pipeline with a UNet of 4 input channels, if the latents have another number of them.

        diffusers reads it in the UNet's config to tell a model made for inpainting (9) from any other (4), and refuses
        all other numbers. The UNet itself may be drawing in another thread, so nothing in it is changed.
        """
        config = self.unet.config
        if config.in_channels in (4, 9) or config.in_channels != self.vae.config.latent_channels:
            return self
        return View(self, unet=View(self.unet, config=View(config, in_channels=4)))


# diffusers' AutoPipelines find the pipeline of a task by the name of the class that they are given.
for mapping, kind in (
    (AUTO_TEXT2IMAGE_PIPELINES_MAPPING, JapaneseStableDiffusionPipeline),
    (AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, JapaneseStableDiffusionImg2ImgPipeline),
    (AUTO_INPAINT_PIPELINES_MAPPING, JapaneseStableDiffusionInpaintPipeline),
):
    mapping["japanese-stable-diffusion"] = kind
