"""Read an endless stream of captioned pictures from webdataset shards (tar files), in any number of processes.

A reader is one DataLoader worker of one training process. Every epoch shuffles the shards and deals them to the readers
in turn. Within a shard, each block of `shuffle` samples is shuffled. The same seed, shards and number of readers give
the same order. Every batch carries the `Position` that its reader has reached, so that a resumed run continues there.
To find the place, each reader reads at most one shard again. A sample whose picture or caption can't be read is left
out. In the first epoch, the next batch of its reader reports the sample and the reason in `skipped`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from jsd.atomic import named
from jsd.errors import SampleError, TrainingError
from jsd.language import Text, english
from jsd.train.samples import caption_of, pixels_of
from jsd.train.shards import Skipped, raw_samples

MAX_BARREN = 3  # a reader gives up after this many times the number of shards without a good sample


@dataclass(frozen=True)
class Position:
    """Where a reader (a DataLoader worker) is: in its `shard`-th shard of `epoch`, after `sample` samples of it."""

    epoch: int = 0
    shard: int = 0
    sample: int = 0


@dataclass
class Batch:
    """n captioned pictures. `pixels`: (n, 3, size, size) in [-1, 1]. `position`: where its reader is after it."""

    pixels: torch.Tensor
    captions: list[str]
    keys: list[str]
    reader: int
    position: Position
    skipped: list[Skipped] = field(default_factory=list)


@dataclass
class Shards(IterableDataset):
    """A torch dataset that yields endless batches of `batch` pictures of `size` x `size` pixels from shards (`urls`).

    `rank` is the number of this training process of `processes`. A resumed run sets `positions`, where each reader
    (DataLoader worker) continues, and `first`, the number of batches that were taken before. Iteration raises
    `TrainingError` if there are fewer shards than readers, or if a reader finds no good sample.
    """

    urls: list[str]
    size: int
    batch: int
    seed: int = 0
    shuffle: int = 1000
    random_crop: bool = False
    rank: int = 0
    processes: int = 1
    positions: dict[int, Position] = field(default_factory=dict)
    first: int = 0

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        readers = self.count_readers(workers)
        # The loader asks worker 0 first. After a restart, worker 0 has to be the reader whose turn it was.
        reader = self.rank * workers + (worker + self.first) % workers
        skipped: list[Skipped] = []
        found = []
        for position, *sample in self._samples(reader, readers, skipped):
            found.append(sample)
            if len(found) == self.batch:
                pixels, captions, keys = zip(*found, strict=True)
                yield Batch(torch.stack(pixels), list(captions), list(keys), reader, position, list(skipped))
                found.clear()
                skipped.clear()

    def count_readers(self, workers: int) -> int:
        """Return the number of readers: processes x `workers`. Raises `TrainingError` if the shards are fewer."""
        readers = self.processes * workers
        if len(self.urls) < readers:
            raise TrainingError(
                "{} shards for {} readers ({} processes x {} workers); split the data into more shards or "
                "use fewer workers",
                len(self.urls),
                readers,
                self.processes,
                workers,
            )
        return readers

    def _samples(
        self, reader: int, readers: int, skipped: list[Skipped]
    ) -> Iterator[tuple[Position, torch.Tensor, str, str]]:
        """Yield a reader's good samples without end, as tuples: position after the sample, pixels, caption, key.

        The bad samples of the first epoch are appended to `skipped`.
        """
        start, barren = self.positions.get(reader, Position()), 0
        while True:
            order = np.random.default_rng((self.seed, start.epoch)).permutation(len(self.urls))[reader::readers]
            noted, good = skipped if start.epoch == 0 else [], False
            for sample in self._epoch(order.tolist(), start, noted):
                good = True
                yield sample
            # One epoch may deal a reader only bad shards by chance, but every epoch deals anew.
            if good:
                barren = 0
            elif start == Position(start.epoch):
                barren += len(order)
            if barren >= MAX_BARREN * len(self.urls):
                last = noted[-1].told() if noted else Text("none, the shards are empty")
                raise TrainingError("not one good sample in {} shards; the last that was skipped: {}", barren, last)
            start = Position(start.epoch + 1)

    def _epoch(
        self, order: list[int], start: Position, skipped: list[Skipped]
    ) -> Iterator[tuple[Position, torch.Tensor, str, str]]:
        """Yield the good samples of one epoch after position `start`, as `_samples` does. `order` indexes `urls`."""
        for number in range(start.shard, len(order)):
            done = 0
            for block in _blocks(raw_samples(self.urls[order[number]], skipped), self.shuffle):
                rng = np.random.default_rng((self.seed, start.epoch, order[number], done))
                for i, at in zip(rng.permutation(len(block)), rng.random(len(block)), strict=True):
                    done += 1
                    if number == start.shard and done <= start.sample:
                        continue
                    raw = block[i]
                    try:
                        caption = caption_of(raw)
                        pixels = pixels_of(raw, self.size, at if self.random_crop else 0.5)
                    except SampleError as error:
                        skipped.append(Skipped(raw["__url__"], raw["__key__"], *error.args))
                        continue
                    yield Position(start.epoch, number, done), pixels, caption, raw["__key__"]


def _blocks(samples: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the samples in lists of `size`. The last list may be shorter."""
    block = []
    for sample in samples:
        block.append(sample)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


class Stream:
    """`next(stream)` returns the next `Batch` of `data`, without end. `workers` subprocesses read (0: this process).

    A stream can be resumed (`place`, `go_to`). `skipped` counts, by reason, what the first epoch left out. Each item
    is also written to the file `log` as one line of JSON. If a run is killed and resumed, the file may name a sample
    twice.
    """

    def __init__(self, data: Shards, workers: int = 0, log: Path | None = None):
        self.data, self.workers, self.log = data, workers, log
        self.skipped: Counter[str] = Counter()
        self._readers = data.count_readers(max(1, workers))
        self._iterator: Iterator[Batch] | None = None
        self._given = data.first

    def __next__(self) -> Batch:
        if self._iterator is None:
            ahead = 2 if self.workers else None
            loader = DataLoader(self.data, batch_size=None, num_workers=self.workers, prefetch_factor=ahead)
            self._iterator = iter(loader)
        try:
            batch = next(self._iterator)
        except TrainingError as error:
            # The error of a worker arrives with its whole traceback as the message. The message is the last line.
            raise TrainingError(str(error).rstrip().rpartition("\n")[2].rpartition("TrainingError: ")[2]) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "a process that reads pictures has died ({}); use fewer workers, or 0", error
            ) from error
        self._given += 1
        self.data.positions[batch.reader] = batch.position
        self.skipped.update(item.reason for item in batch.skipped)
        if self.log and batch.skipped:
            with named(self.log), self.log.open("a", encoding="utf-8") as out:
                out.writelines(
                    json.dumps(vars(item) | {"reason": english(item.reason)}, ensure_ascii=False) + "\n"
                    for item in batch.skipped
                )
        return batch

    def place(self) -> dict[str, Any]:
        """Return, as JSON values, the positions of the readers, the number of batches taken, and the skip counts."""
        positions = {str(reader): vars(position) for reader, position in self.data.positions.items()}
        return {
            "positions": positions,
            "turn": self._given,
            "readers": self._readers,
            "skipped": dict(self.skipped),
        }

    def go_to(self, places: list[dict[str, Any]]) -> None:
        """Continue from the places of all processes. Raises `TrainingError` if the number of readers has changed."""
        if places[0]["readers"] != self._readers:
            raise TrainingError(
                "the checkpoint was written with {} readers (processes x workers), now there are {}; use the "
                "same number again, or start a new run in another folder",
                places[0]["readers"],
                self._readers,
            )
        # Only this process's readers: the positions of the others would be out of date in the next checkpoint.
        self.data.positions = {
            int(reader): Position(**at)
            for place in places
            for reader, at in place["positions"].items()
            if int(reader) // max(1, self.workers) == self.data.rank
        }
        self.skipped = Counter(places[self.data.rank]["skipped"])
        self._given = self.data.first = places[0]["turn"]
        self._iterator = None
