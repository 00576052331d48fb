"""Which captioned pictures are worth training on: filters over a shard, and a report of what each one dropped.

    python -m jsd train filter SHARDS FOLDER --language ja --min-side 256 --min-similarity 0.28 --clip FOLDER

The 2022 model was trained on pairs kept by rules like these (README, "Training"): an image-text score by a Japanese
CLIP, the picture's size, the caption's language, the chance of a watermark, no duplicates. A filter is a pure function:
the samples of a shard in, for each whether it stays out. What LAION's metadata already says (`similarity`,
`pwatermark`, `LANGUAGE` in a sample's .json) is used as it is.
"""

import argparse
import json
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import webdataset
from PIL import Image
from tqdm import tqdm

from jsd.errors import SampleError
from jsd.train.data import Skipped, caption_of, find_shards, image_of, raw_samples

KANA = re.compile(r"[ぁ-ゖァ-ヺー]")
IDEOGRAPH = re.compile(r"[一-鿿々]")
HANGUL = re.compile(r"[가-힣]")
BATCH = 64


@dataclass(frozen=True)
class Sample:
    """A raw sample of a shard, read as far as filters ask."""

    raw: dict

    @property
    def key(self) -> str:
        return self.raw["__key__"]

    @cached_property
    def caption(self) -> str:
        return caption_of(self.raw)

    @property
    def image(self) -> Image.Image:
        """Decoded anew each time: a shard of decoded pictures would fill the memory."""
        return image_of(self.raw)

    @cached_property
    def size(self) -> tuple[int, int]:
        return self.image.size

    @cached_property
    def about(self) -> dict:
        """What the sample's .json says; nothing if there is none that can be read."""
        try:
            about = json.loads(self.raw.get("json", b"{}"))
        except (ValueError, RecursionError):
            return {}
        return about if isinstance(about, dict) else {}

    def number(self, name: str) -> float | None:
        """A number of the .json, if it is one."""
        value = self.about.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


Filter = Callable[[Sequence[Sample]], list[bool]]  # True: stays


def readable(samples: Sequence[Sample]) -> list[bool]:
    """Those whose picture and caption can be read."""

    def check(sample: Sample) -> bool:
        try:
            return bool(sample.caption and sample.size)
        except SampleError:
            return False

    return [check(sample) for sample in samples]


def min_side(pixels: int) -> Filter:
    """Pictures whose shorter side has at least so many pixels."""
    return lambda samples: [min(sample.size) >= pixels for sample in samples]


def max_aspect(ratio: float) -> Filter:
    """Pictures whose longer side is at most `ratio` times the shorter one."""
    return lambda samples: [max(s.size) <= ratio * min(s.size) for s in samples]


def is_japanese(text: str) -> bool:
    """Whether a caption is Japanese: it has kana, or ideographs and no other letters; and no Hangul.

    A caption of ideographs alone (東京都庁) may be Chinese as well; it is kept, because names are often written so.
    """
    text = unicodedata.normalize("NFKC", text)
    if HANGUL.search(text):
        return False
    own = [c for c in text if KANA.match(c) or IDEOGRAPH.match(c)]
    return any(KANA.match(c) for c in own) or (bool(own) and sum(c.isalpha() for c in text) == len(own))


def language(code: str) -> Filter:
    """Captions in a language: by the .json's LANGUAGE if there, else, for "ja", by their letters.

    Raises ValueError, when called, for another language and a sample that does not say its own.
    """

    def stays(sample: Sample) -> bool:
        said = sample.about.get("LANGUAGE")
        if isinstance(said, str):
            return said == code
        if code == "ja":
            return is_japanese(sample.caption)
        raise ValueError(f"language {code!r}: {sample.key} has no LANGUAGE in its .json; only ja is told by letters")

    return lambda samples: [stays(sample) for sample in samples]


def max_watermark(chance: float) -> Filter:
    """Pictures that carry a watermark with at most this probability (`pwatermark`); unknown ones stay."""
    return lambda samples: [(s.number("pwatermark") or 0.0) <= chance for s in samples]


def min_similarity(least: float, score: Callable[[Sequence[Sample]], list[float]] | None = None) -> Filter:
    """Pairs whose image-text score is at least this: by `score`, else the .json's `similarity`.

    Without `score`, raises ValueError, when called, for a sample that has none.
    """

    def said(samples: Sequence[Sample]) -> list[float]:
        scores = [sample.number("similarity") for sample in samples]
        if None in scores:
            key = samples[scores.index(None)].key
            raise ValueError(f"similarity: {key} has none in its .json; name a model that can score it (--clip FOLDER)")
        return scores

    return lambda samples: [value >= least for value in (score or said)(samples)]


def fingerprint(image: Image.Image) -> int:
    """A 64-bit difference hash: which of neighbouring cells of a 9 x 8 thumbnail is brighter. Alike pictures agree."""
    cells = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = [cells[9 * y + x] < cells[9 * y + x + 1] for y in range(8) for x in range(8)]
    return sum(bit << i for i, bit in enumerate(bits))


def no_duplicates(samples: Sequence[Sample]) -> list[bool]:
    """The first of the pictures of a shard that have one fingerprint and one caption."""
    seen: set[tuple[int, str]] = set()
    stays = []
    for sample in samples:
        mark = (fingerprint(sample.image), sample.caption)
        stays.append(mark not in seen)
        seen.add(mark)
    return stays


class ClipScore:
    """Cosine of image and text embeddings by a CLIP-like transformers model in a local folder, its code its own."""

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
    """The samples that pass all filters, in order; and for each filter the keys of those it dropped.

    Each filter sees only what the ones before it kept, so the cheap ones come first.
    """
    kept, dropped = list(samples), {}
    for name, stays in filters.items():
        verdicts = stays(kept) if kept else []
        dropped[name] = [sample.key for sample, good in zip(kept, verdicts, strict=True) if not good]
        kept = [sample for sample, good in zip(kept, verdicts, strict=True) if good]
    return kept, dropped


def read_shard(url: str) -> tuple[list[Sample], str]:
    """The samples of a shard as far as it can be read, and what was wrong with the rest ("" if nothing was)."""
    skipped: list[Skipped] = []
    return [Sample(raw) for raw in raw_samples(url, skipped)], skipped[0].reason if skipped else ""


def write_shard(samples: Sequence[Sample], file: Path) -> None:
    """Write samples as a shard, byte for byte, to a temporary name first."""
    work = file.with_suffix(".tmp")
    with webdataset.TarWriter(str(work), encoder=False) as out:
        for sample in samples:
            out.write({k: v for k, v in sample.raw.items() if k == "__key__" or not k.startswith("__")})
    os.replace(work, file)


def main(argv: Sequence[str]) -> None:
    """Filter shards into a folder; a shard that is there already is left alone, so a second run goes on."""
    parser = argparse.ArgumentParser(prog="python -m jsd train filter", description=__doc__.split("\n")[0])
    parser.add_argument("shards", help="a folder of *.tar, or a pattern such as data/{00000..00099}.tar")
    parser.add_argument("folder", type=Path, help="where the shards that remain go, and report.json")
    parser.add_argument("--min-side", type=int, metavar="PIXELS")
    parser.add_argument("--max-aspect", type=float, metavar="RATIO")
    parser.add_argument("--language", metavar="CODE", help="e.g. ja")
    parser.add_argument("--max-watermark", type=float, metavar="CHANCE", help="of pwatermark in the .json")
    parser.add_argument("--min-similarity", type=float, metavar="COSINE")
    parser.add_argument("--clip", metavar="FOLDER", help="a CLIP-like model that scores; default: what the .json says")
    parser.add_argument("--device", default="cpu", help="where the CLIP-like model runs, e.g. cuda (default: cpu)")
    parser.add_argument("--keep-duplicates", action="store_true")
    args = parser.parse_args(argv)
    filters: dict[str, Filter] = {"readable": readable}
    for name, make in (
        ("language", language),
        ("max_watermark", max_watermark),
        ("min_side", min_side),
        ("max_aspect", max_aspect),
    ):
        if getattr(args, name) is not None:
            filters[name] = make(getattr(args, name))
    if not args.keep_duplicates:
        filters["no_duplicates"] = no_duplicates
    if args.min_similarity is not None:
        score = ClipScore(args.clip, args.device) if args.clip else None
        filters["min_similarity"] = min_similarity(args.min_similarity, score)

    urls = find_shards(args.shards)
    names = [Path(url).name for url in urls]
    if len(set(names)) < len(names):
        raise ValueError(f"{args.shards}: several shards are called {max(names, key=names.count)}; filter them apart")
    for url in urls:
        if Path(url).exists() and Path(url).resolve() == (args.folder / Path(url).name).resolve():
            raise ValueError(f"{args.folder}: holds the shards that are to be filtered; name another folder")
    args.folder.mkdir(parents=True, exist_ok=True)
    file = args.folder / "report.json"
    settings = {name: value for name, value in vars(args).items() if name not in ("shards", "folder")}
    report = json.loads(file.read_text("utf-8")) if file.exists() else {"settings": settings, "shards": {}}
    if report["settings"] != settings:
        raise ValueError(f"{file}: made with other filters ({report['settings']}); remove the folder or name another")
    rows = report["shards"]
    for url in tqdm(urls, "shards"):
        target = args.folder / Path(url).name
        if target.exists() and target.name in rows:
            continue
        samples, broken = read_shard(url)
        kept, dropped = filter_shard(samples, filters)
        write_shard(kept, target)
        rows[target.name] = {"samples": len(samples), "kept": len(kept), "broken": broken, "dropped": dropped}
        work = file.with_suffix(".tmp")
        work.write_text(json.dumps(report, ensure_ascii=False, indent=1), "utf-8")
        os.replace(work, file)
    total, kept = (sum(row[name] for row in rows.values()) for name in ("samples", "kept"))
    for name in filters:
        print(f"{name}: dropped {sum(len(row['dropped'].get(name, ())) for row in rows.values())}")
    broken = [name for name, row in rows.items() if row["broken"]]
    if broken:
        print(f"{len(broken)} shards could not be read to their end, {broken[0]} first")
    print(f"kept {kept} of {total} samples; {file} names the others")
