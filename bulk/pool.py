"""How the machines of a cluster are shared among actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jsd.errors import InputError
from jsd.language import Text

BASE_BYTES = 1 << 30  # of an actor's process, without its weights, which files hold in half precision


@dataclass(frozen=True)
class Pool:
    """How many actors there are, and how many GPUs (0 or 1) and cores each has of its machine."""

    actors: int
    gpus: int
    cores: int


def share(machines: Sequence[Mapping[str, float]], actors: int | None, on_gpus: bool, need: int) -> Pool:
    """Share machines, given as Ray's resources ("GPU", "CPU", "memory" in bytes), among `actors`.

    None: one a GPU. Without GPUs one a core, since on a CPU many engines draw more than one with many threads, but no
    more than have `need` bytes of memory each, and one a machine at least. `on_gpus=False` leaves GPUs alone. Raises
    `InputError` if there are more actors than GPUs or cores.
    """
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines) if on_gpus else 0
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    rooms = cores if actors else [max(1, int(machine.get("memory", 0) // need)) for machine in machines]

    def places(size: int) -> int:
        """How many actors with `size` cores have room."""
        return sum(min(count // size, room) for count, room in zip(cores, rooms, strict=True))

    actors = actors or gpus or places(1)
    most, kind = (gpus, Text("GPUs")) if gpus else (sum(cores), Text("cores"))
    if not 0 < actors <= most:
        raise InputError("--actors", "{} was given; there are {} {}", actors, most, kind)
    if gpus:
        return Pool(actors, 1, 1)
    return Pool(actors, 0, max(size for size in range(1, max(cores) + 1) if places(size) >= actors))


def memory_of(weights: Path) -> int:
    """Return how many bytes of memory an actor needs that loads the model folder `weights`, generously."""
    return BASE_BYTES + 3 * sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
