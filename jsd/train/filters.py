"""Filters that decide which captioned pictures of a webdataset shard are worth training on.

The 2022 model was trained on pairs that were kept by rules like these (README, "Training"): an image-text score by a
Japanese CLIP, the picture's size, the caption's language, the probability of a watermark, no duplicates. A filter is a
pure function from the samples of a shard to one bool per sample: whether the sample is kept. Values that LAION's
metadata already holds (`similarity`, `pwatermark`, `LANGUAGE` in a sample's .json) are used as they are.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from jsd.errors import SampleError, TrainingError, shown
from jsd.language import english
from jsd.train.samples import caption_of, image_of

KANA = re.compile(r"[ぁ-ゖァ-ヺー]")
IDEOGRAPH = re.compile(r"[一-鿿々]")
HANGUL = re.compile(r"[가-힣]")
BATCH = 64


@dataclass(frozen=True)
class Sample:
    """A captioned picture of a shard. Its caption and picture are decoded only when a filter asks for them."""

    raw: dict[str, Any]

    @property
    def key(self) -> str:
        return self.raw["__key__"]

    @cached_property
    def caption(self) -> str:
        return caption_of(self.raw)

    @property
    def image(self) -> Image.Image:
        """The picture, decoded anew at every access, because a shard of decoded pictures would fill the memory."""
        return image_of(self.raw)

    @cached_property
    def size(self) -> tuple[int, int]:
        """The width and height of the picture in pixels."""
        return self.image.size

    @cached_property
    def about(self) -> dict[str, Any]:
        """The content of the sample's .json file, as a dict. Empty if there is none, or if it can't be read."""
        try:
            about = json.loads(self.raw.get("json", b"{}"))
        except (ValueError, RecursionError):
            return {}
        return about if isinstance(about, dict) else {}

    def number(self, name: str) -> float | None:
        """Return the value `name` of the sample's .json file. None if it is missing or not a number."""
        value = self.about.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


Filter = Callable[[Sequence[Sample]], list[bool]]  # True: the sample is kept


def readable(samples: Sequence[Sample]) -> list[bool]:
    """A filter: True for each sample whose picture and caption can be read."""
    return [not defect(sample) for sample in samples]


def defect(sample: Sample) -> str:
    """Return why the picture or the caption of a sample can't be read, in a few words of English. "" if both can be."""
    try:
        return "" if sample.caption and sample.size else "empty"
    except SampleError as error:
        return english(error)


def min_side(pixels: int) -> Filter:
    """Return a filter that keeps pictures whose shorter side has at least `pixels` pixels."""
    return lambda samples: [min(sample.size) >= pixels for sample in samples]


def max_aspect(ratio: float) -> Filter:
    """Return a filter that keeps pictures whose longer side is at most `ratio` times the shorter side."""
    return lambda samples: [max(sample.size) <= ratio * min(sample.size) for sample in samples]


def is_japanese(text: str) -> bool:
    """Whether a text is Japanese: it has no Hangul, and either it has kana, or its only letters are ideographs.

    A text of ideographs alone (東京都庁) may also be Chinese. It counts as Japanese, because names are often written
    this way.
    """
    text = unicodedata.normalize("NFKC", text)
    if HANGUL.search(text):
        return False
    letters = [c for c in text if KANA.match(c) or IDEOGRAPH.match(c)]
    return any(KANA.match(c) for c in letters) or (bool(letters) and sum(c.isalpha() for c in text) == len(letters))


def language(code: str) -> Filter:
    """Return a filter that keeps captions in the language `code`, which a sample's .json file names as LANGUAGE.

    Without LANGUAGE, "ja" is recognised by the caption's letters. For another `code` the filter raises `TrainingError`.
    """

    def keeps(sample: Sample) -> bool:
        label = sample.about.get("LANGUAGE")
        if isinstance(label, str):
            return label == code
        if code == "ja":
            return is_japanese(sample.caption)
        raise TrainingError(
            "language {}: {} has no LANGUAGE in its .json; only ja is recognised by its letters",
            shown(code),
            sample.key,
        )

    return lambda samples: [keeps(sample) for sample in samples]


def max_watermark(chance: float) -> Filter:
    """Return a filter that keeps pictures whose `pwatermark` (in the .json file) is at most `chance`, or unknown."""
    return lambda samples: [(sample.number("pwatermark") or 0.0) <= chance for sample in samples]


def min_similarity(least: float, score: Callable[[Sequence[Sample]], list[float]] | None = None) -> Filter:
    """Return a filter that keeps samples whose image-text score is at least `least`. `score` computes the scores.

    Without `score`, the filter reads `similarity` in the .json files, and raises `TrainingError` if a sample has none.
    """

    def stored(samples: Sequence[Sample]) -> list[float]:
        scores = [sample.number("similarity") for sample in samples]
        if None in scores:
            key = samples[scores.index(None)].key
            raise TrainingError(
                "similarity: {} has none in its .json; name a model that scores it (--clip FOLDER)", key
            )
        return scores

    return lambda samples: [value >= least for value in (score or stored)(samples)]


def fingerprint(image: Image.Image) -> int:
    """Return a 64-bit difference hash: which one of two neighbours in the rows of a 9 x 8 thumbnail is brighter.

    Pictures that look the same mostly have the same hash.
    """
    cells = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = [cells[9 * y + x] < cells[9 * y + x + 1] for y in range(8) for x in range(8)]
    return sum(bit << i for i, bit in enumerate(bits))


def no_duplicates(samples: Sequence[Sample]) -> list[bool]:
    """A filter: of samples with the same `fingerprint` of the picture and the same caption, it keeps the first."""
    seen: set[tuple[int, str]] = set()
    kept = []
    for sample in samples:
        pair = (fingerprint(sample.image), sample.caption)
        kept.append(pair not in seen)
        seen.add(pair)
    return kept


class ClipScore:
    """A callable that returns a score for each sample: the cosine between its image and text embeddings.

    `folder` holds a CLIP-like transformers model. Code in the folder is never run, and nothing is downloaded.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu"):
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        local = {"local_files_only": True, "trust_remote_code": False}
        self.model = AutoModel.from_pretrained(folder, use_safetensors=True, **local).eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        self.processor = AutoImageProcessor.from_pretrained(folder, use_fast=False, **local)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        scores = []
        for start in range(0, len(samples), BATCH):
            part = samples[start : start + BATCH]
            texts = self.tokenizer([s.caption for s in part], padding=True, truncation=True, return_tensors="pt")
            images = self.processor([s.image for s in part], return_tensors="pt")
            output = self.model(**texts.to(self.model.device), **images.to(self.model.device))
            scores += torch.cosine_similarity(output.text_embeds, output.image_embeds).tolist()
        return scores


def filter_shard(samples: Sequence[Sample], filters: dict[str, Filter]) -> tuple[list[Sample], dict[str, list[str]]]:
    """Return the samples that pass all filters, in order, and by filter name the keys of the samples it dropped.

    Each filter sees only the samples that the filters before it kept, so cheap filters come first.
    """
    kept, dropped = list(samples), {}
    for name, keeps in filters.items():
        verdicts = keeps(kept) if kept else []
        dropped[name] = [sample.key for sample, good in zip(kept, verdicts, strict=True) if not good]
        kept = [sample for sample, good in zip(kept, verdicts, strict=True) if good]
    return kept, dropped
