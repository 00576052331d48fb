"""Random choices, all from one generator, so that a seed decides everything."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

Rng = np.random.Generator
T = TypeVar("T")


def between(rng: Rng, low: float, high: float) -> float:
    """A number from `low` to `high`, all alike."""
    return low + (high - low) * rng.random()


def pick(rng: Rng, options: Sequence[T], first: float = 0.0) -> T:
    """One of the options; the first one with at least probability `first`."""
    chance = rng.random()
    return options[0] if chance < first else options[int((chance - first) / (1 - first) * len(options))]


class Wheel(Generic[T]):
    """A choice among options with weights."""

    def __init__(self, weights: Mapping[T, float]):
        self.options = list(weights)
        self.ends = np.cumsum(np.fromiter(weights.values(), float))

    def spin(self, rng: Rng) -> T:
        """One of the options."""
        return self.options[int(np.searchsorted(self.ends, rng.random() * self.ends[-1], side="right"))]
