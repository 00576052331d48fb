"""Draw batches of rows on this machine's or a cluster's processors with Ray Data. The only module that imports ray.

Every actor has an engine of its own, on a GPU of its own where there is one. Two batches are with an actor at a time,
so that its engine begins one while it ends the other. Pictures come back through Ray's object store: only the machine
that started the run writes them. Ray starts an actor again that died, and gives its batches to an actor up to RETRIES
times more. The rows of a batch that ends no actor's life but each one's are left out, and the caller reports them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

# Ray's processes read these when they start. It sends nothing about us anywhere, and keeps no metrics.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from bulk.drawing import Drawer
from bulk.locks import locked
from jsd.errors import InputError

STORE_BYTES = 1 << 29  # for pictures on their way; they take /dev/shm, or /tmp if that has less room
IN_FLIGHT = 2  # batches with an actor
RETRIES = 3
PREFIX = "jsd-bulk-ray-"
LONGEST = 20  # characters of the folder for temporary files; sockets have paths of at most 107


@dataclass(frozen=True)
class Pool:
    """How many actors there are, and what each has of a machine."""

    actors: int
    gpus: int  # 0 or 1
    cpus: int


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Context manager: what this process writes to stderr, also from C++, is dropped. Yields the stderr from before."""
    with os.fdopen(os.dup(2), "w", buffering=1) as terminal, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield terminal
        finally:
            os.dup2(terminal.fileno(), 2)


@contextmanager
def running(address: str | None = None) -> Iterator[None]:
    """Context manager: connect to the cluster at `address`, or start Ray on this machine alone. Takes seconds.

    Ray's own folder for temporary files is removed at the end, and those that killed runs have left are too.
    """
    with contextlib.ExitStack() as stack:
        options = {}
        if address is None:
            _remove_strays()
            folder = stack.enter_context(_temporary_folder())
            options = {"include_dashboard": False, "_temp_dir": str(folder), "object_store_memory": STORE_BYTES}
            # Workers look for modules in the folder where Ray was started. They shall find none of the caller's.
            stack.enter_context(contextlib.chdir(folder))
        try:
            ray.init(address or "local", logging_level="ERROR", log_to_driver=False, **options)
        except (ConnectionError, ValueError) as error:
            raise InputError("--address", f"there is no cluster to be reached ({error})") from error
        stack.callback(ray.shutdown)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_errored_blocks = -1  # any number of batches may fail
        yield


def make_pool(actors: int | None, on_gpus: bool) -> Pool:
    """Share the machines of the running Ray among `actors`: by default one a GPU, and without GPUs one a machine.

    `on_gpus=False` leaves GPUs alone. Raises `InputError` if there are more actors than GPUs or cores.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines) if on_gpus else 0
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    wanted = actors or gpus or sum(count > 0 for count in cores)
    most = gpus or sum(cores)
    if wanted > most:
        raise InputError("--actors", f"{wanted} was given; there are {most} {'GPUs' if gpus else 'cores'}")
    if gpus:
        return Pool(wanted, 1, 1)
    return Pool(wanted, 0, max(n for n in range(1, max(cores) + 1) if sum(count // n for count in cores) >= wanted))


def draw_all(batches: Sequence[str], pool: Pool, environment: dict[str, str], model: str) -> Iterator[pa.Table]:
    """Draw batches, each a JSON list as `Drawer` takes it. Yields a table of `drawing.DRAWINGS` for each, in any order.

    A batch is left out whose actor dies again and again. Raises `JSDError` if the actors can't load the model.
    """
    drawn = ray.data.from_items([{"rows": batch} for batch in batches], override_num_blocks=len(batches)).map_batches(
        Drawer,
        fn_constructor_args=(environment, model),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=ActorPoolStrategy(
            size=pool.actors,
            max_tasks_in_flight_per_actor=IN_FLIGHT,
            max_concurrent_calls_per_actor=IN_FLIGHT,
            enable_true_multi_threading=True,
        ),
        max_task_retries=RETRIES,
    )
    yield from drawn.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    parent = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(
        prefix=PREFIX, dir=parent if len(parent) <= LONGEST else "/tmp", ignore_cleanup_errors=True
    ) as name:
        (Path(name) / "lock").touch()
        with locked(Path(name) / "lock"):
            yield Path(name)


def _remove_strays() -> None:
    """Remove the temporary folders of runs that were killed."""
    for parent in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for folder in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError), locked(folder / "lock") as ours:
                if ours:
                    shutil.rmtree(folder, ignore_errors=True)
