"""The training of the embedded model's autoencoder: its latents end white, and the norm that made them so is folded."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from embedded import autoencoder, networks
from jsd.train.trainer import Plan


def waves(size: int, rng: np.random.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
    """Smooth pictures: waves of random direction and colour, (size, 3, 32, 32)."""
    y, x = np.mgrid[0:32, 0:32] / 32
    slopes = rng.normal(size=(2, size, 3, 1, 1)) * 4
    return torch.from_numpy(np.sin(slopes[0] * x + slopes[1] * y)).float().to(device)


def test_the_latents_end_white_and_every_weight_is_trained(tmp_path):
    torch.manual_seed(0)
    vae = networks.make_vae(networks.TINY)
    before = {name: p.clone() for name, p in vae.named_parameters()}
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    plan = Plan(12, 1e-3, muon=3e-3, warmup=1, ema=0.5)
    autoencoder.train(vae, waves, plan, 4, tmp_path, accelerator, statistics=80)
    assert [name for name, p in vae.named_parameters() if torch.equal(p, before[name])] == []
    assert not vae.training
    z = vae.encode(waves(80, np.random.default_rng(1))).latent_dist
    assert torch.allclose(z.mean.mean((0, 2, 3)), torch.zeros(networks.CHANNELS), atol=0.2)
    assert torch.allclose(z.mean.std((0, 2, 3)), torch.ones(networks.CHANNELS), atol=0.25)
    assert torch.allclose(z.std, torch.tensor(autoencoder.SPREAD), atol=1e-4)


def test_folding_keeps_the_latents():
    torch.manual_seed(0)
    model = autoencoder.Whitened(networks.make_vae(networks.TINY))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = waves(3, np.random.default_rng(0))
    with torch.no_grad():
        model.encode(x)  # statistics
        model.eval()
        wanted = model.encode(x)
        model.fold()
        assert torch.allclose(model.vae.encode(x).latent_dist.mean, wanted, atol=1e-4)


def test_the_loss_sees_an_edge_that_is_blurred():
    x = torch.ones(1, 3, 16, 16)
    x[..., 8:] = -1
    soft, shifted = x.clone(), x + 0.125
    soft[..., 7:9] = 0  # the same mean absolute error
    assert (soft - x).abs().mean() == (shifted - x).abs().mean()
    assert autoencoder.picture_loss(soft, x) > 1.1 * autoencoder.picture_loss(shifted, x)
    assert autoencoder.psnr(shifted, x) == pytest.approx(24.1, abs=0.1)
