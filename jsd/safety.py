"""The safety checker of Stable Diffusion: which pictures must not be shown.

The checker compares a picture's CLIP embedding with those of fixed concepts and flags what comes too close. Here it
only tells; what is done about it is decided by the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from PIL import Image
    from transformers import CLIPImageProcessorPil


@torch.inference_mode()
def check(
    safety_checker: StableDiffusionSafetyChecker, image_processor: CLIPImageProcessorPil, images: list[Image.Image]
) -> list[bool]:
    """One flag a picture: True if it must not be shown.

    Fails closed: whatever goes wrong in the checker raises, and so does a score that is no number (`RuntimeError`),
    which the checker itself would take for harmless.
    """
    pixels = image_processor(images=images, return_tensors="pt").pixel_values
    embeddings: list[torch.Tensor] = []
    hook = safety_checker.visual_projection.register_forward_hook(lambda *call: embeddings.append(call[-1]))
    try:
        # The checker blackens what it flags in the arrays it is given: so these are stand-ins for the pictures.
        stand_ins = [np.zeros(1) for _ in images]
        _, flagged = safety_checker(pixels.to(safety_checker.device, safety_checker.dtype), stand_ins)
    finally:
        hook.remove()
    if len(flagged) != len(images) or not all(embedding.isfinite().all() for embedding in embeddings):
        raise RuntimeError(
            "the safety checker could not judge the pictures: its embeddings hold NaN or infinite values"
        )
    return [bool(flag) for flag in flagged]
