"""The judge's training and test pictures: renderings of random scenes, small, with where their things are.

One scene in four shows a held-out composition: the judge has to know those, the generator doesn't learn them.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from embedded.judge_network import SIDE
from embedded.prompts import sort_of
from embedded.scenes import Assets, Scene, render_with_spots, sample_scene
from jsd.cpu import cores

SHARD = 250  # scenes with one seed
HELD_OUT = 0.25  # the share of scenes with a held-out composition
_shared: list[Assets] = []  # what a worker process draws with


@dataclass(frozen=True)
class Reference:
    """A rendered scene: its picture, uint8 (SIDE, SIDE, 3), and for each thing in it the concept's id, its colour or
    None, and its middle in shares of the picture's width and height.
    """

    image: np.ndarray
    scene: Scene
    spots: tuple[tuple[str, str | None, float, float], ...]


def draw_references(assets: Assets, count: int, seed: int, coloured: float = 0.0) -> list[Reference]:
    """Render `count` random scenes of `assets`. A share of them, `coloured` from 0 to 1, are scenes with a coloured
    thing, which are rare otherwise. Many scenes are rendered in several processes. The same seed gives the same scenes.
    """
    jobs = [(seed, shard, min(SHARD, count - shard * SHARD), coloured) for shard in range(-(-count // SHARD))]
    return [reference for part in tqdm(_map(assets, jobs), "renderings", len(jobs)) for reference in part]


def _map(assets: Assets, jobs: list[tuple]) -> Iterator[list[Reference]]:
    if len(jobs) < 4:
        _share(assets)
        yield from map(_draw, jobs)
        return
    # A forked process has the sprites without a copy of its own.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(cores(), fork, _share, (assets,)) as pool:
        yield from pool.map(_draw, jobs)


def _share(assets: Assets) -> None:
    _shared[:] = [assets]


def _draw(job: tuple[int, int, int, float]) -> list[Reference]:
    """Render one shard of scenes."""
    seed, shard, count, coloured = job
    rng = np.random.default_rng((seed, shard))
    return [_reference(_sample(rng, rng.random() < coloured), rng) for _ in range(count)]


def _sample(rng: np.random.Generator, coloured: bool) -> Scene:
    while True:
        scene = sample_scene(rng, _shared[0], "held_out" if rng.random() < HELD_OUT else "train")
        if not coloured or sort_of(scene) == "colour":
            return scene


def _reference(scene: Scene, rng: np.random.Generator) -> Reference:
    image, found = render_with_spots(scene, rng, _shared[0])
    height, width = image.shape[:2]
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    spots = [(s.thing.concept.id, s.thing.colour, s.x / width, (s.bottom - s.height / 2) / height) for s in found]
    return Reference(small, scene, tuple(spots))
