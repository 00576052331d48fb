"""A loaded model: `Components`, and `load`, the one way to get them from a model folder.

A model folder has the standard diffusers layout (`model_index.json`, `tokenizer/`, `text_encoder/`, `unet/`, `vae/`,
`scheduler/`, `safety_checker/`, `feature_extractor/`) and a `MANIFEST.json` (see `jsd.manifest`). Only safetensors
files are read, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors import SafetensorError, safe_open
from transformers import CLIPImageProcessorPil, CLIPTextModel
from transformers.utils import logging

from jsd import safety
from jsd.adapters import Adapter, Adapters
from jsd.errors import InputError, WeightsError
from jsd.language import Text
from jsd.manifest import MANIFEST, RESTORE, Verification, begin_verification, find_weights, read_json
from jsd.request import Defaults, Request
from jsd.tokenizer import Tokenizer

__all__ = ["PARTS", "Components", "cell_of", "check_parts_match", "find_weights", "load", "read_part"]
# In the order of reading: while the UNet is read, its file takes memory, too, so the others are not there yet.
PARTS = {
    "unet": UNet2DConditionModel,
    "safety_checker": StableDiffusionSafetyChecker,
    "text_encoder": CLIPTextModel,
    "vae": AutoencoderKL,
}
WEIGHT_FILES = {
    part: f"{'diffusion_pytorch_' * issubclass(kind, ModelMixin)}model.safetensors" for part, kind in PARTS.items()
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
    dtype: torch.dtype  # the UNet's; other parts may have their own
    adapters: Adapters  # those that requests bring along; it changes the weights of text_encoder and unet


def load(
    folder: str | Path | Verification,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
    safety_checker: bool = True,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    halved_checker: bool = False,
) -> Components:
    """Verify a model folder and load it onto `device`.

    A file `lora`, times `lora_scale`, is the adapter of requests that have none of their own.
    `folder` may also be a `Verification` that has begun. `dtype` is float32 on a CPU and float16 elsewhere by default;
    it may name one for each of PARTS.
    With `halved_checker`, a safety checker that is stored in float16 and computes in float32 takes half of its memory.
    With `safety_checker=False` no checker is loaded. With True, a folder without one is an error. Raises `WeightsError`
    if a file is missing or altered, a tensor is missing or left over, or the parts do not belong together.
    """
    verification = folder if isinstance(folder, Verification) else begin_verification(folder)
    folder, manifest = verification.folder, verification.finish()
    device = torch.device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.float16)
    types = dtype if isinstance(dtype, Mapping) else dict.fromkeys(PARTS, dtype)

    parts = list(PARTS)
    if not safety_checker:
        parts.remove("safety_checker")
    elif not (folder / "safety_checker").is_dir():
        raise WeightsError("{}: missing; add one, or set JSD_SAFETY_CHECKER=off", folder / "safety_checker")
    models = {}
    for part in parts:
        _check_files(verification, part)
        # The autoencoder computes a third faster in this layout. With the UNet it depends (`jsd.cpu.tune`).
        layout = torch.channels_last if part == "vae" else torch.preserve_format
        wanted = types[part]
        halved = halved_checker and part == "safety_checker" and wanted == torch.float32 and _is_half(folder / part)
        models[part] = read_part(folder, part, torch.float16 if halved else wanted)
        models[part].to(device, memory_format=layout)
        if halved:
            safety.compute_in_float32(models[part])
    processor = None
    if safety_checker:
        config = verification.config("feature_extractor/preprocessor_config.json")
        try:
            processor = CLIPImageProcessorPil(**config)
        except (TypeError, ValueError) as error:
            raise WeightsError("{}: {}; {}", folder / "feature_extractor", error, RESTORE) from error
    adapters = Adapters(models["unet"], models["text_encoder"])
    defaults = _defaults(folder, manifest, models["unet"], models["vae"])
    if lora:
        defaults = replace(defaults, lora=_merged(adapters, Path(lora), lora_scale), lora_scale=lora_scale)
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    check_parts_match(folder, tokenizer, models["text_encoder"].config, models["unet"].config, models["vae"].config)
    return Components(
        name=str(manifest.get("name", folder.name)),
        defaults=defaults,
        tokenizer=tokenizer,
        text_encoder=models["text_encoder"],
        unet=models["unet"],
        vae=models["vae"],
        scheduler_config=verification.config("scheduler/scheduler_config.json"),
        safety_checker=models.get("safety_checker"),
        image_processor=processor,
        device=device,
        dtype=types["unet"],
        adapters=adapters,
    )


def read_part(folder: Path, part: str, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Load one part of a model, e.g. "unet", from a diffusers folder, in evaluation mode, without gradients.
    With a `variant` "fp16" its file is the one with ".fp16" before ".safetensors".
    Raises `WeightsError` if the part can't be read, or if a tensor is missing, left over or of another shape.
    """
    model_class, place = PARTS[part], folder / part
    check_config(place / "config.json")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar per part would fill a server's log
    try:
        model, info = model_class.from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype, variant=variant
        )
        mapped = (place / WEIGHT_FILES[part]).is_file() and dtype in stored_types(place / WEIGHT_FILES[part])
    except Exception as error:
        raise WeightsError("{}: can't be loaded as {}: {}", place, model_class.__name__, error) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := {str(key) for key in info.get(kind) or ()}:
            raise WeightsError(
                "{}: {} {}, {} first; convert it again", place, len(keys), kind.replace("_", " "), min(keys)
            )
    if mapped:  # a tensor that needed no conversion is still mapped to the file, and would change with it
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return model.requires_grad_(False)


def stored_types(file: Path) -> set[torch.dtype | None]:
    """Return the dtypes of a safetensors file's tensors. None stands for all but float32, float16 and bfloat16."""
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    with safe_open(file, "pt") as data:
        return {types.get(data.get_slice(name).get_dtype()) for name in data.keys()}  # noqa: SIM118


def _is_half(folder: Path) -> bool:
    """Whether a safety checker is stored in float16. A file that can't be read is not; `read_part` says why."""
    file = folder / WEIGHT_FILES["safety_checker"]
    try:
        return file.is_file() and stored_types(file) == {torch.float16}
    except SafetensorError:
        return False


def cell_of(vae: AutoencoderKL) -> int:
    """Return the VAE's downsampling factor: the side in pixels of the square that one latent position covers."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _check_files(verification: Verification, part: str) -> None:
    """Raise `WeightsError` unless a loader would read exactly a part's config and its one standard safetensors file."""
    listed = {path for path in verification.manifest["files"] if path.startswith(f"{part}/")}
    wanted = {f"{part}/config.json", f"{part}/{WEIGHT_FILES[part]}"}
    if {path for path in listed if path.endswith((".json", ".safetensors"))} != wanted:
        raise WeightsError("{}: {} are wanted; convert it again", verification.folder / part, ", ".join(sorted(wanted)))


def check_config(file: Path) -> None:
    """Raise `WeightsError` if a part's config names code or files that transformers would fetch or read."""
    for name, value in read_json(file).items():
        code = "attn_implementation" in name and isinstance(value, str) and value not in ("eager", "sdpa")
        if code or (name in ("transformers_weights", "quantization_config") and value):
            raise WeightsError("{}: the setting {} is not allowed; remove it", file, name)


def _defaults(folder: Path, manifest: dict[str, Any], unet: UNet2DConditionModel, vae: AutoencoderKL) -> Defaults:
    """Return the manifest's default settings, with the UNet's size if it has none. Raises `WeightsError` if wrong."""
    cell, size = cell_of(vae), unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    defaults = Defaults(**{"width": width * cell, "height": height * cell, **manifest.get("defaults", {})}, cell=cell)
    try:
        Request("defaults").resolve(defaults)
    except InputError as error:
        raise WeightsError("{}: defaults: {}", folder / MANIFEST, error) from error
    return defaults


def _merged(adapters: Adapters, source: Path, scale: float) -> Adapter:
    """Read an adapter, a file or a folder, and merge it. Raises `WeightsError`, which names it."""
    try:
        adapter = adapters.read(source)
        for part in ("unet", "text_encoder"):
            adapters.merge(part, adapter, scale)
        return adapter
    except WeightsError as error:
        raise WeightsError("{}: {}", source, error) from error


def check_parts_match(folder: Path, tokenizer: Tokenizer, text: Any, unet: Any, vae: Any) -> None:
    """Raise `WeightsError` if the configs of tokenizer, text encoder, UNet and VAE do not fit together."""
    latent_channels = {vae.latent_channels, unet.in_channels, unet.out_channels}
    for matches, problem in (
        (tokenizer.vocabulary_size <= text.vocab_size, Text("the tokenizer has more tokens than the text encoder")),
        (
            tokenizer.max_length <= text.max_position_embeddings,
            Text("the tokenizer's rows are too long for the encoder"),
        ),
        (unet.cross_attention_dim in (text.hidden_size, None), Text("the UNet expects another width of text encoder")),
        (len(latent_channels) == 1, Text("the UNet and the VAE differ in latent channels")),
    ):
        if not matches:
            raise WeightsError("{}: {}; {}", folder, problem, RESTORE)
