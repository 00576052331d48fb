"""Stable Diffusion's safety checker: tells which pictures must not be shown.

The checker flags a picture whose CLIP embedding is too close to that of a forbidden concept. The caller decides what
happens to a flagged picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from jsd import clip_input
from jsd.errors import NaNError

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil


class HalfLinear(torch.nn.Linear):
    """A linear layer that stores its weights in float16, and computes in the type of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return torch.nn.functional.linear(x, self.weight.to(x.dtype), bias)


def compute_in_float32(safety_checker: StableDiffusionSafetyChecker) -> None:
    """Let a checker with weights in float16 compute in float32, in place. It computes as if it were all float32, and
    takes half of that memory: the weights of linear layers, nearly all there are, stay in float16 between their uses.

    diffusers' layerwise casting does the same with hooks, which change a layer's weights while it is used, and convert
    them back.
    """
    for module in safety_checker.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = HalfLinear
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.float()
    for config in (safety_checker.config, safety_checker.config.vision_config, safety_checker.config.text_config):
        config.dtype = torch.float32


@torch.inference_mode()
def check(
    safety_checker: StableDiffusionSafetyChecker, image_processor: CLIPImageProcessorPil, pixels: torch.Tensor
) -> list[bool]:
    """Return one flag per picture: True if the safety checker says that it must not be shown.

    `pixels` is uint8 (n, height, width, 3), on any device. Raises `NaNError` if an embedding is not finite, because the
    checker would take such a picture for harmless. Other errors of the checker are raised as they are.
    """
    if pixels.device.type != "cpu" and clip_input.stands_in(image_processor, *pixels.shape[1:3]):
        x = clip_input.clip_input(image_processor, pixels)
    else:
        x = image_processor(images=list(pixels.cpu().numpy()), return_tensors="pt").pixel_values
    x = x.to(safety_checker.device, safety_checker.dtype)
    embeddings: list[torch.Tensor] = []
    hook = safety_checker.visual_projection.register_forward_hook(lambda *call: embeddings.append(call[-1]))
    try:
        # The checker blackens flagged pictures in the arrays it gets. So it gets stand-ins.
        _, flagged = safety_checker(x, [np.zeros(1) for _ in pixels])
    finally:
        hook.remove()
    if len(flagged) != len(pixels) or not all(embedding.isfinite().all() for embedding in embeddings):
        raise NaNError("the safety checker could not judge the pictures: its embeddings hold NaN or infinite values")
    return [bool(flag) for flag in flagged]
