"""The embedded model's trainings compute on the accelerator's device. A fake device shows what would stay behind."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedded import autoencoder, networks, safety_checker, text_to_image, training_data
from embedded.safety_examples import FLAGGED, Examples
from embedded.training_data import Bucket
from jsd.train import trainer
from jsd.train.parts import Parts
from jsd.train.trainer import Plan
from tests.train.fake_device import ACCELERATOR, DEVICE, fake_device, stand_in


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices of the losses that the trainings of a test compute: one loss per training. What a training does
    afterwards needs values, which a fake device does not have.
    """
    found: list[torch.device] = []

    def stop(*arguments, **settings):
        stand_in(found)(*arguments, **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", stop)
    return found


def test_the_autoencoder(devices, tmp_path):
    def pictures(size, rng, device):
        return torch.zeros(size, 3, 16, 16, device=device)

    with pytest.raises(KeyboardInterrupt):
        autoencoder.train(networks.make_vae(networks.TINY), pictures, Plan(1, 1e-3), 2, tmp_path, ACCELERATOR)
    assert devices == [DEVICE]


def test_latents_and_captions_stay_on_the_device_of_the_autoencoder():
    shards = SimpleNamespace(
        ready=[0], shards=lambda: iter([(np.zeros((2, 16, 16, 3), np.uint8), {"ja": np.zeros((2, 1, 4), np.int16)})])
    )
    vae = networks.make_vae(networks.TINY)
    with fake_device() as device:
        (bucket,) = training_data.encode_all(shards, vae.to(device), nullcontext, 2)
        x_0, ids, _ = training_data.source([bucket], "ja", 3)(0, np.random.default_rng(0))
    assert (x_0.device, ids.device) == (DEVICE, DEVICE)


def test_a_stage(devices, components, tmp_path: Path):
    own = map(copy.deepcopy, (components.text_encoder, components.unet, components.vae))  # other tests use these, too
    parts = Parts(components.tokenizer, *own, {})
    parts.scheduler_config = networks.NOISE_SCHEDULE
    channels, tokens = components.unet.config.in_channels, components.tokenizer.max_length
    with fake_device() as device:
        latents = torch.zeros(3, channels, 4, 4, device=device)
        bucket = Bucket(latents, {"ja": torch.zeros(3, 1, tokens, dtype=torch.int16, device=device)})
    with pytest.raises(KeyboardInterrupt), fake_device():
        text_to_image.train_stage("stage2", parts, [bucket], 2, 1.0, tmp_path, ACCELERATOR, {}, print)
    assert devices == [DEVICE]


def test_the_safety_checker(devices, tmp_path):
    side, names = networks.CHECKER_SIDE, ("cat", *FLAGGED)
    examples = Examples(np.zeros((4, side, side, 3), np.uint8), np.eye(4, dtype=bool))
    assets = SimpleNamespace(concepts=dict.fromkeys(names))
    with pytest.raises(KeyboardInterrupt):
        safety_checker.train(assets, examples, examples, Plan(1, 1e-3), tmp_path, ACCELERATOR, batch=4)
    assert devices == [DEVICE]
