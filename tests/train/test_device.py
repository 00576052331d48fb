"""Training computes on the accelerator's device, and in bf16 and TF32 if that is a GPU. No GPU is needed to see it."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import Accelerator

from jsd.train import lora, stages, trainer
from jsd.train.diffusion import Denoiser
from jsd.train.trainer import Plan
from tests.train.fake_device import ACCELERATOR, DEVICE, fake_device, stand_in


def test_two_devices_do_not_mix():
    """Otherwise the fake device would show nothing."""
    with fake_device() as device, pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device=device) + torch.ones(3)


def test_the_pictures_of_an_adapter_are_encoded_on_the_device(components):
    vae = copy.deepcopy(components.vae)
    with fake_device() as device:
        latents = lora.encode(vae, torch.zeros(2, 3, 64, 64), device)
        assert (latents.device, latents.shape) == (device, (2, 4, 4, 4))


@pytest.mark.parametrize("place", ["cpu", DEVICE])
def test_the_diffusion_loss_is_computed_on_the_device(components, monkeypatch, tmp_path, place):
    devices = []
    monkeypatch.setattr(trainer, "train", stand_in(devices))
    parts = copy.deepcopy((components.text_encoder, components.unet))
    ids = torch.tensor(components.tokenizer("猫").ids)
    model = Denoiser(*parts, stages.noise_schedule(components.scheduler_config), min_snr=5.0)
    with fake_device():
        x_0 = torch.zeros(2, 4, 4, 4, device=place)  # latents of a stream are on the device, others are not
    source = lambda step, rng: (x_0, ids.repeat(2, 1), ["a", "b"])  # noqa: E731
    stages.train_denoiser("lora", model, source, ids, Plan(1, 1e-3), tmp_path, ACCELERATOR)
    assert devices == [DEVICE]


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16"), (False, "no")])
def test_a_gpu_trains_in_bf16_where_it_can(monkeypatch, bf16, precision):
    told = []
    monkeypatch.setattr(trainer, "Accelerator", lambda **settings: told.append(settings["mixed_precision"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    trainer.make_accelerator()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    trainer.make_accelerator()
    assert told == [precision, "fp16"]


def test_a_gpu_multiplies_in_tf32_inside_training_only():
    before = torch.get_float32_matmul_precision()
    with trainer.tf32(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    with trainer.tf32(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before


def test_what_is_drawn_during_training_is_not_drawn_in_tf32(monkeypatch, tmp_path):
    """The training here sees a GPU where it asks for the precision, and computes on the CPU."""
    seen, tf32 = {}, trainer.tf32
    monkeypatch.setattr(trainer, "tf32", lambda device: tf32(torch.device("cuda")))

    def loss_of(model, step, rng):
        seen["loss"] = torch.get_float32_matmul_precision()
        return model.weight.square().sum(), {}

    def on_save(step):
        seen["drawing"] = torch.get_float32_matmul_precision()

    accelerator = Accelerator(mixed_precision="no", cpu=True)
    trainer.train("line", torch.nn.Linear(1, 1), loss_of, Plan(1, 1e-3), tmp_path, accelerator, on_save=on_save)
    assert seen == {"loss": "high", "drawing": "highest"}
