"""Actors get GPUs where there are any, else cores of one machine each."""

import importlib.util
import signal
import socket

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: script/bootstrap bulk")

from bulk import loop, ray_pool
from bulk.pool import Pool, memory_of, share
from jsd import device
from jsd.errors import InputError

GB = 1 << 30
SMALL, LARGE = {"CPU": 4.0, "memory": 5.0 * GB}, {"CPU": 9.0, "memory": 5.0 * GB}
GPUS = {"CPU": 16.0, "GPU": 4.0, "memory": 5.0 * GB}


@pytest.mark.parametrize(
    ("machines", "actors", "on_gpus", "pool"),
    [
        ([SMALL], None, True, Pool(2, 0, 2)),  # as many as have room
        ([{**SMALL, "memory": 99.0 * GB}], None, True, Pool(4, 0, 1)),
        ([{**SMALL, "memory": 1.0 * GB}], None, True, Pool(1, 0, 4)),
        ([SMALL], 3, True, Pool(3, 0, 1)),
        ([SMALL, LARGE], None, True, Pool(4, 0, 2)),
        ([SMALL, LARGE], 3, True, Pool(3, 0, 4)),
        ([SMALL, {"memory": 5.0 * GB}], None, True, Pool(2, 0, 2)),
        ([SMALL, GPUS, GPUS], None, True, Pool(8, 1, 1)),
        ([GPUS], 2, True, Pool(2, 1, 1)),
        ([GPUS], 2, False, Pool(2, 0, 8)),
    ],
)
def test_machines_are_shared_among_actors(machines, actors, on_gpus, pool):
    assert share(machines, actors, on_gpus, need=2 * GB) == pool


@pytest.mark.parametrize(("machines", "message"), [([SMALL], "5 was given; there are 4 cores"), ([GPUS], "4 GPUs")])
def test_more_actors_than_there_is_room_for_are_refused(machines, message):
    with pytest.raises(InputError, match=f"--actors: .*{message}"):
        share(machines, 5, True, need=GB)


@pytest.mark.parametrize("port", [None, 99999])
def test_an_address_at_which_nothing_answers_is_named_at_once(port):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = port or free.getsockname()[1]
    with (
        pytest.raises(ray_pool.PoolError, match=f"--address '127.0.0.1:{port}': nothing answers"),
        ray_pool.running(f"127.0.0.1:{port}"),
    ):
        pass


def test_the_memory_of_an_actor_grows_with_the_weights(tmp_path):
    empty = memory_of(tmp_path)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(bytes(1000))
    assert memory_of(tmp_path) == empty + 3000


def test_a_batch_is_as_large_as_an_engine_draws_at_once():
    assert (loop.CPU_ROWS, loop.GPU_ROWS) == (device.CPU_ROWS, device.MOST_ROWS)


@pytest.fixture
def own_process(monkeypatch):
    """What `ray_pool.running` changes in its process is undone."""
    handler = signal.getsignal(signal.SIGTERM)
    for name in (*ray_pool.QUIET, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is missing: script/bootstrap bulk")
def test_a_batch_of_large_pictures_comes_whole(monkeypatch, own_process):
    """Otherwise a run that is killed could have written half of a row's pictures, and take the row for drawn."""

    class Large:  # Ray's workers get a class of a function as code
        def __init__(self, environment, model):
            pass

        def __call__(self, batch):
            columns = {"row": [1] * 4, "picture": list(range(4)), "status": ["drawn"] * 4}
            return pa.table(columns | {"data": pa.array([bytes(64 << 20)] * 4, pa.large_binary())})

    monkeypatch.setattr(ray_pool, "Drawer", Large)
    with ray_pool.running():
        tables = list(ray_pool.draw_all(["[]"], Pool(actors=1, gpus=0, cores=1), {}, ""))
    assert [table["picture"].to_pylist() for table in tables] == [[0, 1, 2, 3]]
