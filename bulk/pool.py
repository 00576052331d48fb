"""How the machines of a cluster are shared among actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jsd.errors import InputError


@dataclass(frozen=True)
class Pool:
    """How many actors there are, and how many GPUs (0 or 1) and cores each has of its machine."""

    actors: int
    gpus: int
    cores: int


def share(machines: Sequence[Mapping[str, float]], actors: int | None, on_gpus: bool) -> Pool:
    """Share machines, given as Ray's resources ("GPU", "CPU"), among `actors`. None: one a GPU, or else one a machine.

    `on_gpus=False` leaves GPUs alone. Raises `InputError` if there are more actors than GPUs or cores.
    """
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines) if on_gpus else 0
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    actors = actors or gpus or sum(count > 0 for count in cores)
    most, kind = (gpus, "GPUs") if gpus else (sum(cores), "cores")
    if not 0 < actors <= most:
        raise InputError("--actors", f"{actors} was given; there are {most} {kind}")
    if gpus:
        return Pool(actors, 1, 1)
    return Pool(actors, 0, max(n for n in range(1, max(cores) + 1) if sum(count // n for count in cores) >= actors))
