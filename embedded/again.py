"""Prompts that are drawn again: with another seed, to see whether the picture changes, and with a strong guidance."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from embedded.judge import Judge
from embedded.prompts import Task
from embedded.scores import share, task_marks

STRONG = 7.5  # the guidance that the snippets of Stable Diffusion use
SIDE = 64  # pixels per side of the pictures that are compared
VISIBLE = 20.0  # dB: two pictures whose PSNR is lower differ visibly


def differ(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures differ visibly: their PSNR, at SIDE x SIDE pixels, is less than VISIBLE."""
    a, b = (np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BOX), np.float64) for image in (one, other))
    return bool(((a - b) ** 2).mean() > 255**2 / 10 ** (VISIBLE / 10))


def report(
    tasks: Sequence[Task],
    images: Sequence[Image.Image | None],
    other_seed: Sequence[Image.Image | None],
    strong: Sequence[Image.Image | None],
    judge: Judge,
) -> dict[str, float | int | None]:
    """Return "two_seeds", the share of prompts whose pictures of two seeds differ visibly, and "guidance_7_5", the
    share of pictures with the guidance STRONG whose concept is right. All pictures are in the order of `tasks`, which
    show a single thing each. A missing picture counts as no difference, and as wrong.
    """
    pairs = zip(images, other_seed, strict=True)
    right = [task_marks(task, verdict) for task, verdict in zip(tasks, judge(strong), strict=True)]
    return {
        "two_seeds": share([a is not None and b is not None and differ(a, b) for a, b in pairs]),
        "guidance_7_5": share([flags.get("one", flags.get("one, held out", False)) for flags in right]),
        "prompts": len(tasks),
    }
