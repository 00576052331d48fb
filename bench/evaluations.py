"""How few UNet rows a picture needs: every sampler at several numbers of steps, with guidance everywhere or not.

    script/bench-sampling [--weights FOLDER] [--prompts 150] [--to docs]

Two measures against the rows a picture costs: how far it is from the converged one (DDIM, 1000 steps, the same start
latents), for the samplers that follow the same path; and the quality suite's scores (`python -m jsd eval`). Writes
sampling.md and sampling.png into the folder `--to`; the last line is JSON.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from embedded import judge as judges
from embedded.drawings import fetch, load_drawings
from embedded.evaluate import draw, report
from embedded.prompts import Task, sample_pairs
from jsd import sampling, settings, vae
from jsd.model import Components
from jsd.request import MAX_STEPS, Request
from jsd.schedulers import make_scheduler, set_timesteps

DETERMINISTIC = ("DDIM", "K_LMS", "PNDM", "K_EULER", "K_HEUN", "DPM_SOLVER_PP_2M_KARRAS", "UNI_PC")
STEPS = (4, 6, 8, 12, 16, 25, 50)
CONVERGED = 1000  # steps of DDIM
COMPARED = 24  # pictures compared with the converged ones
BATCH = 8
# Of the samplers that draw well with few steps, which noise levels are worth a second row.
INTERVALS = ((0.0, 0.8), (0.2, 1.0), (0.2, 0.8), (0.4, 1.0), (0.0, 0.6))


@dataclass(frozen=True)
class Setting:
    scheduler: str
    steps: int
    interval: tuple[float, float] = (0.0, 1.0)

    def request(self, prompt: str, seed: int) -> Request:
        return Request(
            prompt,
            seed=seed,
            scheduler=self.scheduler,
            num_inference_steps=min(self.steps, MAX_STEPS),
            guidance_interval=self.interval,
        )


def run(components: Components, setting: Setting, prompts: Sequence[str]) -> tuple[np.ndarray, float]:
    """Pictures of the prompts, uint8 (n, height, width, 3), prompt i with seed i, and the UNet rows each cost."""
    pictures, rows = [], 0
    for start in range(0, len(prompts), BATCH):
        batch = list(enumerate(prompts))[start : start + BATCH]
        jobs = [sampling.prepare(components, setting.request(prompt, i)) for i, prompt in batch]
        for job in jobs if setting.steps > MAX_STEPS else ():  # nobody else may ask for so many
            config = components.scheduler_config | {"timestep_spacing": "trailing"}  # the one that has so many
            job.scheduler = make_scheduler(setting.scheduler, config)
            set_timesteps(job.scheduler, setting.steps)
            job.timesteps = job.scheduler.timesteps
        while not jobs[0].finished:
            rows += sum(len(job.next_context) for job in jobs)
            sampling.step(components, jobs)
        pictures += [vae.decode(components, job.x_t)[0] for job in jobs]
    return np.stack([np.asarray(picture) for picture in pictures]), rows / len(prompts)


def decibels(pictures: np.ndarray, truth: np.ndarray) -> float:
    """The median PSNR of pictures."""
    error = ((pictures.astype(float) - truth) ** 2).mean((1, 2, 3))
    return round(statistics.median((10 * np.log10(255**2 / np.maximum(error, 1e-3))).tolist()), 1)


def distances(components: Components, prompts: Sequence[str]) -> list[dict]:
    """For every sampler and number of steps: rows a picture, and decibels to the converged picture."""
    truth, _ = run(components, Setting("DDIM", CONVERGED), prompts)
    rows = []
    for setting in tqdm([Setting(name, steps) for name in DETERMINISTIC for steps in STEPS], "distance"):
        pictures, cost = run(components, setting, prompts)
        rows.append({"scheduler": setting.scheduler, "steps": setting.steps, "rows": cost})
        rows[-1]["decibels"] = decibels(pictures, truth)
    return rows


def scores(components: Components, tasks: Sequence[Task], judge: judges.Judge, chosen: Sequence[Setting]) -> list[dict]:
    """For every setting: rows a picture, and the shares of right concepts and styles."""
    found = []
    for setting in tqdm(chosen, "scores"):
        defaults = replace(
            components.defaults,
            scheduler=setting.scheduler,
            num_inference_steps=setting.steps,
            guidance_interval=setting.interval,
        )
        images = draw(replace(components, defaults=defaults), [task.prompt for task in tasks], 0)
        seen = iter(judge([image for image in images if image is not None]))
        result = report(tasks, [None if image is None else next(seen) for image in images])
        concept = statistics.fmean(result["top1"].values())
        _, cost = run(components, setting, [tasks[0].prompt])
        row = {"scheduler": setting.scheduler, "steps": setting.steps, "interval": setting.interval, "rows": cost}
        found.append({**row, "concept": round(concept, 4), "style": result["style"]})
    return found


def candidates() -> Iterator[Setting]:
    """What is scored: that of 2022, every sampler at few steps, and two of them with less guidance."""
    yield Setting("K_LMS", 50)
    for name in (*DETERMINISTIC, "K_EULER_ANCESTRAL", "LCM"):
        for steps in (6, 8):
            yield Setting(name, steps)
    for name in ("DDIM", "K_EULER"):
        yield Setting(name, 12)
        for interval in INTERVALS:
            yield Setting(name, 8, interval)


def markdown(near: Sequence[dict], good: Sequence[dict]) -> str:
    """Both tables."""
    lines = ["| sampler | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |", "|---" * (len(STEPS) + 1) + "|"]
    for name in DETERMINISTIC:
        cells = [f"{row['decibels']} ({row['rows']:g})" for row in near if row["scheduler"] == name]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| sampler | steps | guidance at | rows | concept | style |", "|---|---|---|---|---|---|"]
    for row in sorted(good, key=lambda row: (row["rows"], row["scheduler"])):
        low, high = row["interval"]
        lines.append(
            f"| {row['scheduler']} | {row['steps']} | {low:g} to {high:g} | {row['rows']:g} | {row['concept']:.1%} "
            f"| {row['style']:.1%} |"
        )
    return "\n".join(lines)


def draw_plot(near: Sequence[dict], good: Sequence[dict], file: Path) -> None:
    """Nearness to the converged picture, and the scores, against the rows of a picture."""
    from matplotlib.figure import Figure

    figure = Figure((11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in DETERMINISTIC:
        rows = [row for row in near if row["scheduler"] == name]
        left.plot([row["rows"] for row in rows], [row["decibels"] for row in rows], "o-", label=name)
    left.set(xscale="log", xlabel="UNet rows a picture", title="PSNR to the converged picture, dB")
    for name in dict.fromkeys(row["scheduler"] for row in good):
        rows = sorted((row for row in good if row["scheduler"] == name), key=lambda row: row["rows"])
        both = [(row["concept"] + row["style"]) / 2 for row in rows]
        right.plot([row["rows"] for row in rows], both, "o", label=name, alpha=0.8)
    right.set(xscale="log", xlabel="UNet rows a picture", title="concept and style right, mean share")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench-sampling", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the one that serving would use")
    parser.add_argument("--prompts", type=int, default=150, help="of the quality suite")
    parser.add_argument("--to", type=Path, default=Path("docs"), help="where sampling.md and sampling.png go")
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="icon sets and the judge")
    args = parser.parse_args()
    components = settings.load_components(args.weights)
    fetch(args.workdir / "icons")
    drawings = load_drawings(args.workdir / "icons")
    tasks = sample_pairs(drawings, args.prompts, 0)
    judge = judges.get(drawings, args.workdir / "eval")
    near = distances(components, [task.prompt for task in tasks[:COMPARED]])
    good = scores(components, tasks, judge, list(candidates()))
    told = f"{components.name}, {args.prompts} prompts; in brackets the UNet rows of a picture"
    text = (Path(__file__).with_name("sampling.md").read_text("utf-8")).replace("TABLES", markdown(near, good))
    (args.to / "sampling.md").write_text(text.replace("MODEL", told), "utf-8")
    draw_plot(near, good, args.to / "sampling.png")
    print(json.dumps({"distances": near, "scores": good}))


if __name__ == "__main__":
    main()
