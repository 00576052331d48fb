"""Draw rows, and give each picture, or the reason why there is none, as a row of a table.

`Drawer` is what an actor of Ray runs. It needs no ray.
"""

from __future__ import annotations

import io
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bulk.rows import Problem, make_request, model_digest
from jsd.errors import JSDError, NSFWError, QueueFullError, SettingError
from jsd.language import Text, english
from jsd.request import Request

if TYPE_CHECKING:  # torch takes seconds, and only actors need it
    from jsd.batch import Ticket
    from jsd.model import Components
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
# reason of a row that failed, in English and in the user's
# language. Then nothing else has a value but `row` and `input`.
DRAWINGS = pa.schema(
    [
        *COLUMNS,
        pa.field("suffix", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("data", pa.large_binary()),
        pa.field("input", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("said", pa.string()),
    ]
)


class Drawer:
    """Draws batches of rows with one model. While it draws one, callers write the files of others."""

    def __init__(self, environment: Mapping[str, str], model: str):
        """Load the model that the settings in `environment` (JSD_...) choose. It has to be `model`, a `model_digest`.

        If that fails, every batch says why. If the GPU is lost, the process ends, and Ray starts another.
        """
        from jsd import settings

        for name in [name for name in os.environ if name.startswith("JSD_")]:  # this machine's own do not count
            del os.environ[name]
        os.environ.update(environment)
        self.failure: dict[str, str] = {}
        # No other thread calls the model, so batches never mix. OpenMP, too, keeps workers for each thread that does.
        self._thread = ThreadPoolExecutor(1, "jsd-draw")
        try:
            if model_digest() != model:
                raise SettingError("JSD_WEIGHTS, JSD_LORA: this machine has another model than the one that began")
            self._components = self._thread.submit(settings.load_components).result()
            from jsd import device  # `settings` says how torch is to be imported

            rows = settings.max_batch_rows()
            self._max_rows = rows or self._thread.submit(device.max_batch_rows, self._components).result()
        except (JSDError, OSError) as error:
            self.failure = {"reason": english(error), "said": Text("{}", error)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Draw the rows of a batch, which is a table of one row with the column `rows`: a JSON list of [row, digest,
        inputs]. Returns a table of DRAWINGS.
        """
        if self.failure:
            return pa.Table.from_pylist([{"status": NO_MODEL} | self.failure], schema=DRAWINGS)
        rows = json.loads(batch["rows"][0].as_py())
        try:
            drawn = self._thread.submit(draw, self._components, rows, self._max_rows).result()
        except Exception:  # noqa: BLE001 - nothing can be drawn any more
            os._exit(1)
        return table_of(drawn, self._components.name)


@dataclass(frozen=True)
class Drawn:
    """A row that was drawn, or that failed. `request` is None if it can't even be read."""

    number: int
    digest: str
    request: Request | None
    future: Future[Result]


def draw(components: Components, rows: Sequence[tuple[int, str, str]], max_rows: int | None = None) -> list[Drawn]:
    """Draw rows (number, digest, inputs) together, with at most `max_rows` samples in a UNet call.

    Which rows share a call depends on these rows alone, not on time. So they give the same pictures to the last bit
    when they are drawn again. An error of a row is that of its future. Raises an error only if the GPU is lost.
    """
    from jsd import sampling
    from jsd.batch import Batch, Ticket
    from jsd.device import released

    batch = Batch(components, max_rows)
    waiting: deque[Ticket] = deque()

    def finish() -> None:
        """Draw the rows that wait. Nothing holds their adapters afterwards."""
        while waiting or batch.tickets:
            while waiting and batch.has_room(waiting[0]):
                batch.active.append(waiting.popleft())
            batch.prepare()
            if batch.active:
                batch.tick()
            if batch.decoding:
                batch.decode(deliver)

    def deliver(ticket: Ticket) -> None:
        result = sampling.seal(components, ticket.job)
        ticket.settle(replace(result, request=_without_matrices(result.request)))

    def start(inputs: str) -> None:
        request = make_request(inputs)
        try:
            request = sampling.resolve(components, request)
        except QueueFullError:  # there is no memory for its adapter beside those of the rows that wait
            finish()
            request = sampling.resolve(components, request)
        waiting.append(Ticket(request, None, components.defaults))

    drawn = []
    for number, digest, inputs in rows:
        try:
            start(inputs)
        except Exception as error:  # noqa: BLE001 - it belongs to this row
            request, future = None, Future()
            future.set_exception(released(error))
        else:
            request, future = _without_matrices(waiting[-1].request), waiting[-1].future
        drawn.append(Drawn(number, digest, request, future))
    finish()
    return drawn


def _without_matrices(request: Request) -> Request:
    """Return a request with the hash alone of its adapter, whose memory can be freed then."""
    from jsd.adapters import Adapter

    return replace(request, lora=request.lora and Adapter(request.lora.sha256, {}))


def table_of(drawn: Sequence[Drawn], model: str) -> pa.Table:
    """Return a table of DRAWINGS: for each row its pictures, drawn or flagged, or why there are none."""
    found: list[dict[str, Any]] = []
    for row in drawn:
        try:
            pictures = _pictures(row.request, row.future)
        except Exception as error:  # noqa: BLE001 - it belongs to this row
            found.append(_failed(row.number, error))
        else:
            common = {name: getattr(row.request, name) for name in COLUMNS.names if hasattr(row.request, name)}
            common |= {"row": row.number, "digest": row.digest, "model": model}
            common["lora"] = row.request.lora and row.request.lora.sha256[:12]
            found.extend(common | picture for picture in pictures)
    return pa.Table.from_pylist(found, schema=DRAWINGS)


def _pictures(request: Request, future: Future[Result]) -> list[dict[str, Any]]:
    """Return what differs between a request's pictures: seed, status, and the file of a drawn one."""
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
    kind = "" if isinstance(error, JSDError) else f"{type(error).__name__}: "
    reasons = {"reason": kind + problem.reason, "said": kind + problem.said}
    return {"row": number, "status": FAILED, "input": problem.input} | reasons
