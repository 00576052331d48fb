"""Draw batches of rows on this machine's or a cluster's processors with Ray Data. The only module that imports ray.

Every actor has a model of its own, on a GPU of its own where there is one. Two batches are with an actor at a time,
so that it draws one while it writes the files of the other. Pictures come back through Ray's object store, and only the
process that started the run writes them. When an actor dies, Ray starts it again and repeats its batches. A batch that
RETRIES more actors have died of is left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import pyarrow as pa

from bulk.drawing import NO_MODEL, Drawer
from bulk.pool import Pool
from jsd.errors import JSDError, shown
from jsd.language import Text

# Ray and its processes read these when they start. It sends nothing about us anywhere, and keeps no metrics.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
STORE_BYTES = 1 << 29  # for pictures on their way; they take /dev/shm, or /tmp if that has less room
IN_FLIGHT = 2  # batches with an actor
RETRIES = 3


class PoolError(JSDError):
    """Ray can't be started or reached, or its actors can't draw."""


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Context manager: drop what this process writes to stderr, as Ray's C++ does. Yields the stderr from before."""
    with open(os.dup(2), "w", buffering=1) as terminal, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield terminal
        finally:
            os.dup2(terminal.fileno(), 2)


@contextmanager
def running(address: str | None = None) -> Iterator[None]:
    """Context manager: connect to the cluster at `address`, or start Ray on this machine alone. Takes seconds."""
    if address is not None:
        _check(address)
    # Sockets have paths of at most 107 characters, so TMPDIR may be too long. Ray's last process may still write here
    # when it is removed.
    folder = tempfile.TemporaryDirectory(prefix="jsd-bulk-ray-", dir="/tmp", ignore_cleanup_errors=True)
    # Workers look for modules in the folder where the run was started. They shall find none of the caller's.
    with folder as path, contextlib.chdir(path):
        os.environ |= QUIET
        options = {}
        if address is None:
            options = {"_temp_dir": path, "object_store_memory": STORE_BYTES, "include_dashboard": False}
            # Ray listens on all addresses and runs what it is sent. So it has to know who sends it.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        import ray  # reads the environment
        from ray.data import DataContext

        try:
            ray.init(address or "local", logging_level="ERROR", log_to_driver=False, **options)
        except Exception as error:  # Ray raises many classes, the plain one among them
            where = f"--address {address}" if address else Text("this machine, which may be too busy; try again")
            raise PoolError("Ray can't start on {} ({})", where, _last_line(error)) from error
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # instead of Ray's, which ends in an abort
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_errored_blocks = -1  # any number of batches may fail
        context.target_max_block_size = None  # a batch comes whole, so that a killed run has all of a row or none
        try:
            yield
        finally:
            ray.shutdown()


def _check(address: str) -> None:
    """Raise `PoolError` if nothing answers at HOST:PORT. Ray itself would try for minutes, in silence."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:  # Ray has other forms, such as auto
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise PoolError(
                "--address {}: nothing answers there ({}); start Ray first", shown(address), error
            ) from None


def machines() -> list[dict[str, float]]:
    """Return the resources of each machine of the running Ray, such as "CPU" and "GPU"."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def draw_all(batches: Sequence[str], pool: Pool, environment: dict[str, str], model: str) -> Iterator[pa.Table]:
    """Draw batches, each a JSON list as `Drawer` takes it. Yields a table of `drawing.DRAWINGS` for each, in any order.

    A batch is left out whose actor dies again and again. Raises `PoolError` if the actors can't load the model.
    """
    import ray
    from ray.data import ActorPoolStrategy
    from ray.exceptions import RayError

    drawn = ray.data.from_items([{"rows": batch} for batch in batches], override_num_blocks=len(batches)).map_batches(
        Drawer,
        fn_constructor_args=(environment, model),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.cores,
        num_gpus=pool.gpus,
        compute=ActorPoolStrategy(
            size=pool.actors,
            max_tasks_in_flight_per_actor=IN_FLIGHT,
            max_concurrent_calls_per_actor=IN_FLIGHT,
            enable_true_multi_threading=True,
        ),
        max_task_retries=RETRIES,
    )
    try:
        for table in drawn.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            if table["status"][0].as_py() == NO_MODEL:
                raise PoolError(table["said"][0].as_py())
            yield table
    except RayError as error:
        raise PoolError("Ray's actors can't work ({})", _last_line(error)) from error


def _last_line(error: Exception) -> str:
    """Return what an error says in the end. Ray's errors quote whole tracebacks."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
