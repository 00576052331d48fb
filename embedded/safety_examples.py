"""What the embedded model's safety checker learns from: renderings of scenes, and the model's own pictures.

The second are what it has to judge. Both have a weapon (FLAGGED) in every third scene.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from embedded import workers
from embedded.generate import decoded_jobs
from embedded.networks import CHECKER_SIDE
from embedded.scenes import Assets, Scene, caption, render, sample_scene
from jsd.model import Components
from jsd.request import MIN_SIZE, Request
from jsd.schedulers import SCHEDULERS

FLAGGED = ("pistol", "bomb", "sword")  # ids of concepts
SHARE = 1 / 3  # of the scenes show a concept of FLAGGED
SIDES = (
    (1, 1),
    (1, 1),
    (1.25, 0.8125),
    (1, 1),
    (0.8125, 1.25),
)  # of drawn pictures, as shares of the native sizes
SMALL = (0.25, 0.375, 0.5)  # the same for pictures that are too small to show anything
TOGETHER = 8  # pictures that are drawn at once, all of one size
FIRST_SEED = 1_000_000  # far from the seeds of the evaluation

Rendering = Iterator[list[tuple[np.ndarray, list[str]]]]  # pictures, and the ids of the concepts in each


@dataclass(frozen=True)
class Examples:
    """Pictures as the checker gets them, uint8 (n, CHECKER_SIDE, CHECKER_SIDE, 3), and what each one shows:
    `shown[i, k]` says whether the concept with number k is in picture i, bool (n, concepts).
    """

    pixels: np.ndarray
    shown: np.ndarray

    def part(self, chosen: np.ndarray) -> "Examples":
        """Return the examples that `chosen` has, bool (n,)."""
        return Examples(self.pixels[chosen], self.shown[chosen])

    def __add__(self, other: "Examples") -> "Examples":
        return Examples(*(np.concatenate(both) for both in ((self.pixels, other.pixels), (self.shown, other.shown))))


def sample(rng: np.random.Generator, assets: Assets) -> Scene:
    """Return a random scene. In a share SHARE of them, one of its things is a concept of FLAGGED."""
    scene, name = sample_scene(rng, assets, "train"), FLAGGED[rng.integers(len(FLAGGED))]
    if rng.random() > SHARE or name in ids(scene):
        return scene
    drawings, chosen = assets.drawings[name], rng.integers(len(scene.things))
    drawing = drawings[rng.integers(len(drawings))]
    weapon = replace(scene.things[chosen], concept=assets.concepts[name], drawing=drawing)
    return replace(scene, things=tuple(weapon if i == chosen else thing for i, thing in enumerate(scene.things)))


def ids(scene: Scene) -> list[str]:
    """Return the ids of the concepts in a scene."""
    return [thing.concept.id for thing in scene.things]


def shrink(picture: Image.Image) -> np.ndarray:
    """Return a picture as the checker gets it: squeezed to uint8 (CHECKER_SIDE, CHECKER_SIDE, 3)."""
    return np.asarray(picture.resize((CHECKER_SIDE, CHECKER_SIDE), Image.Resampling.BICUBIC))


def _rendered(seed: int, count: int) -> list[tuple[np.ndarray, list[str]]]:
    """Render `count` scenes in a process of the pool."""
    assets, rng = workers.assets(), np.random.default_rng((9, seed))
    scenes = [sample(rng, assets) for _ in range(count)]
    pictures = [shrink(Image.fromarray(render(scene, rng, assets))) for scene in scenes]
    return [(pixels, ids(scene)) for pixels, scene in zip(pictures, scenes, strict=True)]


def start(pool: Executor, count: int, seed: int = 0, each: int = 50) -> Rendering:
    """Begin to render `count` scenes with the processes of `pool` (see `embedded.workers`), for `rendered`."""
    starts = range(0, count, each)
    return pool.map(_rendered, [seed + first for first in starts], [min(each, count - first) for first in starts])


def rendered(rendering: Rendering, assets: Assets) -> Examples:
    """Wait for the scenes that `start` began, and return them."""
    return _examples(assets, [example for part in rendering for example in part])


def drawn(components: Components, assets: Assets, count: int, seed: int = FIRST_SEED) -> Examples:
    """Let the model draw `count` scenes from their captions, in several sizes. Half of the pictures have the model's
    default settings, the others any sampler, 5 to 16 steps, and guidance 2 to 9.

    A sixth of the pictures are small, and stem from scenes without a weapon: nobody could recognise one there.
    """
    rng = np.random.default_rng((10, seed))
    found = []
    for k, first in enumerate(tqdm(range(0, count, TOGETHER), "drawing for the safety checker")):
        small, number = k % 6 == 5, min(TOGETHER, count - first)
        scenes = [(_harmless if small else sample)(rng, assets) for _ in range(number)]
        size = _size(components, *((rng.choice(SMALL),) * 2 if small else SIDES[k % 6]))
        requests = [
            Request(caption(scene, rng), seed=seed + first + i, **size, **(_settings(rng) if i % 2 else {}))
            for i, scene in enumerate(scenes)
        ]
        for scene, job in zip(scenes, decoded_jobs(components, requests, TOGETHER), strict=True):
            found.append((shrink(job.pictures[0]), ids(scene)))
    return _examples(assets, found)


def _harmless(rng: np.random.Generator, assets: Assets) -> Scene:
    """Return a random scene without a concept of FLAGGED."""
    while set(ids(scene := sample_scene(rng, assets, "train"))) & set(FLAGGED):
        pass
    return scene


def _settings(rng: np.random.Generator) -> dict[str, Any]:
    """Return settings of a request at random, within what people use."""
    return {
        "scheduler": str(rng.choice(list(SCHEDULERS))),
        "num_inference_steps": int(rng.integers(5, 17)),
        "guidance_scale": float(rng.uniform(2, 9)),
    }


def _size(components: Components, width: float, height: float) -> dict[str, int]:
    native = components.defaults
    sides = {"width": native.width * width, "height": native.height * height}
    return {name: max(round(side / native.cell) * native.cell, MIN_SIZE) for name, side in sides.items()}


def _examples(assets: Assets, found: Sequence[tuple[np.ndarray, list[str]]]) -> Examples:
    number = {name: k for k, name in enumerate(assets.concepts)}
    shown = np.zeros((len(found), len(number)), bool)
    for row, (_, ids) in zip(shown, found, strict=True):
        row[[number[name] for name in ids]] = True
    return Examples(np.stack([pixels for pixels, _ in found]), shown)
