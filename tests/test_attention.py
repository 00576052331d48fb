"""Attention in blocks: the same numbers as torch's fused kernel."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.nn.functional import scaled_dot_product_attention

from jsd import attention
from jsd.attention import BlockedAttention, blocked_attention


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 1), (7, 77), (512, 77), (513, 513), (1100, 1100), (16, 300_000)], ids=str
)
def test_blocks_give_what_the_fused_kernel_gives(queries, keys):
    q, k, v = (torch.randn(2, n, 3, 8).transpose(1, 2) for n in (queries, keys, keys))
    torch.testing.assert_close(blocked_attention(q, k, v), scaled_dot_product_attention(q, k, v), atol=2e-5, rtol=1e-4)


def test_blocks_in_bfloat16_are_near_those_in_float32():
    q, k, v = (torch.randn(2, 4, 600, 40) for _ in range(3))
    found = blocked_attention(*(x.bfloat16() for x in (q, k, v)))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), scaled_dot_product_attention(q, k, v), atol=0.01, rtol=0.02)


@pytest.fixture
def products(monkeypatch):
    """The products of a call: (heads, rows, columns) and the memory of the result."""
    bmm, found = torch.bmm, []

    def watched(*of, out):
        found.append((tuple(out.shape), out.data_ptr()))
        return bmm(*of, out=out)

    monkeypatch.setattr(attention.torch, "bmm", watched)
    return found


def test_a_block_of_heads_holds_no_more_scores_than_allowed_and_all_blocks_share_their_memory(products):
    q = torch.randn(2, 8, 1024, 4)
    blocked_attention(q, q, q)
    scores = products[::2]
    assert max(heads * rows * keys for (heads, rows, keys), _ in scores) == attention.SCORES
    assert len({place for _, place in scores}) == 1


def test_few_scores_are_one_block(products):
    q = torch.randn(2, 8, 64, 4)
    blocked_attention(q, q, q)
    assert [shape for shape, _ in products] == [(16, 64, 64), (16, 64, 4)]


def test_a_head_with_many_scores_is_cut_into_queries(products):
    q, k = torch.randn(1, 1, 1100, 4), torch.randn(1, 1, 9000, 4)
    blocked_attention(q, k, k)
    assert [shape for shape, _ in products[::2]] == [(1, 512, 9000), (1, 512, 9000), (1, 76, 9000)]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 30, 32)),
        ({"cross_attention_dim": 16}, (2, 30, 32)),
        ({"residual_connection": True}, (2, 30, 32)),
        ({"norm_num_groups": 4}, (2, 30, 32)),
        ({"residual_connection": True, "norm_num_groups": 4}, (2, 32, 5, 6)),
        ({}, (2, 32, 5, 6)),
        ({"cross_attention_dim": 16, "cross_attention_norm": "layer_norm"}, (2, 30, 32)),
        ({"qk_norm": "layer_norm"}, (2, 30, 32)),
        ({"rescale_output_factor": 2.0}, (2, 30, 32)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("masked", [False, True])
@torch.inference_mode()
def test_the_processor_does_what_that_of_diffusers_does(options, shape, masked):
    layer = Attention(32, heads=4, dim_head=8, bias=True, **options).eval()
    x = torch.randn(shape)
    context = torch.randn(2, 30, 16) if "cross_attention_dim" in options else None
    mask = torch.zeros(2, 1, 30).index_fill_(2, torch.arange(20, 30), -10_000.0) if masked else None
    wanted = AttnProcessor2_0()(layer, x, context, mask)
    torch.testing.assert_close(BlockedAttention()(layer, x, context, mask), wanted, atol=1e-5, rtol=1e-4)
