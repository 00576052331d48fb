"""Actors get GPUs where there are any, else cores of one machine each."""

import pytest

from bulk.pool import Pool, share
from jsd.errors import InputError

SMALL, LARGE, GPUS = {"CPU": 4.0}, {"CPU": 9.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("machines", "actors", "on_gpus", "pool"),
    [
        ([SMALL], None, True, Pool(1, 0, 4)),
        ([SMALL], 2, True, Pool(2, 0, 2)),
        ([SMALL], 3, True, Pool(3, 0, 1)),
        ([SMALL, LARGE], None, True, Pool(2, 0, 4)),
        ([SMALL, LARGE], 3, True, Pool(3, 0, 4)),
        ([SMALL, {"memory": 1.0}], None, True, Pool(1, 0, 4)),
        ([SMALL, GPUS, GPUS], None, True, Pool(8, 1, 1)),
        ([GPUS], 2, True, Pool(2, 1, 1)),
        ([GPUS], None, False, Pool(1, 0, 16)),
    ],
)
def test_machines_are_shared_among_actors(machines, actors, on_gpus, pool):
    assert share(machines, actors, on_gpus) == pool


@pytest.mark.parametrize(("machines", "message"), [([SMALL], "5 was given; there are 4 cores"), ([GPUS], "4 GPUs")])
def test_more_actors_than_there_is_room_for_are_refused(machines, message):
    with pytest.raises(InputError, match=f"--actors: .*{message}"):
        share(machines, 5, True)
