"""Draw rows with an engine, and give each picture, or the reason why there is none, as a row of a table.

`Drawer` is what an actor of Ray runs. It needs no ray.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bulk.rows import Problem, make_request, model_digest
from jsd.errors import JSDError, NSFWError, QueueFullError, SettingError
from jsd.request import Request

if TYPE_CHECKING:  # torch takes seconds, and only actors need it
    from jsd.engine import Engine
    from jsd.result import Result

DRAWN, FLAGGED, FAILED = "drawn", "flagged", "failed"
NO_MODEL = "no model"  # there are no pictures at all, for this reason
# What the table of a run says of each picture. A row of the prompts' file has as many as its num_outputs, from 0.
COLUMNS = pa.schema(
    {
        "row": pa.int64(),
        "picture": pa.int64(),
        "status": pa.string(),
        "seed": pa.int64(),
        "prompt": pa.string(),
        "negative_prompt": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "num_inference_steps": pa.int64(),
        "guidance_scale": pa.float64(),
        "guidance_interval": pa.list_(pa.float64()),
        "scheduler": pa.string(),
        "lora": pa.string(),
        "lora_scale": pa.float64(),
        "model": pa.string(),
        "digest": pa.string(),
    }
)
# What comes from an actor: also the bytes of the picture's file, its name's suffix, its metadata as JSON, and the
# reason of a row that failed. `row` and `reason` alone have a value then.
DRAWINGS = pa.schema(
    [
        *COLUMNS,
        pa.field("suffix", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("data", pa.large_binary()),
        pa.field("input", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


class Drawer:
    """Draws batches of rows with one engine, which several threads may share."""

    def __init__(self, environment: Mapping[str, str], model: str):
        """Load the model that the settings in `environment` (JSD_...) choose. It has to be `model`, a `model_digest`.

        If that fails, every batch says why. If the engine is lost, the process ends, and Ray starts another.
        """
        from jsd import settings

        os.environ.update(environment)
        self.reason = ""
        try:
            if model_digest() != model:
                raise SettingError("JSD_WEIGHTS, JSD_LORA: this machine has another model than the one that began")
            self.engine = settings.make_engine(lambda error: os._exit(1))
        except (JSDError, OSError) as error:
            self.reason = str(error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Draw the rows of a batch, which is a table of one row with the column `rows`: a JSON list of [row, digest,
        inputs]. Returns a table of DRAWINGS.
        """
        if self.reason:
            return pa.Table.from_pylist([{"status": NO_MODEL, "reason": self.reason}], schema=DRAWINGS)
        return draw(self.engine, json.loads(batch["rows"][0].as_py()))


def draw(engine: Engine, rows: Sequence[tuple[int, str, str]]) -> pa.Table:
    """Draw rows (number, digest, inputs) together. Returns a table of DRAWINGS: for each row its pictures, or why not.

    Raises nothing for a row that can't be drawn, or whose pictures the safety checker flags.
    """
    found: list[dict[str, Any]] = []
    started: deque[tuple[int, str, Request, Future[Result]]] = deque()

    def finish() -> None:
        """Wait for the row that was started first. Nothing holds its adapter afterwards."""
        number, digest, request, future = started.popleft()
        try:
            pictures = _pictures(request, future)
        except Exception as error:  # noqa: BLE001 - it belongs to this row
            found.append(_failed(number, error))
        else:
            common = {name: getattr(request, name) for name in COLUMNS.names if hasattr(request, name)}
            common |= {"row": number, "digest": digest, "model": engine.components.name}
            common["lora"] = request.lora and request.lora.sha256[:12]
            found.extend(common | picture for picture in pictures)

    def start(number: int, digest: str, inputs: str) -> None:
        request = make_request(inputs)
        while True:
            try:
                resolved = engine.resolve(request)
                return started.append((number, digest, resolved, engine.submit(resolved)))
            except QueueFullError:  # the engine's queue, or its memory for adapters
                if started:
                    finish()
                else:
                    time.sleep(0.05)  # the other thread's rows have it

    for row in rows:
        try:
            start(*row)
        except JSDError as error:
            found.append(_failed(row[0], error))
    while started:
        finish()
    return pa.Table.from_pylist(found, schema=DRAWINGS)


def _pictures(request: Request, future: Future[Result]) -> list[dict[str, Any]]:
    """Wait for a request's pictures. Returns what differs between them: seed, status, and the file of a drawn one."""
    from jsd import images

    try:
        result = future.result()
        drawn = {seed: index for index, seed in enumerate(result.seeds)}
    except NSFWError:
        drawn = {}
    pictures = []
    for i in range(request.num_outputs):
        picture = {"picture": i, "seed": request.seed + i, "status": FLAGGED}
        if (index := drawn.get(request.seed + i)) is not None:
            metadata = result.metadata(index)
            file = io.BytesIO()
            images.write(result.images[index], file, request.output_format, request.output_quality, metadata)
            text = json.dumps(metadata, ensure_ascii=False)
            picture |= {"status": DRAWN, "suffix": request.output_format, "metadata": text, "data": file.getvalue()}
        pictures.append(picture)
    return pictures


def _failed(number: int, error: Exception) -> dict[str, Any]:
    problem = Problem.of(number, error)
    reason = problem.reason if isinstance(error, JSDError) else f"{type(error).__name__}: {problem.reason}"
    return {"row": number, "status": FAILED, "input": problem.input, "reason": reason}
