"""How a run shares out its time between the phases, and how long a whole run would take on this machine.

Every phase ends by time. The shares are those of the run that made the weights in the repository, on one H100.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from embedded import networks
from embedded.autoencoder import Whitened
from embedded.training_data import LENGTH, VOCABULARY
from jsd.language import Text
from jsd.train.diffusion import Denoiser
from jsd.train.stages import noise_schedule

MINUTES = 30.0  # of a run on a GPU
SHARES = {"autoencoder": 0.25, "base": 0.2, "stage1": 0.035, "stage2": 0.39, "safety": 0.03}
# Pictures and samples that the weights in the repository have seen.
SAMPLES = {"autoencoder": 197_632, "base": 1_063_424, "stage1": 237_568, "stage2": 2_038_272}
CLOSING = 0.06  # the share that drawing for the safety checker, calibrating it and writing the model take


@dataclass(frozen=True)
class Scale:
    """How much a run does at once, and how much of what does not end by time."""

    sizes: networks.Sizes
    pictures: int  # per step of the autoencoder
    samples: int  # per step of a stage
    examples: int  # per step of the safety checker
    captions: int  # that the tokenizers are trained on
    shards: int  # of scenes, at most
    shard: int  # scenes in a shard
    rendered: int  # scenes for the safety checker
    drawn: int  # of the model's own pictures for the safety checker
    previews: int  # prompts


GPU = Scale(networks.FULL, 64, 512, 128, 60_000, 800, 250, 20_000, 1600, 18)
CPU = Scale(networks.FULL, 8, 32, 48, 60_000, 800, 250, 8_000, 400, 6)
TINY = Scale(networks.TINY, 1, 2, 4, 300, 2, 12, 12, 8, 2)


class Budget:
    """The time of a run, of which `spent` seconds are over already."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.total, self.began = 60 * minutes, time.monotonic() - spent

    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.began

    def seconds(self, phase: str) -> float:
        """Return how many seconds a phase may take. `stage2`, the last stage, gets what the others left."""
        share = SHARES[phase] * self.total
        if phase != "stage2":
            return share
        return max(share / 2, (1 - CLOSING - SHARES["safety"]) * self.total - self.elapsed())


def estimate() -> float:
    """Return about how many minutes a run on this machine's CPU would take to see as many samples as SAMPLES says. It
    measures a step of the autoencoder and one of UNet and text encoder, which takes some seconds.
    """
    autoencoder = Whitened(networks.make_vae())
    pictures = torch.zeros(2, 3, networks.SIDE, networks.SIDE)
    noise = noise_schedule(networks.NOISE_SCHEDULE)
    tokens = SimpleNamespace(vocabulary_size=VOCABULARY["ja"], max_length=LENGTH, pad_id=0, eos_id=1)
    denoiser = Denoiser(networks.make_text_encoder(tokens), networks.make_unet(), noise, 5.0)
    side = networks.SIDE // networks.CELL
    x_0, ids = torch.randn(8, networks.CHANNELS, side, side), torch.ones(8, LENGTH, dtype=torch.long)
    t = torch.arange(8) * 100
    a_picture = _seconds(lambda: autoencoder(pictures)[0]) / len(pictures)
    a_sample = _seconds(lambda: denoiser(x_0, ids, torch.randn_like(x_0), t)) / len(x_0)
    stages = sum(count for name, count in SAMPLES.items() if name != "autoencoder")
    return (a_picture * SAMPLES["autoencoder"] + a_sample * stages) / 60


def _seconds(loss_of: Callable[[], torch.Tensor]) -> float:
    """Return how long a loss and its gradients take, the second time."""
    for _ in range(2):
        began = time.monotonic()
        loss_of().backward()
    return time.monotonic() - began


def spoken(minutes: float) -> str:
    """Return a duration in words: "40 minutes", "7 hours", "3 days"."""
    if minutes >= 2 * 1440:
        return Text("{:.0f} days", minutes / 1440)
    return Text("{:.0f} hours", minutes / 60) if minutes >= 2 * 60 else Text("{:.0f} minutes", minutes)
