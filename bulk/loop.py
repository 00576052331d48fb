"""The loop of a run: batches of rows go to the actors, their pictures come back and go to the folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow.compute as compute
from tqdm import tqdm

from bulk import ray_pool
from bulk.drawing import FAILED, FLAGGED
from bulk.output import Output
from bulk.pool import memory_of, share
from bulk.rows import Problem, Row, batches_of, model_digest
from jsd.language import Text, english, language
from jsd.manifest import find_weights
from jsd.settings import max_batch_rows

# The most UNet rows that `jsd.device` puts into a call. A batch has as many, so that it fills one.
CPU_ROWS, GPU_ROWS = 16, 64
DIED = Text("its process died each time (of too little memory?); run the command again, or leave the row out")


@dataclass
class Tally:
    """What has been drawn since `began`, in seconds.

    `steady` is how many batches come before the speed counts: those that the actors were given at the start come almost
    together. Then `first` is how many pictures had come, and after how many seconds.
    """

    began: float
    steady: int
    batches: int = 0
    pictures: int = 0
    flagged: int = 0
    first: tuple[int, float] | None = None

    def add(self, pictures: int, flagged: int) -> None:
        """Count a batch whose pictures have just come."""
        self.batches += 1
        self.pictures += pictures
        self.flagged += flagged
        if self.batches == self.steady:
            self.first = (self.pictures, time.monotonic() - self.began)

    def line(self) -> str:
        """Return the sentence for the end of a run. Its speed leaves out the start of Ray and of the model."""
        seconds = time.monotonic() - self.began
        text = Text("{} pictures in {:.0f} s", self.pictures, seconds)
        text += Text(", {} of them flagged", self.flagged) if self.flagged else ""
        if self.first and self.pictures > self.first[0]:
            count, start = self.first
            speed = (self.pictures - count) / (seconds - start)
            text += Text(": {} in the first {:.0f} s, then {:.2f} a second", count, start, speed)
        return text


def draw(
    rows: Sequence[Row], done: Collection[int], output: Output, actors: int | None, address: str | None
) -> list[Problem]:
    """Draw the rows whose numbers are not in `done` into the folder of a run, with a progress bar on stderr. Returns
    why some of them can't be drawn.

    All rows are put into batches, so that a row has the same company in every run. A batch is in the folder whole, but
    for rows that failed.

    Raises `InputError` for `actors` and `address`, and the errors of `settings.load_components`.
    """
    unet_rows = max_batch_rows()
    weights = find_weights().absolute()
    print(Text("weights {}; Ray starts, then each actor loads them: this takes seconds", weights), flush=True)
    environment, model, began = _settings(), model_digest(), time.monotonic()
    problems: list[Problem] = []
    missing = {row.number for row in rows} - set(done)
    count = len(missing)
    with ray_pool.quiet() as terminal, ray_pool.running(address):
        on_gpus = (os.environ.get("JSD_DEVICE") or "cuda").startswith("cuda")
        pool = share(ray_pool.machines(), actors, on_gpus, memory_of(weights))
        tally = Tally(began, steady=pool.actors * ray_pool.IN_FLIGHT)
        unet_rows = unet_rows or (GPU_ROWS if pool.gpus else CPU_ROWS)
        batches = [[row for row in batch if row.number in missing] for batch in batches_of(rows, unet_rows)]
        batches = [json.dumps([(row.number, row.digest, row.inputs) for row in batch]) for batch in batches if batch]
        with tqdm(total=count, unit=Text("row"), file=terminal) as bar:
            for table in ray_pool.draw_all(batches, pool, environment, model):
                missing -= set(table["row"].to_pylist())
                bar.update(count - len(missing) - bar.n)
                failed = compute.equal(table["status"], FAILED)
                for row in table.filter(failed).select(["row", "input", "reason", "said"]).to_pylist():
                    problems.append(Problem(**row))
                pictures = table.filter(compute.invert(failed))
                if len(pictures):
                    output.add(pictures)
                    tally.add(len(pictures), compute.sum(compute.equal(pictures["status"], FLAGGED)).as_py())
    print(tally.line(), flush=True)
    return problems + [Problem(row, "", english(DIED), Text("{}", DIED)) for row in sorted(missing)]


def _settings() -> dict[str, str]:
    """Return the settings (JSD_...) for the actors, which run in another folder: paths are absolute."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("JSD_")}
    paths = {name: os.path.abspath(settings[name]) for name in ("JSD_WEIGHTS", "JSD_LORA") if settings.get(name)}
    return settings | paths | {"JSD_LANG": language()}
