"""The Python API of 2022 on today's diffusers: thin subclasses of its pipelines.

    from jsd import JapaneseStableDiffusionPipeline

    pipe = JapaneseStableDiffusionPipeline.from_pretrained("rinna/japanese-stable-diffusion", use_auth_token=True)
    pipe("猫の肖像画 油絵")["sample"][0].save("output.png")

Adapters, callbacks, offloading, prompt embeddings and so on work as in diffusers. Four things differ: the model is
loaded by `jsd.model` (verified, safetensors only), a repository on the hub is fetched and converted once, sentencepiece
itself reads the Japanese tokenizer, and PIL pictures carry the invisible watermark. A prompt is taken as it is: the
syntax of other tools stays in it, because programs such as compel expect that, and unknown characters are not counted.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
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

from jsd import manifest, model, watermark
from jsd.errors import WeightsError
from jsd.genuine import hub
from jsd.genuine.calls import View, inputs_of
from jsd.genuine.configs import NOISE
from jsd.genuine.saving import save_pipeline
from jsd.manifest import MANIFEST
from jsd.schedulers import LinearMultistepScheduler, LMSDiscreteScheduler, make_scheduler
from jsd.tokenizer import Tokenizer

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


class PipelineTokenizer:
    """A `jsd.tokenizer.Tokenizer` with the methods of transformers' tokenizers that diffusers' pipelines call."""

    added_tokens_encoder: Mapping[str, int] = {}  # textual inversions are not supported

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.model_max_length = tokenizer.max_length

    def __call__(self, text: str | Sequence[str], padding: str = "max_length", **_: Any) -> SimpleNamespace:
        """Tokenize one text or several. Returns tensors `input_ids` and `attention_mask`, both (texts, tokens).

        A text is cut off or padded to `model_max_length` tokens. With padding="longest" no text is cut off, and all are
        padded to the length of the longest.
        """
        texts = [text] if isinstance(text, str) else text
        rows = [[*self.tokenizer.encode(one), self.tokenizer.eos_id] for one in texts]
        if padding == "longest":  # the pipeline compares these rows with the others, and warns of the text cut off
            length = max(map(len, rows))
            ids = torch.tensor([row + [self.tokenizer.pad_id] * (length - len(row)) for row in rows])
        else:
            ids = torch.tensor([self.tokenizer(one).ids for one in texts])
        mask = torch.arange(ids.shape[1])[None] < torch.tensor([[len(row)] for row in rows])
        return SimpleNamespace(input_ids=ids, attention_mask=mask.long())

    def tokenize(self, text: str) -> list[str]:
        """Split a text into its sentencepiece pieces, as strings."""
        return self.tokenizer.pieces.encode(text, out_type=str)

    def batch_decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Turn several lists of token ids back into texts."""
        return [self.tokenizer.pieces.decode([int(i) for i in row]) for row in rows]


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
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        local_files_only: bool = False,
        cache_dir: str | None = None,
        **parts: Any,
    ) -> Self:
        """Load a model folder, or a repository of the hub ("owner/name"), which is fetched and converted once.

        `scheduler`: a scheduler of diffusers, by default the one in the model's manifest. It keeps its class and its
        settings, except for those of the noise the model was trained on.
        `token`: a token of the hub, by default HF_TOKEN or a saved login. `use_auth_token` is its name of 2022.
        `revision`: a branch, tag or commit of the repository. A branch or a tag is fetched anew in every call.
        `dtype`: float32 by default. `torch_dtype` is its older name.
        `local_files_only`: fetch nothing. A repository that was fetched before is loaded from `weights/`.
        `cache_dir`: has no effect. Calls of 2022 pass it.
        `parts`: parts that replace the model's own, by their names in diffusers. `safety_checker=None` switches the
        safety checker off.

        Raises `WeightsError` if the folder is missing or damaged, and `HubError` if the hub does not deliver the model.
        """
        unknown = set(parts) - set(inspect.signature(cls.__init__).parameters) - {"self"}
        if unknown:
            raise TypeError(f"from_pretrained() has no argument {', '.join(sorted(unknown))}")
        token = use_auth_token if token is None else token
        folder = _find(str(pretrained_model_name_or_path), revision, token, local_files_only)
        checked = parts.get("safety_checker", True) is not None and (folder / "safety_checker").is_dir()
        loaded = model.load(folder, dtype=dtype or torch_dtype or torch.float32, safety_checker=checked)
        if scheduler is None:
            scheduler = make_scheduler(loaded.defaults.scheduler, loaded.scheduler_config)
        else:
            scheduler = _follow(scheduler, loaded.scheduler_config)
        own = {
            "vae": loaded.vae,
            "text_encoder": loaded.text_encoder,
            "tokenizer": PipelineTokenizer(loaded.tokenizer),
            "unet": loaded.unet,
            "scheduler": scheduler,
            "safety_checker": loaded.safety_checker,
            "feature_extractor": loaded.image_processor,
            "requires_safety_checker": checked,
        }
        pipeline = cls(**own | parts)
        pipeline.register_to_config(_name_or_path=str(folder.resolve()))
        return pipeline

    def save_pretrained(self, save_directory: str | Path, safe_serialization: bool = True, **options: Any) -> None:
        """Write a model folder that `from_pretrained` opens, here and in diffusers, and the server too.

        See `jsd.genuine.saving.save_pipeline`. A pipeline with a tokenizer of another kind is saved as diffusers does.
        """
        if not isinstance(self.tokenizer, PipelineTokenizer):
            return super().save_pretrained(save_directory, safe_serialization, **options)
        options["safe_serialization"] = safe_serialization
        return save_pipeline(self, self.tokenizer.tokenizer, Path(save_directory), **options)

    def register_modules(self, **parts: Any) -> None:
        """Make the parts attributes of the pipeline, as diffusers does, but with a scheduler of its own.

        A scheduler keeps state while it draws. Two pipelines of the same parts would disturb each other in threads.
        """
        if "scheduler" in parts:
            parts["scheduler"] = copy.copy(parts["scheduler"])
        super().register_modules(**parts)

    def _draw(self, draw: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call `draw`, the `__call__` of a diffusers pipeline, and watermark its pictures. See `_drawing`."""
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
    """Return a `__call__` with the signature and the documentation of `draw`, the `__call__` of a diffusers pipeline."""

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


def _find(source: str, revision: str | None, token: bool | str | None, local_files_only: bool) -> Path:
    """Return the path of a model folder. `source` is that folder, or a repository, which is fetched if necessary."""
    if Path(source).is_dir():
        if not (Path(source) / MANIFEST).is_file():
            raise WeightsError(f"{source}: has no {MANIFEST}; convert it first with python -m jsd weights convert")
        return Path(source)
    if source.count("/") != 1:
        raise WeightsError(f"{source}: neither a folder nor the name of a repository, such as {hub.GENUINE}")
    folder = manifest.ROOT / source.rpartition("/")[2]
    hub.check_origin(folder, source)
    origin = hub.origin_of(folder)
    # A commit never changes. A branch or a tag may have moved, so the hub is asked again.
    if origin is not None and (revision is None or origin.endswith(f" at {revision}")):
        return folder
    if local_files_only:
        raise WeightsError(f"{source}: not in {folder}, and local_files_only forbids fetching it")
    hub.pull(source, folder, revision, token if isinstance(token, str) else None, report=print)
    return folder


def _follow(scheduler: SchedulerMixin, config: Mapping[str, Any]) -> SchedulerMixin:
    """Return `scheduler` with the noise settings (NOISE) of the model's scheduler config. Warns if that changes it."""
    wanted = {key: config[key] for key in NOISE if config.get(key) is not None}
    differ = {key: value for key, value in wanted.items() if scheduler.config.get(key) != value}
    if not differ:
        return scheduler
    settings = ", ".join(f"{key}={value!r}" for key, value in differ.items())
    warnings.warn(f"{type(scheduler).__name__}: changed to {settings}, which this model was trained with", stacklevel=3)
    return type(scheduler).from_config({**scheduler.config, **differ})
