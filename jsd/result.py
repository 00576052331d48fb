"""What a request became: `Result`, and every text about it: metadata, metrics, log line and notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsd import watermark
from jsd.request import Request
from jsd.version import __version__

if TYPE_CHECKING:
    from PIL import Image

GENERATOR = f"Japanese Stable Diffusion {__version__}"


@dataclass(frozen=True)
class Result:
    """The pictures of a request and how they were made.

    `images` holds the pictures that may be shown, `seeds` the seed of each. `flagged` is the number of pictures that
    the safety checker held back. `request` is the resolved request. `timings` holds seconds by stage: queue, text,
    denoise, decode, safety. `tokens` is the number of prompt tokens used, `truncated` the number of tokens cut off from
    prompt and negative prompt together. `batch_rows` is the mean number of rows in the UNet calls this request took
    part in.
    """

    images: list[Image.Image]
    seeds: list[int]
    flagged: int
    request: Request
    model: str
    timings: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    truncated: int = 0
    batch_rows: float = 0.0

    def metadata(self, index: int) -> dict[str, Any]:
        """The metadata of picture `index`: all that is needed to draw it again, and the program that made it."""
        request = self.request
        metadata = {
            "generated_by": GENERATOR,
            "model": self.model,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": self.seeds[index],
            **self._settings(),
        }
        if request.image is not None:
            metadata["start"] = "image to image" if request.mask is None else "inpainting"
            metadata["prompt_strength"] = request.prompt_strength
        return metadata | {
            "truncated_tokens": self.truncated,
            "watermark": watermark.can_mark(self.images[index].size),
            "timings": _rounded(self.timings),
        }

    def metrics(self, **timings: float) -> dict[str, Any]:
        """The figures of this result for a log or a server. `timings` are seconds of further stages."""
        return {
            "seeds": self.seeds,
            "model": self.model,
            **self._settings(),
            "batch_rows": round(self.batch_rows, 2),
            "tokens": self.tokens,
            "truncated_tokens": self.truncated,
            "flagged": self.flagged,
            "timings": _rounded({**self.timings, **timings}),
        }

    def log_line(self, **timings: float) -> str:
        """`metrics` in one line."""
        return ", ".join(f"{name} {value}" for name, value in self.metrics(**timings).items())

    def report(self, files: list[Path], **timings: float) -> list[str]:
        """Lines for the command line: one for each picture and its file, and one with the seconds of each stage."""
        request = self.request
        lines = [
            f"{file}: seed {seed}, {request.num_inference_steps} steps of {request.scheduler}"
            for file, seed in zip(files, self.seeds, strict=True)
        ]
        seconds = {**self.timings, **timings}
        return [*lines, ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())]

    def notes(self) -> list[str]:
        """What the user should know about this result, one sentence each: cut-off tokens and held-back pictures."""
        notes = []
        if self.truncated:
            notes.append(f"prompt, negative_prompt: too long, the last {self.truncated} tokens were left out")
        if self.flagged:
            notes.append(f"NSFW content detected: {self.flagged} of {self.request.num_outputs} pictures were left out")
        return notes

    def _settings(self) -> dict[str, Any]:
        names = ("width", "height", "num_inference_steps", "guidance_scale", "guidance_interval", "scheduler")
        settings = {name: getattr(self.request, name) for name in names}
        return settings | {"guidance_interval": list(self.request.guidance_interval)}


def _rounded(timings: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in timings.items()}
