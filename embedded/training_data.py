"""The training data of the embedded model: scenes that processes render while the training already runs, with captions
as token ids in both languages, and the latents of these pictures.

A shard is a file of pictures of one size and a file of their captions. A training step needs no processing of text or
pictures: latents and token ids are on the training's device, and a batch is drawn there.
"""

import hashlib
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from embedded import workers
from embedded.scenes import Assets, caption, render, sample_scene
from embedded.typed import to_hiragana, to_katakana
from jsd.atomic import atomic_file
from jsd.errors import TrainingError
from jsd.tokenizer import Tokenizer
from jsd.train.stages import Source
from jsd.train.tokenizer import EDGE, train_tokenizer
from jsd.vae import to_tensor

LENGTH = 40  # tokens per caption
VOCABULARY = {"ja": 10_000, "en": 6_000}  # tokens at most
CAPTIONS = {"ja": 10, "en": 6}  # per picture
NATIVE = (256, 256)  # width and height in pixels
# Shard k has size k % len(SIZES): half are square. Sides are multiples of 64, so that latents can be halved three times
# without a rest: otherwise the compiled UNet would be compiled once more for each size.
SIZES = (NATIVE, (320, 192), NATIVE, (192, 320), NATIVE, (384, 192), NATIVE, (192, 384))
RESERVE = 5_000_000_000  # bytes of the disk for checkpoints and models
MOST_FILES = 4096  # open at once


def digest_of(*settings: object, table: Path) -> str:
    """Return a sha256 of the settings of a run, and of all that decides how it renders the concepts of `table`."""
    digest, here = hashlib.sha256(repr(settings).encode()), Path(__file__).parent
    scenes = [file for file in (here / "scenes").rglob("*") if file.suffix in (".py", ".tsv", ".json")]
    for file in (*sorted(scenes), Path(__file__), table):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def make_tokenizer(folder: Path, assets: Assets, language: str, scenes: int) -> Tokenizer:
    """Train the tokenizer of "ja" or "en" on captions of random scenes, if `folder` has none yet, and return it.

    English falls back to bytes, as CLIP's does. So the English model reads Japanese prompts as what it can't know.
    """
    if not (folder / "spiece.model").is_file():
        rng = np.random.default_rng(0)
        texts = [caption(sample_scene(rng, assets, "train"), rng, language, EDGE) for _ in range(scenes)]
        names = [name for concept in assets.concepts.values() for name in getattr(concept, language)]
        if language == "ja":
            names += [other for name in names for other in (to_hiragana(name), to_katakana(name))]
        train_tokenizer(texts + names * 3, folder, VOCABULARY[language], LENGTH, byte_fallback=language == "en")
    return Tokenizer.from_folder(folder)


def _write_shard(folder: Path, number: int, count: int, tokenizers: Mapping[str, Path]) -> int:
    """Render shard `number` of `count` pictures into `folder`, unless it is there. Returns its number."""
    pictures, ids = folder / f"pictures-{number:05d}.npy", folder / f"ids-{number:05d}.npz"
    if ids.exists():
        return number
    assets, rng, size = workers.assets(), np.random.default_rng((1, number)), SIZES[number % len(SIZES)]
    scenes = [sample_scene(rng, assets, "train") for _ in range(count)]
    drawn = np.stack([render(scene, rng, assets, size) for scene in scenes])
    captions = {}
    for language, tokenizer in ((code, Tokenizer.from_folder(path)) for code, path in tokenizers.items()):
        texts = [[caption(scene, rng, language) for _ in range(CAPTIONS[language])] for scene in scenes]
        captions[language] = np.array([[tokenizer(text).ids for text in row] for row in texts], np.int16)
    with atomic_file(pictures) as part, part.open("wb") as file:
        np.save(file, drawn)
    with atomic_file(ids) as part, part.open("wb") as file:
        np.savez(file, **captions)  # last: this file says that the shard is whole
    return number


class Scenes:
    """The pictures in `folder`, which `start` lets the processes of a pool render, shard by shard."""

    def __init__(self, folder: Path, shard: int):
        self.folder, self.shard = folder, shard  # pictures in a shard
        # Every shard stays open, and more may be open than many systems allow without being asked.
        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(most, MOST_FILES)), most))
        self.ready: list[int] = []  # shards
        self._jobs: list[Future[int]] = []
        self._open: dict[int, np.ndarray] = {}

    def start(self, pool: Executor, shards: int, tokenizers: Mapping[str, Path]) -> None:
        """Begin to render so many shards, and return at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = range(shards)
        self._jobs = [pool.submit(_write_shard, self.folder, k, self.shard, tokenizers) for k in numbers]

    def affordable(self) -> int:
        """Return how many shards the disk can hold, those that are there included, with RESERVE left; at least one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        there = len(list(self.folder.glob("ids-*.npz")))
        size = self.shard * 3 * NATIVE[0] * NATIVE[1]
        return max(1, there + max(0, shutil.disk_usage(self.folder).free - RESERVE) // size)

    def wait(self, seconds: float | None) -> None:
        """Wait so long for all shards (None: until all are there), and in any case for one. What failed in a process is
        raised here.
        """
        self._take(self._jobs[0])
        for job in wait(self._jobs, seconds).done:
            self._take(job)

    def stop(self) -> None:
        """Render no more shards than those that are begun, and wait for them."""
        for job in self._jobs:
            job.cancel()
        for job in self._jobs:
            self._take(job)

    def _take(self, job: Future[int]) -> None:
        if job.cancelled():
            return
        number = job.result()
        if number not in self._open:
            file = self.folder / f"pictures-{number:05d}.npy"
            try:
                self._open[number] = np.load(file, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise TrainingError(
                    "{}: unreadable ({}); delete {}, and it is made again", file, error, self.folder
                ) from error
            self.ready.append(number)

    def __len__(self) -> int:
        return self.shard * len(self.ready)

    def batch(self, size: int, rng: np.random.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
        """Choose square pictures at random among the shards that are rendered by now, half of them mirrored.

        Returns float (size, 3, h, w) in [-1, 1] on a device. All batches have one shape, as a network would be compiled
        anew for others, which takes minutes.
        """
        for job in self._jobs:
            if job.done():
                self._take(job)
        shards = [number for number in self.ready if SIZES[number % len(SIZES)] == NATIVE]
        chosen = zip(rng.choice(shards, size), rng.integers(self.shard, size=size), strict=True)
        x = to_tensor(np.stack([self._open[int(number)][i] for number, i in chosen]), device)
        mirrored = torch.from_numpy(rng.random(size) < 0.5).to(device)
        return torch.where(mirrored[:, None, None, None], x.flip(3), x)

    def shards(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yield each shard: pictures, uint8 (n, h, w, 3), and token ids by language (n, captions, LENGTH)."""
        for number in sorted(self.ready):
            with np.load(self.folder / f"ids-{number:05d}.npz") as ids:
                yield self._open[number], dict(ids)


@dataclass
class Bucket:
    """Pictures of one size, on the training's device: their latents (n, channels, h, w), and the token ids of their
    captions by language (n, captions, LENGTH).
    """

    latents: torch.Tensor
    ids: dict[str, torch.Tensor]


@torch.no_grad()
def encode_all(scenes: Scenes, vae: AutoencoderKL, autocast: Callable, batch: int) -> list[Bucket]:
    """Encode all pictures, and return a bucket for each size. On a GPU the latents are kept as bf16.

    `autocast()` is the context that `vae` computes in.
    """
    found: dict[tuple[int, ...], list[tuple[torch.Tensor, dict[str, np.ndarray]]]] = {}
    kept = torch.bfloat16 if vae.device.type == "cuda" else torch.float32
    for pictures, ids in tqdm(scenes.shards(), "latents", len(scenes.ready)):
        parts = []
        for first in range(0, len(pictures), batch):
            x = (
                torch.from_numpy(np.array(pictures[first : first + batch])).to(vae.device).movedim(3, 1).float() / 127.5
                - 1
            )
            with autocast():
                parts.append((vae.encode(x).latent_dist.mean * vae.config.scaling_factor).to(kept))
        found.setdefault(pictures.shape[1:], []).append((torch.cat(parts), ids))
    return [
        Bucket(
            torch.cat([z for z, _ in shards]),
            {
                language: torch.from_numpy(np.concatenate([ids[language] for _, ids in shards])).to(vae.device)
                for language in shards[0][1]
            },
        )
        for shards in found.values()
    ]


def source(buckets: list[Bucket], language: str, batch: int) -> Source:
    """Return what draws a batch for a step: pictures of one size with one of their captions, on the device."""
    shares = np.array([len(bucket.latents) for bucket in buckets], float)
    shares /= shares.sum()

    def draw(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, None]:
        bucket = buckets[rng.choice(len(buckets), p=shares)]
        latents, ids = bucket.latents, bucket.ids[language]
        chosen = torch.randint(len(latents), (batch,), device=latents.device)
        which = torch.randint(ids.shape[1], (batch,), device=latents.device)
        return latents[chosen].float(), ids[chosen, which].long(), None

    return draw
