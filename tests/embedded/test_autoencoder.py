"""The closed-form latents of the embedded model, and the training of its autoencoder on them."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from embedded import autoencoder, latents, networks
from jsd.train.trainer import Plan
from jsd.vae import to_tensor
from tests.train.conftest import fresh_accelerator

__all__ = ["fresh_accelerator"]  # pytest finds the fixture here


@pytest.fixture
def images():
    """40 smooth pictures, uint8 (40, 64, 64, 3): waves of random direction and colour."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64
    waves = np.sin(
        rng.normal(size=(40, 1, 1, 3)) * 4 * x[None, ..., None]
        + rng.normal(size=(40, 1, 1, 3)) * 4 * y[None, ..., None]
    )
    return ((waves + 1) * 127.5).astype(np.uint8)


def test_closed_form_latents_restore_the_picture(images):
    x = to_tensor(images)
    few = latents.LinearLatents.from_images(images, patch=16, channels=6)
    many = latents.LinearLatents.from_images(images, patch=16, channels=48)
    z = many.encode(x)
    assert z.shape == (40, 48, 4, 4)
    assert float(z.std()) == pytest.approx(1, abs=0.3)
    assert autoencoder.psnr(many.decode(z), x) > 45
    assert autoencoder.psnr(few.decode(few.encode(x)), x) < autoencoder.psnr(many.decode(z), x)


def test_the_segments_one_after_the_other_are_the_decoder():
    torch.manual_seed(0)
    vae = networks.make_vae().eval()
    for parameter in vae.parameters():  # the residual branches begin at zero, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.05)
    z = torch.randn(1, networks.CHANNELS, 2, 2)
    with torch.no_grad():
        h = z
        for segment in autoencoder.segments(vae):
            h = segment(h)
        assert torch.equal(h, vae.decode(z).sample)
    assert h.shape == (1, 3, 64, 64)


def test_the_training_changes_every_weight_of_decoder_and_encoder(tmp_path, images):
    torch.manual_seed(0)
    vae = networks.make_vae()
    # Any orthonormal basis is enough here. To find the components of 32 x 32 patches takes seconds.
    basis = torch.linalg.qr(torch.randn(3 * latents.PATCH**2, networks.CHANNELS))[0]
    targets = latents.LinearLatents(latents.PATCH, basis, torch.zeros(len(basis)), torch.ones(basis.shape[1]))
    before = {name: p.clone() for name, p in vae.named_parameters()}
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    autoencoder.train_decoder(vae, images, targets, [(Plan(2, 1e-3), 2)] * 4, tmp_path, accelerator)
    autoencoder.train_encoder(vae, images, targets, Plan(2, 1e-3), tmp_path, accelerator, batch=2)
    unchanged = [name for name, p in vae.named_parameters() if torch.equal(p, before[name])]
    assert unchanged == []
