"""A loaded model: `Components`, and `load`, the one way to get them from a model folder.

A model folder has the standard diffusers layout (`model_index.json`, `tokenizer/`, `text_encoder/`, `unet/`, `vae/`,
`scheduler/`, `safety_checker/`, `feature_extractor/`) and a `MANIFEST.json` (see `jsd.manifest`). Only safetensors
files are read, and nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors import safe_open
from transformers import CLIPImageProcessorPil, CLIPTextModel

from jsd.errors import InputError, WeightsError
from jsd.lora import merge_lora
from jsd.manifest import MANIFEST, RESTORE, Verification, begin_verification, find_weights
from jsd.request import Defaults, Request
from jsd.tokenizer import Tokenizer

__all__ = ["PARTS", "Components", "cell_of", "find_weights", "load", "read_part"]
PARTS = {
    "text_encoder": CLIPTextModel,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "safety_checker": StableDiffusionSafetyChecker,
}


@dataclass
class Components:
    """All parts of a loaded model, on one device, in evaluation mode, without gradients."""

    name: str
    defaults: Defaults
    tokenizer: Tokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    safety_checker: StableDiffusionSafetyChecker | None
    image_processor: CLIPImageProcessorPil | None
    device: torch.device
    dtype: torch.dtype


def load(
    folder: str | Path | Verification,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    safety_checker: bool = True,
    lora: str | Path | None = None,
) -> Components:
    """Verify a model folder and load it onto `device`. If a file `lora` is given, merge that adapter into the UNet.

    `folder` may also be a `Verification` that has begun. `dtype` is float32 on a CPU and float16 elsewhere by default.
    With `safety_checker=False` no checker is loaded. With True, a folder without one is an error. Raises `WeightsError`
    if a file is missing or altered, a tensor is missing or left over, or the parts do not belong together.
    """
    verification = folder if isinstance(folder, Verification) else begin_verification(folder)
    folder, manifest = verification.folder, verification.finish()
    device = torch.device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)

    parts = list(PARTS)
    if not safety_checker:
        parts.remove("safety_checker")
    elif not (folder / "safety_checker").is_dir():
        raise WeightsError(f"{folder / 'safety_checker'}: missing; add one, or switch it off (JSD_SAFETY_CHECKER)")
    models = {}
    for part in parts:
        _check_config(folder, part, verification.config(f"{part}/config.json"))
        # The autoencoder computes a third faster in this layout. The UNet does not.
        layout = torch.channels_last if part == "vae" else torch.preserve_format
        models[part] = read_part(folder, part, dtype).to(device, memory_format=layout)
    processor = None
    if safety_checker:
        processor = CLIPImageProcessorPil(**verification.config("feature_extractor/preprocessor_config.json"))
    if lora:
        merge_lora(models["unet"], Path(lora))
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    _check_parts_match(folder, tokenizer, models["text_encoder"].config, models["unet"].config, models["vae"].config)
    return Components(
        name=str(manifest.get("name", folder.name)),
        defaults=_defaults(folder, manifest, models["unet"], models["vae"]),
        tokenizer=tokenizer,
        text_encoder=models["text_encoder"],
        unet=models["unet"],
        vae=models["vae"],
        scheduler_config=verification.config("scheduler/scheduler_config.json"),
        safety_checker=models.get("safety_checker"),
        image_processor=processor,
        device=device,
        dtype=dtype,
    )


def read_part(folder: Path, part: str, dtype: torch.dtype) -> Any:
    """Load one part of a model, e.g. "unet", from a diffusers folder, in evaluation mode, without gradients.

    Raises `WeightsError` if the part can't be read, or if a tensor is missing, left over or of another shape.
    """
    model_class, place = PARTS[part], folder / part
    try:
        model, info = model_class.from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
        )
    except Exception as error:
        raise WeightsError(f"{place}: can't be loaded as {model_class.__name__}: {error}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := {str(key) for key in info.get(kind) or ()}:
            raise WeightsError(f"{place}: {len(keys)} {kind.replace('_', ' ')}, {min(keys)} first; convert it again")
    if any(_stored_type(file) == dtype for file in place.glob("[!.]*.safetensors")):
        # Tensors that needed no conversion are still mapped to the file, and would change with it.
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return model.requires_grad_(False)


def _stored_type(file: Path) -> torch.dtype | None:
    """Return the dtype of a safetensors file's first tensor: float32, float16 or bfloat16, None for any other type."""
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    with safe_open(file, "pt") as data:
        return types.get(data.get_slice(next(iter(data.keys()))).get_dtype())


def cell_of(vae: AutoencoderKL) -> int:
    """Return the VAE's downsampling factor: the side in pixels of the square that one latent position covers."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _check_config(folder: Path, part: str, config: dict[str, Any]) -> None:
    """Raise `WeightsError` if a config names attention code on the hub, which transformers would download and run."""
    for name, value in config.items():
        if "attn_implementation" in name and "/" in str(value):
            raise WeightsError(f"{folder / part / 'config.json'}: {name} names code on the hub; remove the setting")


def _defaults(folder: Path, manifest: dict[str, Any], unet: UNet2DConditionModel, vae: AutoencoderKL) -> Defaults:
    """Return the manifest's default settings, with the UNet's size if it has none. Raises `WeightsError` if wrong."""
    cell, size = cell_of(vae), unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    defaults = Defaults(**{"width": width * cell, "height": height * cell, **manifest.get("defaults", {})}, cell=cell)
    try:
        Request("defaults").resolve(defaults)
    except InputError as error:
        raise WeightsError(f"{folder / MANIFEST}: defaults: {error}") from error
    return defaults


def _check_parts_match(folder: Path, tokenizer: Tokenizer, text: Any, unet: Any, vae: Any) -> None:
    """Raise `WeightsError` if the configs of tokenizer, text encoder, UNet and VAE do not fit together."""
    latent_channels = {vae.latent_channels, unet.in_channels, unet.out_channels}
    for matches, problem in (
        (tokenizer.vocabulary_size <= text.vocab_size, "the tokenizer has more tokens than the text encoder"),
        (tokenizer.max_length <= text.max_position_embeddings, "the tokenizer's rows are too long for the encoder"),
        (unet.cross_attention_dim in (text.hidden_size, None), "the UNet expects another width of text encoder"),
        (len(latent_channels) == 1, "the UNet and the VAE differ in latent channels"),
    ):
        if not matches:
            raise WeightsError(f"{folder}: {problem}; {RESTORE}")
