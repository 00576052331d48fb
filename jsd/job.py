"""The sampling state of one request (`Job`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from jsd.request import Request
from jsd.schedule import Schedule
from jsd.source import Source

STAGES = ("queue", "text", "denoise", "decode", "safety")


@dataclass(eq=False)
class Job:
    """The sampling state of one request: n pictures, whose latents have c channels, height h and width w."""

    request: Request  # resolved
    schedule: Schedule
    steps: torch.Tensor  # those of the schedule, on the model's device
    guided: list[bool]  # per step: whether it applies guidance, and so has two samples per picture instead of one
    generators: list[torch.Generator]  # one per picture, on the CPU, so that a picture does not depend on others
    state: torch.Tensor  # (n, ROWS, c, h, w), float32: x_t, and what the sampler keeps of earlier steps
    source: Source | None
    context: torch.Tensor  # text embeddings, (rows, tokens, width); the rows of the negative prompt come first
    guidance_scale: torch.Tensor  # (n, 1, 1, 1), on the model's device
    reading: dict[str, Any]  # how the texts were read: what `jsd.prompt.read` returns
    done: int = 0  # UNet calls so far
    queued: torch.cuda.Event | None = None  # on a GPU: reached when the latest step is done
    batch_rows: int = 0  # the sum of the rows of these calls, those of other jobs included
    pixels: list[torch.Tensor] = field(default_factory=list)  # the decoded pictures, each uint8 (height, width, 3)
    flagged: list[bool] = field(default_factory=list)  # by the safety checker, one flag per picture
    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))  # seconds

    @property
    def x_t(self) -> torch.Tensor:
        """The latents, (n, c, h, w)."""
        return self.state[:, 0]

    @property
    def total(self) -> int:
        """The number of UNet calls of this job from the first step to the last."""
        return len(self.steps)

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    @property
    def rows(self) -> int:
        """The number of samples in this job's next UNet call: with guidance two per picture."""
        return len(self.state) * (2 if self.guided[self.done] else 1)

    @property
    def pictures(self) -> list[Image.Image]:
        """The decoded pictures, as Pillow pictures."""
        return [Image.fromarray(picture.cpu().numpy()) for picture in self.pixels]

    @property
    def undecoded(self) -> int:
        """The number of this job's pictures that are not decoded yet."""
        return len(self.state) - len(self.pixels)
