"""How often the watermark is found: in marked pictures that were saved, compressed or scaled, and in unmarked pictures.

The 100 marked ones are 95 pictures of the model and 5 of one colour. The 1000 unmarked ones are rendered scenes, other
pictures of the model, and the same 5 of one colour. Writes docs/watermark.md.
"""

import io
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench import ROOT, add_weights, table
from bench.sampling import decibels
from embedded.generate import decoded_jobs
from embedded.scenes import load_assets, prompt_for, render, sample_scene
from embedded.scenes.icons import fetch
from jsd import settings, watermark
from jsd.request import Request

OWN, OTHERS = 100, 1000
PLAIN = ("white", "black", "grey", "#e63c3c", "#fadc50")


def saved(image: Image.Image, **options: object) -> Image.Image:
    """Save a picture in memory with Pillow's `options`, and return it as read back, RGB."""
    image.save(file := io.BytesIO(), **options)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, how: Image.Resampling) -> Image.Image:
    """Scale a picture to 90% of its size and back, with the resampling filter `how`. Returns a new picture."""
    return image.resize((round(image.width * 0.9), round(image.height * 0.9)), how).resize(image.size, how)


DAMAGES = {
    "PNG": partial(saved, format="PNG"),
    "JPEG 90": partial(saved, format="JPEG", quality=90),
    "JPEG 80": partial(saved, format="JPEG", quality=80),
    "WebP 80": partial(saved, format="WEBP", quality=80),
    "90% and back, Lanczos": partial(scaled, how=Image.Resampling.LANCZOS),
    "90% and back, bilinear": partial(scaled, how=Image.Resampling.BILINEAR),
    "90% and back, JPEG 80": lambda image: saved(scaled(image, Image.Resampling.LANCZOS), format="JPEG", quality=80),
}


def add_arguments(parser: ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("--to", type=Path, default=ROOT / "docs", metavar="FOLDER", help="default: docs")
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs", help="icon sets (default: runs)")


def run(arguments: Namespace) -> dict[str, object]:
    components = settings.load_components(arguments.weights)
    fetch(arguments.workdir / "icons")
    assets, rng = load_assets(arguments.workdir / "icons"), np.random.default_rng(0)
    prompts = [prompt_for(sample_scene(rng, assets)) for _ in range(OWN + OTHERS // 4)]
    jobs = decoded_jobs(components, [Request(prompt, seed=i) for i, prompt in enumerate(prompts)])
    pictures = [job.pictures[0] for job in tqdm(jobs, "drawing", len(prompts))]
    plain = [Image.new("RGB", pictures[0].size, colour) for colour in PLAIN]
    own, others = [*pictures[: OWN - len(plain)], *plain], [*pictures[OWN:], *plain]
    scenes = [sample_scene(rng, assets) for _ in range(OTHERS - len(others))]
    others += [Image.fromarray(render(scene, rng, assets)) for scene in tqdm(scenes, "rendering")]
    marked = [watermark.embed(picture) for picture in tqdm(own, "marking")]
    psnr = [decibels(*pair) for pair in zip(own, marked, strict=True)]
    damaged = {name: map(damage, marked) for name, damage in DAMAGES.items()} | {"unmarked": others}
    found = {name: [watermark.detect(each) for each in pictures] for name, pictures in tqdm(damaged.items(), "damages")}
    rows = [row(name, detections) for name, detections in found.items()]
    figures = {"mean": round(statistics.fmean(psnr), 1), "worst": round(min(psnr), 1)}
    figures["most"] = round(max(detection.agreement for detection in found["unmarked"]), 3)
    text = Path(__file__).with_suffix(".md").read_text("utf-8")
    text = text.format(own=OWN, plain=len(PLAIN), others=OTHERS, table=table(rows), **figures)
    (arguments.to / "watermark.md").write_text(text, "utf-8")
    return {**figures, "pictures": rows}


def row(name: str, found: Sequence[watermark.Detection]) -> dict[str, object]:
    """Return a row of the report's table: how many of the pictures `name` count as marked, and how many bits agree."""
    agreement = [detection.agreement for detection in found]
    return {
        "pictures": name,
        "marked": f"{sum(detection.marked for detection in found)} of {len(found)}",
        "bits that agree, mean": round(statistics.fmean(agreement), 3),
        "least": round(min(agreement), 3),
        "chance of the least": f"{max(detection.chance for detection in found):.0e}",
    }
