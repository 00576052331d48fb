"""A place before things are put into it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Backdrop:
    """A place without its things. They stand with their feet between the rows of `floor`, or float without one; `front`
    (colour, mask) lies over them; `shadow` is how dark the shadow at their feet is, from 0 to 1.
    """

    image: np.ndarray
    floor: tuple[float, float] | None = None
    front: tuple[np.ndarray, np.ndarray] | None = None
    shadow: float = 0.3

    def changed(self, change: Callable[[np.ndarray], np.ndarray], rows: float = 1.0) -> "Backdrop":
        """The backdrop with all layers changed alike, and `rows` times as many rows."""
        floor = self.floor and (self.floor[0] * rows, self.floor[1] * rows)
        front = self.front and (change(self.front[0]), change(self.front[1]))
        return replace(self, image=change(self.image), floor=floor, front=front)
