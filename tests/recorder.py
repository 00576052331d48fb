"""A recorder of CUDA graphs that needs no GPU."""

from __future__ import annotations

from jsd.graphs import Call, Replay


class Recorder:
    """Records calls as a GPU would: replaying writes the result into the same tensor. `failure` is raised instead."""

    def __init__(self):
        self.recorded, self.replayed, self.failure = 0, 0, None

    def __call__(self, call: Call) -> tuple[Replay, object]:
        if self.failure:
            raise self.failure
        self.recorded += 1
        result = call()

        def replay() -> None:
            self.replayed += 1
            result.copy_(call())

        return replay, result
