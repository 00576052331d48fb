"""Attention on a CPU by plain matrix products, a block of queries at a time, in place of torch's fused kernel.

The fused kernel multiplies bfloat16 no faster than float32 on processors that have units for bfloat16 but no AMX: there
it takes two to three times as long as this (docs/cpu.md).
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

QUERIES = 512  # in a block, at most
SCORES = 2**21  # in a block of several heads, at most: 4 MB in bfloat16, which stay in the cache


def blocked_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, section 3.2.1), computed in blocks.

    `query` is (rows, heads, queries, d), `key` and `value` are (rows, heads, keys, d), and the result is like `query`.
    """
    q, k, v = (x.flatten(0, 1) for x in (query * query.shape[-1] ** -0.5, key, value))
    result, queries = torch.empty_like(q), min(QUERIES, q.shape[1])
    heads = min(len(q), max(1, SCORES // (queries * k.shape[1])))
    # All blocks use the same memory: new memory from the system for each would take longer than the products.
    scores, weights = q.new_empty(2, heads, queries, k.shape[1])
    for q_heads, k_heads, v_heads, out_heads in zip(*(x.split(heads) for x in (q, k, v, result)), strict=True):
        for block, out in zip(q_heads.split(queries, 1), out_heads.split(queries, 1), strict=True):
            place = slice(len(block)), slice(block.shape[1])
            torch.bmm(block, k_heads.mT, out=scores[place])
            torch.softmax(scores[place], -1, out=weights[place])
            torch.bmm(weights[place], v_heads, out=out)
    return result.unflatten(0, query.shape[:2])


class BlockedAttention:
    """An attention processor of a UNet's transformer blocks that uses `blocked_attention`, without gradients."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **more: object,
    ) -> torch.Tensor:
        plain = hidden_states.ndim == 3 and not (attn.group_norm or attn.spatial_norm or attn.norm_cross or attn.norm_q)
        if attention_mask is not None or not plain or attn.residual_connection:
            return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, **more)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layers = ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        q, k, v = (layer(x).unflatten(2, (attn.heads, -1)).transpose(1, 2) for layer, x in layers)
        found = blocked_attention(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](found)) / attn.rescale_output_factor
