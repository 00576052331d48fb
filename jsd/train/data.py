"""Captioned pictures from webdataset shards (the layout that img2dataset writes), streamed for ever, in any number of
processes.

The order depends only on the seed and the number of readers (processes x workers): every epoch the shards are shuffled
and dealt to the readers in turn, and within a shard each block of `shuffle` samples is shuffled. Every batch carries
the `Position` its reader has reached, so a run takes up its data where its last checkpoint left it, reading at most the
one shard again that it stands in. A bad sample is left out, and its name and what was wrong travel with the batch.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.shardlists import expand_urls
from webdataset.tariterators import tarfile_samples

from jsd.errors import PictureError, SampleError
from jsd.images import read_picture

FRUITLESS = 3  # times as many shards as there are, without a good sample, and a reader gives up
IMAGES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class Position:
    """How far a reader has come: `sample` samples of the `shard`-th of its shards in `epoch`, good or bad."""

    epoch: int = 0
    shard: int = 0
    sample: int = 0


@dataclass(frozen=True)
class Skipped:
    """A sample, or the rest of a shard (key ""), that was left out. Told in the first epoch only."""

    url: str
    key: str
    reason: str


@dataclass
class Batch:
    """`pixels` float (n, 3, size, size) in [-1, 1]; n `captions` and `keys`; where its reader stands after it."""

    pixels: torch.Tensor
    captions: list[str]
    keys: list[str]
    reader: int
    position: Position
    skipped: list[Skipped] = field(default_factory=list)


def find_shards(pattern: str) -> list[str]:
    """The shards of a folder (all its *.tar), or of a pattern with braces such as data/{00000..00099}.tar or
    https://host/{000..009}.tar; several are joined by "::". Raises ValueError when there are none."""
    folder = Path(pattern)
    urls = sorted(str(path) for path in folder.glob("*.tar")) if folder.is_dir() else expand_urls(pattern)
    if not urls:
        raise ValueError(f"{pattern}: no *.tar in this folder; name the folder or the pattern of webdataset shards")
    return urls


def raw_samples(url: str, skipped: list[Skipped]) -> Iterator[dict]:
    """The raw samples of a shard as far as it can be read; what was wrong with the rest goes to `skipped`."""

    def note(error: Exception) -> bool:
        skipped.append(Skipped(url, "", f"rest of the shard unreadable ({type(error).__name__})"))
        return False

    yield from tarfile_samples([{"url": url}], handler=note)


def caption_of(sample: dict) -> str:
    """The caption of a raw sample: of its .txt, else `caption` or `text` of its .json, in one line.

    Raises SampleError when it is missing, empty or not UTF-8.
    """
    try:
        if "txt" in sample:
            text = sample["txt"].decode("utf-8")
        elif "json" in sample:
            about = json.loads(sample["json"])
            text = about.get("caption") or about.get("text") or ""
            if not isinstance(text, str):
                raise SampleError("caption is no text")
        else:
            raise SampleError("no caption")
    except UnicodeDecodeError:
        raise SampleError("caption not UTF-8") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, SampleError) else SampleError("json unreadable") from None
    text = " ".join(text.split())
    if not text:
        raise SampleError("caption empty")
    return text


def image_of(sample: dict) -> Image.Image:
    """The picture of a raw sample as RGB, the right way up, transparency on white. Raises SampleError."""
    data = next((sample[kind] for kind in IMAGES if kind in sample), None)
    if data is None:
        raise SampleError("picture: none")
    try:
        return read_picture(io.BytesIO(data))
    except PictureError as error:
        raise SampleError(f"picture: {error}") from None


def crop(image: Image.Image, size: int, at: float = 0.5) -> Image.Image:
    """The largest square of the picture at `at` (0: left or top, 1: right or bottom), scaled to `size` pixels."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS, centering=(at, at))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB picture -> float (3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@dataclass
class Shards(IterableDataset):
    """Batches of `batch` pictures of `size` pixels from the shards `urls`, without end.

    `rank` of `processes` and the DataLoader's worker decide which reader this is; `positions` says where readers go on,
    and `first` whose batch comes first. Raises ValueError when there are fewer shards than readers, or when an epoch
    held not one good sample.
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
        # The loader asks worker 0 first: after a restart that has to be the reader whose turn it was.
        reader = self.rank * workers + (worker + self.first) % workers
        readers = self.processes * workers
        if len(self.urls) < readers:
            raise ValueError(
                f"{len(self.urls)} shards for {readers} readers ({self.processes} processes x {workers} workers); "
                "split the data into more shards or use fewer workers"
            )
        skipped: list[Skipped] = []
        found = []
        for position, *sample in self._samples(reader, readers, skipped):
            found.append(sample)
            if len(found) == self.batch:
                pixels, captions, keys = zip(*found, strict=True)
                yield Batch(torch.stack(pixels), list(captions), list(keys), reader, position, list(skipped))
                found.clear()
                skipped.clear()

    def _samples(
        self, reader: int, readers: int, skipped: list[Skipped]
    ) -> Iterator[tuple[Position, torch.Tensor, str, str]]:
        """The good samples of one reader: the position after it, pixels, caption, key; the others go to `skipped`."""
        start = self.positions.get(reader, Position())
        fruitless = 0
        while True:
            order = np.random.default_rng((self.seed, start.epoch)).permutation(len(self.urls))[reader::readers]
            whole, good = start == Position(start.epoch), 0
            told = skipped if start.epoch == 0 else []
            for shard in range(start.shard, len(order)):
                done = 0
                for block in _blocks(raw_samples(self.urls[order[shard]], told), self.shuffle):
                    rng = np.random.default_rng((self.seed, start.epoch, int(order[shard]), done))
                    for place, at in zip(rng.permutation(len(block)), rng.random(len(block)), strict=True):
                        done += 1
                        if shard == start.shard and done <= start.sample:
                            continue
                        raw = block[place]
                        try:
                            caption = caption_of(raw)
                            picture = crop(image_of(raw), self.size, at if self.random_crop else 0.5)
                        except SampleError as error:
                            told.append(Skipped(raw["__url__"], raw["__key__"], str(error)))
                            continue
                        good += 1
                        yield Position(start.epoch, shard, done), to_tensor(picture), caption, raw["__key__"]
            # A reader's share may be all bad by chance, but every epoch deals anew.
            fruitless = 0 if good else fruitless + whole * len(order)
            if fruitless >= FRUITLESS * len(self.urls):
                raise ValueError(
                    f"not one good sample in {fruitless} shards; the last that was skipped: "
                    f"{told[-1] if told else 'none, the shards are empty'}"
                )
            start = Position(start.epoch + 1)


def _blocks(samples: Iterator[dict], size: int) -> Iterator[list[dict]]:
    block = []
    for sample in samples:
        block.append(sample)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


class Stream:
    """The batches of `data`, read by `workers` processes in turn (0: by this one), from a place that can be kept.

    `skipped` counts what was left out so far by reason, each sample once; what and why goes to `log`, a line each (a
    killed run may name some twice).
    """

    def __init__(self, data: Shards, workers: int = 0, log: Path | None = None):
        self.data, self.workers, self.log = data, workers, log
        self.skipped: Counter[str] = Counter()
        self._iterator: Iterator[Batch] | None = None
        self._given = data.first

    def __next__(self) -> Batch:
        if self._iterator is None:
            ahead = 2 if self.workers else None
            loader = DataLoader(self.data, batch_size=None, num_workers=self.workers, prefetch_factor=ahead)
            self._iterator = iter(loader)
        batch = next(self._iterator)
        self._given += 1
        self.data.positions[batch.reader] = batch.position
        self.skipped.update(item.reason for item in batch.skipped)
        if self.log and batch.skipped:
            with self.log.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(vars(item), ensure_ascii=False) + "\n" for item in batch.skipped)
        return batch

    def place(self) -> dict:
        """Where this process's readers stand, and whose turn it is."""
        positions = {str(reader): vars(position) for reader, position in self.data.positions.items()}
        readers = self.data.processes * max(1, self.workers)
        return {"positions": positions, "turn": self._given, "readers": readers, "skipped": dict(self.skipped)}

    def go_to(self, places: list[dict]) -> None:
        """Go on from the places of all processes. Raises ValueError if there were more or fewer readers then."""
        readers = self.data.processes * max(1, self.workers)
        if places[0]["readers"] != readers:
            raise ValueError(
                f"the checkpoint was written with {places[0]['readers']} readers (processes x workers), now there are "
                f"{readers}; go on with as many, or start anew in another folder"
            )
        for place in places:
            self.data.positions |= {int(reader): Position(**at) for reader, at in place["positions"].items()}
        self.skipped = Counter(places[self.data.rank]["skipped"])
        self._given = self.data.first = places[0]["turn"]
        self._iterator = None
