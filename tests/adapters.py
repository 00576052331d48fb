"""Adapters of the tiny model in the layouts of others' programs: tensors by key, with random numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save, save_file

from jsd.model import Components

RANK = 2
ALPHA = 3.0
# Every kind of layer that the trainers of adapters change.
UNET = (
    "conv_in",
    "time_embedding.linear_1",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "mid_block.resnets.0.time_emb_proj",
    "up_blocks.0.resnets.0.conv_shortcut",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v",
)
ATTENTION = tuple(name for name in UNET if ".to_" in name)
TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc1")


def write(file: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    """Write a safetensors file, and return its path."""
    save_file({key: value.contiguous() for key, value in tensors.items()}, file, metadata or None)
    return file


def matrices(part: torch.nn.Module, name: str, rank: int = RANK) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random A and B of the layer `name` of `part`, in the shapes that kohya and peft give them."""
    shape = part.get_submodule(name).weight.shape
    rng = torch.Generator().manual_seed(sum(name.encode()))
    a = torch.randn(rank, *shape[1:], generator=rng) / 4
    return a, torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=rng) / 4


def kohya(plain: Components) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter as kohya's scripts write it: for the UNet and the text encoder, with alphas."""
    tensors = {}
    for part, begin, names in ((plain.unet, "lora_unet_", UNET), (plain.text_encoder, "lora_te_text_model_", TEXT)):
        for name in names:
            layer, (a, b) = begin + name.replace(".", "_"), matrices(part, name)
            tensors |= {f"{layer}.lora_down.weight": a, f"{layer}.lora_up.weight": b}
            tensors[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return tensors


def diffusers(plain: Components, unet: str, text: str, names: tuple[str, ...] = UNET) -> dict[str, torch.Tensor]:
    """Return the tensors as diffusers names them. `unet` and `text` are the ends of keys: ".lora_A .lora_B"."""
    parts = [(plain.unet, "unet.", names, unet), (plain.text_encoder, "text_encoder.text_model.", TEXT, text)]
    tensors = {}
    for part, begin, layers, ends in parts:
        for name in layers if ends else ():
            for end, matrix in zip(ends.split(), matrices(part, name), strict=True):
                tensors[f"{begin}{name}{end}.weight"] = matrix
    return tensors


def processors(plain: Components) -> dict[str, torch.Tensor]:
    """Return the tensors as in early 2023, when the processor of each attention had its LoRA."""
    tensors = diffusers(plain, "_lora.down _lora.up", "", ATTENTION)
    for now, then in {".to_": ".processor.to_", "to_out.0_": "to_out_"}.items():
        tensors = {key.replace(now, then): value for key, value in tensors.items()}
    return tensors


def adapter(plain: Components, number: int = 0) -> bytes:
    """Return the file of an adapter. Each number has another."""
    return save({key: value.roll(number) for key, value in kohya(plain).items()})


LAYOUTS = {
    "kohya": kohya,
    "peft": lambda plain: diffusers(plain, ".lora_A .lora_B", ".lora_A .lora_B"),
    "diffusers": lambda plain: diffusers(plain, ".lora.down .lora.up", ".lora_linear_layer.down .lora_linear_layer.up"),
    "processors": processors,
}
