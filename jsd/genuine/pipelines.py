"""The Python API of 2022 on today's diffusers: thin subclasses of its pipelines.

    from jsd import JapaneseStableDiffusionPipeline

    pipe = JapaneseStableDiffusionPipeline.from_pretrained("rinna/japanese-stable-diffusion", use_auth_token=True)
    pipe("猫の肖像画 油絵")["sample"][0].save("output.png")

Everything diffusers does (adapters, callbacks, offloading, prompt embeddings) works as there. What is ours: a model is
opened through `jsd.model` (verified, safetensors only), a name on the hub is pulled once and converted, the Japanese
tokenizer is read by sentencepiece itself, and pictures carry the invisible mark.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from diffusers import (
    SchedulerMixin,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from diffusers.configuration_utils import FrozenDict
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from PIL import Image

from jsd import manifest, model, watermark
from jsd.errors import WeightsError
from jsd.genuine import hub
from jsd.manifest import MANIFEST
from jsd.schedulers import make_scheduler
from jsd.tokenizer import Tokenizer

# What a scheduler must know of the noise a model was trained on.
NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


@dataclass
class JapaneseStableDiffusionPipelineOutput(StableDiffusionPipelineOutput):
    """`images` and `nsfw_content_detected`; `output["sample"]` is what `images` was called in 2022."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__("images" if key == "sample" else key)


class PipelineTokenizer:
    """`jsd.tokenizer.Tokenizer` under the calls that diffusers' pipelines make to one of transformers'."""

    added_tokens_encoder: Mapping[str, int] = {}  # no textual inversions

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.model_max_length = tokenizer.max_length

    def __call__(self, text: str | Sequence[str], padding: str = "max_length", **_: Any) -> SimpleNamespace:
        """Ids and mask, (texts, tokens): rows of `model_max_length`, with padding="longest" of what each text has."""
        texts = [text] if isinstance(text, str) else text
        rows = [[*self.tokenizer.encode(one), self.tokenizer.eos_id] for one in texts]
        if padding == "longest":  # asked for only to tell what is cut off
            length = max(map(len, rows))
            ids = torch.tensor([row + [self.tokenizer.pad_id] * (length - len(row)) for row in rows])
        else:
            ids = torch.tensor([self.tokenizer(one).ids for one in texts])
        mask = torch.arange(ids.shape[1])[None] < torch.tensor([[len(row)] for row in rows])
        return SimpleNamespace(input_ids=ids, attention_mask=mask.long())

    def tokenize(self, text: str) -> list[str]:
        return self.tokenizer.pieces.encode(text, out_type=str)

    def batch_decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.tokenizer.pieces.decode([int(i) for i in row]) for row in rows]


class _Japanese:
    """What the three pipelines have in common."""

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
        """Open a model folder, or a repository of the hub ("owner/name"), which is converted into `weights/` once.

        `scheduler` keeps its kind and settings, but follows the noise the model was trained on. `use_auth_token` is
        what `token` was called in 2022: True for HF_TOKEN or a saved login, or the token itself. `dtype` (once
        `torch_dtype`) is float32 unless given. Any part may be given by its name; `safety_checker=None` leaves the
        checker out. With `local_files_only` nothing is fetched; `cache_dir` has no effect (calls of 2022 give it).
        Raises `WeightsError` for a folder that is damaged, and `HubError` with what to do.
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
        return cls(**own | parts)

    def __call__(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        """As the stock pipeline's; `init_image`, its name in 2022, is `image`. PIL pictures carry the mark."""
        if "init_image" in kwargs:
            kwargs["image"] = kwargs.pop("init_image")
        output = super().__call__(*args, return_dict=True, **kwargs)
        pictures = output.images
        if isinstance(pictures, list):
            pictures = [watermark.embed(picture) for picture in pictures]
        output = JapaneseStableDiffusionPipelineOutput(pictures, output.nsfw_content_detected)
        return output if return_dict else output.to_tuple()


class JapaneseStableDiffusionPipeline(_Japanese, StableDiffusionPipeline):
    """Text to image."""


class JapaneseStableDiffusionImg2ImgPipeline(_Japanese, StableDiffusionImg2ImgPipeline):
    """Image to image."""


class JapaneseStableDiffusionInpaintPipeline(_Japanese, StableDiffusionInpaintPipeline):
    """Inpainting: the mask's white part is repainted."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock pipeline's, but in the picture's own size, and also for latents of other than 4 channels.

        It asks the UNet's config how many channels it takes, to tell a model made for inpainting (9) from any other
        (4), and for nothing else. So any other one says 4 as long as the call lasts.
        """
        picture = kwargs.get("image", kwargs.get("init_image"))
        if isinstance(picture, Image.Image):  # stock draws the model's own size, and squeezes the picture into it
            for name, side in zip(("width", "height"), picture.size, strict=True):
                if kwargs.get(name) is None:
                    kwargs[name] = side // self.vae_scale_factor * self.vae_scale_factor
        own = self.unet.config
        if own.in_channels == self.vae.config.latent_channels:
            self.unet._internal_dict = FrozenDict({**own, "in_channels": 4})
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self.unet._internal_dict = own


def _find(source: str, revision: str | None, token: bool | str | None, local_files_only: bool) -> Path:
    """The folder of a model: itself, or that of a repository, pulled if it is not there yet (in that revision)."""
    if Path(source).is_dir():
        if not (Path(source) / MANIFEST).is_file():
            raise WeightsError(f"{source}: has no {MANIFEST}; convert it first: python -m jsd weights convert")
        return Path(source)
    if source.count("/") != 1:
        raise WeightsError(f"{source}: no such folder, and no name of a repository such as {hub.GENUINE}")
    folder = manifest.ROOT / source.rpartition("/")[2]
    hub.check_origin(folder, source)
    origin = hub.origin_of(folder)
    # A commit that is here already need not be asked for; a branch or tag may have moved on.
    if origin is not None and (revision is None or origin.endswith(f" at {revision}")):
        return folder
    if local_files_only:
        raise WeightsError(f"{source}: not in {folder}, and local_files_only forbids to fetch it")
    hub.pull(source, folder, revision, token if isinstance(token, str) else None, report=print)
    return folder


def _follow(scheduler: SchedulerMixin, config: Mapping[str, Any]) -> SchedulerMixin:
    """`scheduler` with the model's own noise settings: other ones would draw rubbish."""
    wanted = {key: config[key] for key in NOISE if config.get(key) is not None}
    differ = {key: value for key, value in wanted.items() if scheduler.config.get(key) != value}
    if not differ:
        return scheduler
    told = ", ".join(f"{key}={value!r}" for key, value in differ.items())
    warnings.warn(f"{type(scheduler).__name__}: this model was trained with {told}, which is used", stacklevel=3)
    return type(scheduler).from_config({**scheduler.config, **differ})
