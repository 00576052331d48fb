"""The embedded model's trainings compute on the accelerator's device. A fake device shows what would stay behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedded import autoencoder, networks, preview, safety_checker, text_to_image
from embedded.captions import JAPANESE
from embedded.drawings import Concept, Drawing
from embedded.latents import PATCH, LinearLatents
from embedded.training_data import Batches, encode_all
from jsd.train import trainer
from jsd.train.trainer import Plan
from tests.train.fake_device import ACCELERATOR, DEVICE, fake_device, stand_in


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices of the losses that the trainings of a test compute: one loss per training."""
    found: list[torch.device] = []
    monkeypatch.setattr(trainer, "train", stand_in(found))
    return found


@pytest.fixture
def images() -> np.ndarray:
    return np.zeros((4, 64, 64, 3), np.uint8)


def linear(device: torch.device, patch: int = PATCH, channels: int = networks.CHANNELS) -> LinearLatents:
    wide = 3 * patch**2
    zeros = [torch.zeros(shape, device=device) for shape in ((wide, channels), wide, channels)]
    return LinearLatents(patch, *zeros)


def cached(
    file: Path, images: np.ndarray, device: torch.device, patch: int, channels: int, count: int
) -> LinearLatents:
    with fake_device():
        return linear(device, patch, channels)


def test_the_autoencoder(devices, images, monkeypatch, tmp_path):
    monkeypatch.setattr(LinearLatents, "cached", cached)
    vae = networks.make_vae()
    with fake_device():
        latents = linear(DEVICE)
    plans = [(Plan(1, 1e-3), 2)] * 4
    autoencoder.train_decoder(vae, images, latents, plans, tmp_path, ACCELERATOR)
    autoencoder.train_encoder(vae, images, latents, Plan(1, 1e-3), tmp_path, ACCELERATOR, batch=2)
    assert devices == [DEVICE] * 5


def test_the_latents_of_all_pictures_go_back_to_the_cpu(images, monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(torch, "save", lambda value, file: (written.append(value.device), file.touch()))
    monkeypatch.setattr("embedded.training_data.read_tensors", lambda file, device: None)
    with fake_device() as device:
        encode_all(linear(device), images, tmp_path / "encoded.pt")
    assert written == [torch.device("cpu")]


def test_the_linear_map_is_computed_on_the_device(images):
    with fake_device() as device:
        assert LinearLatents.from_images(images, patch=4, channels=6, device=device).basis.device == device


def test_text_encoder_and_preview(devices, components, monkeypatch, tmp_path):
    tokenizer = components.tokenizer
    latents, pictures = torch.zeros(3, networks.CHANNELS, 8, 8), []
    batches = Batches(latents, np.ones(3) / 3, lambda i, rng: "猫", tokenizer)
    black = SimpleNamespace(cpu=lambda: SimpleNamespace(numpy=lambda: np.zeros((8, 8, 3), np.uint8)))
    monkeypatch.setattr(preview, "to_pixels", lambda x: pictures.append(x.device) or [black])
    # A step of the real sampler looks up a value, and here are none.
    step = lambda self, v, t, x_t: SimpleNamespace(prev_sample=x_t + v)  # noqa: E731
    monkeypatch.setattr(preview.DDIMScheduler, "step", step)
    text_encoder, unet = networks.make_text_encoder(tokenizer), networks.make_unet()
    text_to_image.pretrain_text(text_encoder, batches, Plan(1, 1e-3), tmp_path, ACCELERATOR, batch=4)
    with fake_device() as device:
        data = SimpleNamespace(tokenizer=lambda language: tokenizer, latents=linear(device))
        preview.draw_preview(data, JAPANESE, text_encoder, unet.to(device), tmp_path / "preview.png")
    assert (devices, pictures) == ([DEVICE], [DEVICE])


def test_the_safety_checker(devices, monkeypatch, tmp_path):
    """Its loss only: the thresholds after the training need values."""
    concepts = [Concept(name, ("o",), (name,), (name,)) for name in safety_checker.FLAGGED]
    drawings = [Drawing(concept, "noto", "o", False, "") for concept in concepts]
    index = SimpleNamespace(drawings=[(0,), (1,), (2,)], single=np.arange(3), images=np.zeros((3, 64, 64, 3), np.uint8))

    def stop(*arguments, **settings):
        stand_in(devices)(*arguments, **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        safety_checker.train(drawings, index, Plan(1, 1e-3), tmp_path, ACCELERATOR, batch=4)
    assert devices == [DEVICE]
