"""The autoencoder in half precision: what overflows there is computed again in float32."""

from __future__ import annotations

import pytest
import torch

from jsd import vae
from jsd.errors import NaNError
from jsd.model import load
from tests.fakes import overflowing, psnr


@pytest.fixture(scope="module")
def half(tiny_folder):
    """The tiny model in float16, with numbers in its autoencoder that are too large for float16."""
    return overflowing(load(tiny_folder, dtype=torch.float16))


@pytest.fixture
def z():
    return torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(0))


def test_pictures_that_overflow_in_float16_are_decoded_in_float32(half, components, z):
    with torch.no_grad():
        assert not half.vae.decode(z.half()).sample.isfinite().all()
    assert psnr(vae.decode(half, z), vae.decode(overflowing(components), z)) >= 50


def test_pictures_that_overflow_in_float16_are_encoded_in_float32(half, components, photo):
    with torch.no_grad():
        assert not half.vae.encode(vae.to_tensor(photo)[None].half()).latent_dist.mean.isfinite().all()
    ours, theirs = (vae.encode(each, photo) for each in (half, overflowing(components)))
    assert torch.allclose(ours.mean, theirs.mean, atol=1e-3)
    assert torch.allclose(ours.std, theirs.std, atol=1e-3)


def test_the_model_stays_in_float16_and_decodes_the_next_pictures_there(half, components, z):
    vae.decode(half, z)
    assert {value.dtype for value in half.vae.parameters()} == {torch.float16}
    seen = []
    hook = half.vae.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].dtype))
    vae.decode(half, z * 1e-6)
    hook.remove()
    assert seen[0] == torch.float16


def test_pictures_that_are_not_finite_in_float32_either_are_an_error(half, z):
    broken = overflowing(half)
    broken.vae.decoder.conv_in.bias[0] = float("inf")
    with pytest.raises(NaNError, match="the decoded picture holds NaN .*; try another seed, or JSD_DTYPE=fp32"):
        vae.decode(broken, z)
    with pytest.raises(NaNError, match="the latents became NaN"):
        vae.decode(half, z * float("nan"))
