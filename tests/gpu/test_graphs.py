"""CUDA graphs of the UNet predict what it predicts without them, also after its weights have changed."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from jsd import settings
from jsd.adapters import Adapters
from jsd.request import Request
from jsd.sampling import generate
from tests.adapters import adapter
from tests.engine.conftest import CAT, TWELVE
from tests.fakes import psnr
from tests.gpu.conftest import ALIKE, DEVICE, ON_GPU, with_graphs

# How far predictions may differ, as a share of the largest: the number of bits of a value, and some sums.
CLOSE = {torch.float32: 1e-4, torch.float16: 1e-2}


def inputs(components, rows, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, context = (torch.randn(rows, *shape, generator=generator) for shape in ((4, side, side), (24, 32)))
    place = {"device": DEVICE, "dtype": components.dtype}
    return x.to(**place), torch.linspace(1, 999, rows, device=DEVICE), context.to(**place)


def error(one, other):
    return float((one - other).abs().max() / other.abs().max())


@torch.inference_mode()
def test_a_graph_predicts_what_the_unet_predicts(components, graphed, capsys):
    for seed in range(4):
        for rows in (1, 2, 5, 7, 16, 20):
            for side in (4, 6):
                call = inputs(components, rows, side, seed)
                (eps,), (expected,) = graphed.unet(*call), components.unet(*call, return_dict=False)
                assert error(eps, expected) <= CLOSE[components.dtype]
    assert "no CUDA graph" not in capsys.readouterr().err


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_picture_drawn_with_graphs_is_the_same(components, graphed, outputs):
    request = replace(TWELVE, num_outputs=outputs)
    for ours, plain in zip(generate(graphed, request).images, generate(components, request).images, strict=True):
        assert psnr(ours, plain) >= ALIKE[components.dtype]


def test_a_lora_counts_that_comes_after_graphs_were_recorded(components, on_cpu):
    parts = {"unet": copy.deepcopy(components.unet), "text_encoder": copy.deepcopy(components.text_encoder)}
    own = replace(components, **parts, adapters=Adapters(**parts))
    graphed = with_graphs(own)
    before = generate(graphed, CAT).images[0]
    request = replace(CAT, lora=adapter(on_cpu))
    after = generate(graphed, request).images[0]
    assert psnr(after, generate(own, request).images[0]) >= ALIKE[components.dtype]
    assert psnr(after, before) < 40
    assert psnr(generate(graphed, CAT).images[0], before) >= ALIKE[components.dtype]


def test_more_sizes_than_graphs_are_kept_for_draw_their_own_pictures(components):
    graphed = with_graphs(components)
    graphed.unet._most = 3
    sizes = [(64, 64), (80, 64), (64, 80), (96, 64), (64, 96)]
    for width, height in sizes * 2:
        request = Request("猫", seed=1, width=width, height=height)
        ours, plain = (generate(each, request).images[0] for each in (graphed, components))
        assert psnr(ours, plain) >= ALIKE[components.dtype]


@pytest.mark.skipif(not ON_GPU, reason="the CPU's compiler takes minutes")
def test_a_compiled_unet_draws_the_same_picture(tiny_folder, components, monkeypatch, capsys):
    for name, value in {"JSD_WEIGHTS": str(tiny_folder), "JSD_DEVICE": str(DEVICE), "JSD_COMPILE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JSD_DTYPE", "fp16" if components.dtype == torch.float16 else "fp32")
    compiled = settings.load_components()
    assert capsys.readouterr().out.rstrip().endswith("compiled, CUDA graphs")
    for seed in range(3):
        request = replace(CAT, seed=seed)
        ours, plain = (generate(each, request).images[0] for each in (compiled, components))
        assert psnr(ours, plain) >= ALIKE[components.dtype]
