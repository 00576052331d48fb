"""LoRA adapters: `merge_lora` adds one to the weights of a UNet. A merged adapter costs no time in sampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from jsd.errors import WeightsError, shown

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def merge_lora(unet: UNet2DConditionModel, file: Path) -> None:
    """Add a LoRA adapter to the weights of `unet`, in place. `file` is a safetensors file as diffusers writes it.

    Each weight W becomes W + (alpha / rank) B A (Hu et al. 2021, arXiv 2106.09685, sec. 4.1). alpha is stored for each
    layer, or once in the file's metadata; if there is none, the factor is 1. The package peft could do this too, but
    importing it takes a second. Raises `WeightsError` if the file is not an adapter, or does not fit this UNet.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        raise WeightsError(f"{file}: no such .safetensors file; JSD_LORA takes an adapter that train lora wrote")
    try:
        # Adapters name the two matrices A and B, or down and up.
        layers = {
            key.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): value
            for key, value in load_file(file).items()
        }
        with safe_open(file, "pt") as header:
            settings = json.loads((header.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{file}: not a safetensors file ({error})") from error
    weights = {f"unet.{name}": parameter for name, parameter in unet.named_parameters()}
    downs = [key for key in layers if key.endswith(".lora_A.weight")]
    ups = [key.replace(".lora_A.", ".lora_B.") for key in downs]
    alphas = [key.replace(".lora_A.weight", ".alpha") for key in downs]
    left = sorted(set(layers) - {*downs, *ups, *alphas})
    if not downs or left:
        raise WeightsError(f"{file}: {shown(left[0] if left else 'no layer')}; an adapter has lora_A and lora_B alone")
    changes = {}
    for down, up, alpha in zip(downs, ups, alphas, strict=True):
        name = down.replace(".lora_A.", ".")
        if name not in weights or up not in layers:
            raise WeightsError(f"{file}: {shown(down)} has no place in this model's UNet")
        a, b = layers[down].float(), layers[up].float()
        if not (a.isfinite().all() and b.isfinite().all()):
            raise WeightsError(f"{file}: {shown(down)} or its partner holds numbers that are not finite")
        scale = _scale(file, settings, layers.get(alpha), len(a) if a.ndim else 0)
        if a.ndim != 2 or b.ndim != 2 or (len(b), a.shape[1]) != weights[name].shape or len(a) != b.shape[1]:
            raise WeightsError(f"{file}: {shown(down)} does not fit {tuple(weights[name].shape)} of this model's UNet")
        changes[name] = scale * b @ a
    with torch.no_grad():
        for name, change in changes.items():
            weights[name].add_(change.to(weights[name]))


def _scale(file: Path, settings: object, alpha: torch.Tensor | None, rank: int) -> float:
    """Return a layer's factor alpha / rank. `alpha` is its own; if None, that of the metadata `settings`; else 1.0."""
    of_unet = (
        {key.removeprefix("unet."): value for key, value in settings.items()} if isinstance(settings, dict) else {}
    )
    if alpha is None and "lora_alpha" in of_unet:
        if of_unet.get("use_rslora") or of_unet.get("use_dora") or of_unet.get("alpha_pattern"):
            raise WeightsError(f"{file}: an adapter of a kind that can't be merged (rslora, dora or alpha_pattern)")
        alpha = torch.tensor(of_unet["lora_alpha"])
    if alpha is None:
        return 1.0
    if alpha.numel() != 1 or not alpha.float().isfinite().all() or rank < 1:
        raise WeightsError(f"{file}: an alpha {shown(alpha.tolist())} for a rank of {rank}; a number is wanted")
    return float(alpha) / rank
