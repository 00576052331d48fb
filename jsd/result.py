"""The finished pictures of a request (`Result`), and every text about them: metadata, metrics, log line and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsd import watermark
from jsd.errors import shown
from jsd.language import Text
from jsd.request import Request
from jsd.version import __version__

if TYPE_CHECKING:
    from PIL import Image

FAR = 1.5  # pictures fall apart whose width or height is more than so many times the model's own, or so many times less
GENERATOR = f"Japanese Stable Diffusion {__version__}"


@dataclass(frozen=True)
class Result:
    """The pictures of a request and how they were made.

    `images` holds the pictures that may be shown, `seeds` the seed of each. `flagged` is the number of pictures that
    the safety checker held back. `request` is the resolved request. `timings` holds seconds by stage: queue, text,
    denoise, decode, safety. `tokens` is the number of prompt tokens used. Of prompt and negative prompt together,
    `truncated` is the number of tokens cut off, `unknown` the characters that the tokenizer does not know, and
    `removed` the syntax of other tools that was taken out (see `jsd.prompt`). `batch_rows` is the mean batch size of
    the UNet calls for this request, with the samples of other requests that shared them. `own_size` is the model's own
    width and height in pixels.
    """

    images: list[Image.Image]
    seeds: list[int]
    flagged: int
    request: Request
    model: str
    timings: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    truncated: int = 0
    unknown: str = ""
    removed: Sequence[str] = ()
    batch_rows: float = 0.0
    own_size: tuple[int, int] | None = None

    def metadata(self, index: int) -> dict[str, Any]:
        """Return the metadata for the file of picture `index`: program, model, prompts, seed, settings and timings."""
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
            **self._losses(),
            "watermark": watermark.can_mark(self.images[index].size),
            "timings": _rounded(self.timings),
        }

    def metrics(self, **timings: float) -> dict[str, Any]:
        """Return a dict of seeds, settings, token counts and timings. `timings` adds the seconds of further stages."""
        return {
            "seeds": self.seeds,
            "model": self.model,
            **self._settings(),
            "batch_rows": round(self.batch_rows, 2),
            "tokens": self.tokens,
            **self._losses(),
            "flagged": self.flagged,
            "timings": _rounded({**self.timings, **timings}),
        }

    def log_line(self, **timings: float) -> str:
        """Return what `metrics` returns as one line of text. `timings` adds the seconds of more stages."""
        return ", ".join(f"{name} {value}" for name, value in self.metrics(**timings).items())

    def report(self, files: list[Path], **timings: float) -> list[str]:
        """Return lines for the command line: one for each picture and its file, and one with the seconds by stage."""
        request = self.request
        lines = [
            Text("{}: seed {}, {} steps of {}", file, seed, request.num_inference_steps, request.scheduler)
            for file, seed in zip(files, self.seeds, strict=True)
        ]
        seconds = {**self.timings, **timings}
        return [*lines, ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())]

    def notes(self) -> list[Text]:
        """Return sentences for the user, if any: on size, prompts that were not used whole, and pictures held back."""
        notes = []
        size = (self.request.width, self.request.height)
        own = self.own_size or size
        if any(max(side, own_side) > FAR * min(side, own_side) for side, own_side in zip(size, own, strict=True)):
            notes.append(
                Text(
                    "width, height: {} x {} is far from {} x {}, the model's own size; expect shreds, or the same "
                    "thing several times; sizes near the model's own come out best",
                    *size,
                    *own,
                )
            )
        if self.removed:
            notes.append(
                Text("prompt, negative_prompt: syntax of other tools was taken out: {}", _listed(self.removed))
            )
        if self.unknown:
            count, listed = len(self.unknown), _listed(dict.fromkeys(self.unknown))
            characters = Text("1 character") if count == 1 else Text("{} characters", count)
            notes.append(Text("prompt, negative_prompt: {} unknown: {}", characters, listed))
        if self.truncated:
            notes.append(Text("prompt, negative_prompt: too long, the last {} tokens were left out", self.truncated))
        if self.flagged:
            count = self.request.num_outputs
            notes.append(Text("NSFW content detected: {} of {} pictures were left out", self.flagged, count))
        return notes

    def _losses(self) -> dict[str, Any]:
        """What of the prompts was not used."""
        return {
            "truncated_tokens": self.truncated,
            "unknown_characters": len(self.unknown),
            "removed_syntax": list(self.removed),
        }

    def _settings(self) -> dict[str, Any]:
        names = ("width", "height", "num_inference_steps", "guidance_scale", "guidance_interval", "scheduler")
        settings = {name: getattr(self.request, name) for name in names}
        settings["guidance_interval"] = list(self.request.guidance_interval)
        if self.request.lora is not None:
            settings |= {"lora": self.request.lora.sha256[:12], "lora_scale": self.request.lora_scale}
        return settings


def _listed(parts: Iterable[str], most: int = 10) -> str:
    """Return the first `most` parts of a text as a list, without quotation marks, escaped for a log."""
    parts = list(parts)
    return " ".join(shown(part)[1:-1] for part in parts[:most]) + " ..." * (len(parts) > most)


def _rounded(timings: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in timings.items()}
