"""What a wide UNet in bfloat16 does on a CPU is measured: attention in blocks or by torch's kernel, and its layout."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from jsd import cpu, model
from jsd.attention import BlockedAttention


@pytest.fixture
def tuned(tiny_folder, monkeypatch):
    """Return the tiny UNet in bfloat16, changed by `prepare`, and the log of tuning it as if it were wide, where blocks
    and channels_last have these ratios. What is timed is also called.
    """
    monkeypatch.setattr(cpu, "WIDE", 0)

    def tune(blocks: float, layout: float, bfloat16: float = 0.4, prepare=lambda unet: None):
        unet = model.read_part(tiny_folder, "unet", torch.bfloat16)
        prepare(unet)
        ratios = iter((blocks, layout))
        monkeypatch.setattr(cpu, "bfloat16_ratio", lambda width: bfloat16)

        @torch.inference_mode()
        def seconds(one, other):
            torch.testing.assert_close(one(), other(), atol=0.02, rtol=0.02)  # two ways to the same numbers
            return [1.0, next(ratios)]

        monkeypatch.setattr(cpu, "_seconds", seconds)
        return unet, [str(line) for line in cpu.tune(unet)]

    return tune


def processors(unet):
    return {type(processor) for processor in unet.attn_processors.values()}


def layouts(unet):
    weights = [layer.weight for layer in unet.modules() if isinstance(layer, torch.nn.Conv2d)]
    return {weight.is_contiguous(memory_format=torch.channels_last) for weight in weights if min(weight.shape) > 1}


@pytest.mark.parametrize(("ratio", "processor"), [(0.69, BlockedAttention), (0.71, AttnProcessor2_0)])
def test_attention_is_in_blocks_where_that_is_clearly_faster(tuned, ratio, processor):
    unet, log = tuned(ratio, 2.0)
    assert processors(unet) == {processor}
    assert log == (["attention in blocks (0.69 of the usual time)"] if processor is BlockedAttention else [])


@pytest.mark.parametrize(("ratio", "last"), [(1.09, True), (1.11, False)])
def test_the_unet_is_in_channels_last_unless_that_is_slower(tuned, ratio, last):
    unet, log = tuned(2.0, ratio)
    assert layouts(unet) == {last}
    assert log == (["UNet in channels_last (1.09 of the usual time)"] if last else [])


def test_nothing_is_measured_or_changed_where_bfloat16_is_slow(tuned):
    unet, log = tuned(0.1, 0.1, bfloat16=4.0)
    assert (processors(unet), layouts(unet), log) == ({AttnProcessor2_0}, {False}, [])


def test_a_narrow_unet_is_left_alone(tiny_folder, monkeypatch):
    monkeypatch.setattr(cpu, "bfloat16_ratio", lambda width: 0.1)
    assert cpu.tune(model.read_part(tiny_folder, "unet", torch.bfloat16)) == []


def without_attention(unet):
    unet.down_blocks = torch.nn.ModuleList(block for block in unet.down_blocks if not hasattr(block, "attentions"))


def without_transformers(unet):
    for block in unet.down_blocks:
        for attention in getattr(block, "attentions", ()):
            attention.transformer_blocks = torch.nn.ModuleList()


@pytest.mark.parametrize("prepare", [without_attention, without_transformers])
def test_a_unet_of_another_form_is_left_alone(tuned, prepare):
    assert tuned(0.1, 0.1, prepare=prepare)[1] == []


def test_an_attention_of_another_kind_keeps_its_processor(tuned):
    """`AttnAddedKVProcessor2_0`, for one, has layers that blocks know nothing of."""
    kind = type("Special", (AttnProcessor2_0,), {})

    def prepare(unet):
        unet.set_attn_processor({name: kind() if "mid" in name else p for name, p in unet.attn_processors.items()})

    unet, _ = tuned(0.1, 2.0, prepare=prepare)
    assert processors(unet) == {kind, BlockedAttention}


def test_a_unet_that_wants_its_scores_in_float32_has_no_blocks(tuned):
    unet, _ = tuned(0.1, 2.0, prepare=lambda unet: unet.register_to_config(upcast_attention=True))
    assert processors(unet) == {AttnProcessor2_0}


def test_weights_are_brought_into_channels_last_in_their_own_memory(tuned):
    places = {}
    unet, _ = tuned(2.0, 0.1, prepare=lambda unet: places.update({n: p.data_ptr() for n, p in unet.named_parameters()}))
    assert {name: weight.data_ptr() for name, weight in unet.named_parameters()} == places
    cpu._to_channels_last(unet)  # once more does no harm
    assert layouts(unet) == {True}


def test_a_unet_is_tuned_by_a_real_measurement(tiny_folder, monkeypatch):
    monkeypatch.setattr(cpu, "WIDE", 0)
    monkeypatch.setattr(cpu, "bfloat16_ratio", lambda width: 0.4)
    monkeypatch.setattr(cpu, "CLEARLY", 1e9)
    monkeypatch.setattr(cpu, "NOT_SLOWER", 1e9)
    unet = model.read_part(tiny_folder, "unet", torch.bfloat16)
    assert [re.sub("[0-9.]+", "R", str(line)) for line in cpu.tune(unet)] == [
        "attention in blocks (R of the usual time)",
        "UNet in channels_last (R of the usual time)",
    ]


def test_a_tuned_unet_predicts_the_same_but_for_rounding(tuned, tiny_folder):
    torch.manual_seed(0)
    x, context = torch.randn(2, 4, 4, 4).bfloat16(), torch.randn(2, 24, 32).bfloat16()
    with torch.inference_mode():
        wanted = model.read_part(tiny_folder, "unet", torch.bfloat16)(x, 500, context).sample
        found = tuned(0.1, 0.1)[0](x, 500, context).sample
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)
