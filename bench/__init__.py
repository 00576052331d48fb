"""Benchmarks: `script/bench --help` lists them. docs/ has the results (speed.md, sampling.md, watermark.md).

A comparison runs our code and a peer (code around stock diffusers) in turn, with the same weights, prompts or pictures.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from jsd.errors import WeightsError
from jsd.manifest import MANIFEST, read_json

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = (
    "猫の肖像画 油絵",
    "サラリーマン 油絵",
    "富士山 水彩画",
    "東京タワー",
    "赤い背景の寿司",
    "犬",
    "桜 ドット絵",
    "鳥居",
)
EQUAL = {"scheduler": "DDIM", "num_inference_steps": 12}  # both sides draw with these settings


def add_weights(parser: ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the model folder that serving uses")


def shared_guidance(folder: Path) -> float:
    """Return a model folder's default guidance scale. Raises `WeightsError` if it has a default guidance interval."""
    defaults = read_json(folder / MANIFEST)["defaults"]
    if "guidance_interval" in defaults:
        raise WeightsError(f"{folder}: its defaults have a guidance_interval, which stock diffusers can't follow")
    return defaults["guidance_scale"]


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return a Markdown table of dicts with the same keys, one row each. Floats are shares, shown as percentages."""
    cells = [[f"{value:.1%}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in [list(rows[0]), *cells]]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def plot(file: Path, style: str, xlabel: str, charts: dict[str, dict[str, tuple[Sequence, Sequence]]]) -> None:
    """Draw charts side by side into an image file: title -> label of a curve -> (x, y). The x axes are logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure((5 * len(charts), 4), layout="constrained")
    for axis, (title, curves) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        for label, (x, y) in curves.items():
            axis.plot(x, y, style, label=label)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(title=title, xlabel=xlabel)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(file, dpi=100)
