"""How few UNet rows a picture needs. A row is one sample in a UNet call. A picture has two in a call with guidance.

One measure is the PSNR to the picture of DDIM with 500 steps: deterministic samplers, 4 to 50 steps, with guidance at
every step. The other is the scores of the quality suite (`python -m jsd eval`): all samplers, the embedded model's own
also with guidance at some noise levels only. Fills in the template bench/sampling.md; writes docs/sampling.md and
sampling.png. Takes about 45 minutes on two cores.
"""

import contextlib
import json
import statistics
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench import PROMPTS, ROOT, add_weights, plot, table
from jsd import cli, sampling, settings, vae
from jsd.model import Components
from jsd.request import ALWAYS, Request
from jsd.schedulers import SCHEDULERS

DETERMINISTIC = ("DDIM", "K_LMS", "PNDM", "K_EULER", "K_HEUN", "DPM_SOLVER_PP_2M_KARRAS", "UNI_PC")
STEPS = (4, 6, 8, 12, 16, 25, 50)
THINGS = ("one", "spelling", "place", "two", "count")  # rows of the quality suite
CONVERGED = 500  # steps of DDIM
# The noise levels with guidance. At others a step needs one row instead of two.
INTERVALS = ((0.0, 0.8), (0.2, 1.0), (0.2, 0.8))
# The quality suite scores these: (sampler, steps, noise levels with guidance). The first is the setting of 2022.
SCORED = (
    ("K_LMS", 50, ALWAYS),
    *((name, steps, ALWAYS) for name in SCHEDULERS for steps in (8, 12)),
    ("K_EULER_ANCESTRAL", 20, ALWAYS),
    *(("K_EULER_ANCESTRAL", 12, interval) for interval in INTERVALS),
)


def add_arguments(parser: ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("--prompts", type=int, default=150, help="prompts of the quality suite (default: 150)")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", metavar="FOLDER", help="default: docs")


def run(arguments: Namespace) -> dict[str, object]:
    components = settings.load_components(arguments.weights)
    truth = draw(components, "DDIM", CONVERGED)
    near = {}  # sampler -> (rows per picture, PSNR to the converged picture), for STEPS
    for name in tqdm(DETERMINISTIC, "distance"):
        psnr = [statistics.median(map(decibels, draw(components, name, steps), truth)) for steps in STEPS]
        near[name] = [rows(components, name, steps) for steps in STEPS], [round(value, 1) for value in psnr]
    good, curves = [], {}
    for name, steps, interval in tqdm(SCORED, "scores"):
        row = {"sampler": name, "steps": steps, "guidance at": "{:g} to {:g}".format(*interval)}
        good.append(row | {"rows": rows(components, name, steps, interval)} | score(arguments, name, steps, interval))
        x, y = curves.setdefault(name, ([], []))
        x.append(good[-1]["rows"])
        y.append((good[-1]["concept"] + good[-1]["style"]) / 2)
    charts = {"PSNR to the converged picture, dB": near, "concept and style right, mean share": curves}
    plot(arguments.to / "sampling.png", "o", "UNet rows per picture", charts)
    cells = [
        {"sampler": name, **{f"{steps} steps": f"{psnr} ({n})" for steps, n, psnr in zip(STEPS, *curve, strict=True)}}
        for name, curve in near.items()
    ]
    good.sort(key=lambda row: (row["rows"], row["sampler"]))
    about = {"model": components.name, "prompts": arguments.prompts, "pictures": len(truth)}
    text = Path(__file__).with_suffix(".md").read_text("utf-8")
    (arguments.to / "sampling.md").write_text(text.format(**about, near=table(cells), good=table(good)), "utf-8")
    return {"distances": near, "scores": good}


def draw(components: Components, scheduler: str, steps: int) -> list[Image.Image]:
    """Draw a picture of each of PROMPTS."""
    request = {"scheduler": scheduler, "num_inference_steps": steps, "guidance_interval": ALWAYS}
    jobs = [sampling.prepare(components, Request(prompt, seed=0, **request)) for prompt in PROMPTS]
    while not jobs[0].finished:
        sampling.step(components, jobs, max_rows=16)
    return [Image.fromarray(picture.numpy()) for job in jobs for picture in vae.decode(components, job.x_t)]


def rows(components: Components, scheduler: str, steps: int, interval: tuple[float, float] = ALWAYS) -> int:
    """Return the number of UNet rows (samples in UNet calls) that one picture takes."""
    request = Request("犬", scheduler=scheduler, num_inference_steps=steps, guidance_interval=interval)
    job, count = sampling.prepare(components, request), 0
    while not job.finished:
        count += job.rows
        job.done += 1
    return count


def decibels(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two pictures in dB. Equal pictures have 78 dB."""
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def score(arguments: Namespace, scheduler: str, steps: int, interval: tuple[float, float]) -> dict[str, float]:
    """Run `jsd eval`. Returns the shares of right styles and of right things (mean over the rows of things)."""
    with tempfile.TemporaryDirectory() as name:
        flags = ["--weights", arguments.weights, "--again", 0, "--json", f"{name}/eval.json"]
        flags += ["--prompts", arguments.prompts, "--weapons", 0, "--typed", 0, "-i", f"scheduler={scheduler}"]
        flags += ["-i", f"num_inference_steps={steps}", "-i", f"guidance_interval={interval[0]},{interval[1]}"]
        with contextlib.redirect_stdout(sys.stderr):
            if code := cli.main(["eval", *map(str, flags)]):
                raise SystemExit(code)
        result = json.loads(Path(name, "eval.json").read_text("utf-8"))
    things = [value for name, value in result["scores"].items() if value is not None and name.split(",")[0] in THINGS]
    return {"concept": round(statistics.fmean(things), 4), "style": result["scores"]["style"]}
