"""What is left of the watermark: `script/bench-watermark [--weights FOLDER] [--to docs]`.

100 pictures of the model's own, five of them of one colour, are marked, saved and scaled in every way of DAMAGES, and
looked at; and so are 1000 that are not marked: drawings by hand in every style, pictures of the model, and plain
colours. Writes watermark.md into the folder `--to`; the last line is JSON.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from embedded.drawings import Drawing, fetch, load_drawings
from embedded.generate import decoded_jobs
from embedded.prompts import sample_pairs
from embedded.styles import STYLES, render
from jsd import settings, watermark
from jsd.model import Components
from jsd.request import Request

OWN, OTHERS = 100, 1000
PLAIN = ("white", "black", "grey", "#e63c3c", "#fadc50")


def saved(image: Image.Image, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, **options)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, scale: float, how: Image.Resampling) -> Image.Image:
    """Scaled by `scale`, and back to its size."""
    return image.resize((round(image.width * scale), round(image.height * scale)), how).resize(image.size, how)


HEAD = """# The watermark

`script/bench-watermark` (two minutes): {own} pictures of the embedded model's, {plain} of them of one colour, and
{others} that are not marked: drawings by hand, the model's own before they are marked, plain colours. A picture counts
as marked when an unmarked one would agree as well less than once in a million times. How the mark is made:
`jsd/watermark.py`. `python -m jsd detect-watermark FILE...` looks for it.
"""
DAMAGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "PNG": lambda image: saved(image, format="PNG"),
    "JPEG 90": lambda image: saved(image, format="JPEG", quality=90),
    "JPEG 80": lambda image: saved(image, format="JPEG", quality=80),
    "WebP 80": lambda image: saved(image, format="WEBP", quality=80),
    "90 % and back, Lanczos": lambda image: scaled(image, 0.9, Image.Resampling.LANCZOS),
    "90 % and back, bilinear": lambda image: scaled(image, 0.9, Image.Resampling.BILINEAR),
    "90 % and back, JPEG 80": lambda image: saved(
        scaled(image, 0.9, Image.Resampling.LANCZOS), format="JPEG", quality=80
    ),
}


def unmarked(components: Components, prompts: Sequence[str]) -> list[Image.Image]:
    """A picture a prompt, prompt i with seed i, before it is marked."""
    requests = [Request(prompt, seed=i) for i, prompt in enumerate(prompts)]
    jobs = decoded_jobs(components, requests)
    return [job.pictures[0] for job in tqdm(jobs, "drawing", len(requests))]


def by_hand(drawings: Sequence[Drawing], count: int) -> list[Image.Image]:
    """`count` different drawings, each in a style."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(drawings), count, replace=False)
    styles = list(STYLES)
    return [render(drawings[i].rgba, styles[k % len(styles)]) for k, i in enumerate(tqdm(chosen, "others"))]


def decibels(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio, dB."""
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return float(10 * np.log10(255**2 / error))


def figures(pictures: Sequence[Image.Image], others: Sequence[Image.Image]) -> dict:
    """What is detected of `pictures`, which are marked here, and of `others`, which are not."""
    marked = [watermark.embed(picture) for picture in tqdm(pictures, "marking")]
    noise = [decibels(*pair) for pair in zip(pictures, marked, strict=True)]
    damaged = {}
    for name, damage in DAMAGES.items():
        found = [watermark.detect(damage(picture)) for picture in tqdm(marked, name)]
        damaged[name] = summary(found) | {"chance": max(detection.chance for detection in found)}
    found = [watermark.detect(picture) for picture in tqdm(others, "not ours")]
    return {
        "pictures": len(pictures),
        "psnr": {"mean": round(float(np.mean(noise)), 1), "worst": round(min(noise), 1)},
        "damages": damaged,
        "others": summary(found) | {"pictures": len(others), "most": max(d.agreement for d in found)},
    }


def summary(found: Sequence[watermark.Detection]) -> dict[str, float]:
    agreement = [detection.agreement for detection in found]
    return {
        "detected": sum(detection.marked for detection in found),
        "mean": round(float(np.mean(agreement)), 3),
        "least": round(min(agreement), 3),
    }


def markdown(result: dict) -> str:
    """docs/watermark.md."""
    lines = [
        HEAD.format(own=result["pictures"], plain=len(PLAIN), others=result["others"]["pictures"]),
        "| | marked | bits that agree, mean | least | odds of the least by chance |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["damages"].items():
        detected = f"{row['detected']} of {result['pictures']}"
        lines.append(f"| {name} | {detected} | {row['mean']:.1%} | {row['least']:.1%} | {row['chance']:.0e} |")
    others = result["others"]
    lines += [
        f"| not ours | {others['detected']} of {others['pictures']} | {others['mean']:.1%} | {others['least']:.1%} "
        f"(most {others['most']:.1%}) | |",
        "",
        f"What the mark changes: PSNR {result['psnr']['mean']} dB in the mean, {result['psnr']['worst']} dB at worst.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the one that serving would use")
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="icon sets (default: runs)")
    parser.add_argument("--to", type=Path, default=Path("docs"), metavar="FOLDER", help="default: docs")
    args = parser.parse_args()
    components = settings.load_components(args.weights)
    fetch(args.workdir / "icons")
    drawings = load_drawings(args.workdir / "icons")
    prompts = [task.prompt for task in sample_pairs(drawings, OWN + OTHERS // 4, seed=0)]
    pictures = unmarked(components, prompts)
    size = (components.defaults.width, components.defaults.height)
    plain = [Image.new("RGB", size, colour) for colour in PLAIN]
    own, others = [*pictures[: OWN - len(plain)], *plain], [*pictures[OWN:], *plain]
    others += by_hand(drawings, OTHERS - len(others))
    result = figures(own, others)
    (args.to / "watermark.md").write_text(markdown(result), encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
