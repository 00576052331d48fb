"""Weights in few bits: a network of 12 M parameters in 6.5 MB.

Each output channel of a matrix is stored as whole numbers and one scale, the one of least squared error. A large filter
gets 4 bits a number, any other matrix 8. What is no matrix stays as it is.
"""

from collections.abc import Mapping

import torch

LARGE = 100_000  # numbers of a filter that is stored in 4 bits
SCALE = ".scale"  # the end of the names of scales


def pack(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors that `unpack` makes `weights` from, but for what rounding loses. Packing its result again
    loses nothing more.
    """
    packed = {}
    for name, value in weights.items():
        value = value.detach().cpu()
        if value.dim() < 2:
            packed[name] = value.contiguous()
            continue
        bits = _bits(value)
        numbers, packed[name + SCALE] = _round(value.float().flatten(1), 2 ** (bits - 1) - 1)
        if bits == 4:
            low, high = (numbers.flatten() + 8).to(torch.uint8).view(-1, 2).unbind(1)
            packed[name] = low | high << 4
        else:
            packed[name] = numbers.to(torch.int8)
    return packed


def unpack(packed: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights that `pack` packed, in float32. `shapes` has a tensor of the right shape for each name.

    Raises KeyError or RuntimeError if `packed` holds other weights.
    """
    weights = {}
    for name, like in shapes.items():
        value = packed[name]
        if like.dim() >= 2:
            if _bits(like) == 4:
                value = torch.stack([value & 15, value >> 4], 1).to(torch.int8) - 8
            value = (value.float().view(len(like), -1) * packed[name + SCALE].float()).view(like.shape)
        weights[name] = value
    return weights


def _bits(weight: torch.Tensor) -> int:
    return 4 if weight.dim() == 4 and weight.shape[2] > 1 and weight.numel() >= LARGE else 8


def _round(rows: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `rows` (n, m) as whole numbers from -top - 1 to top, and the scales, float16 (n, 1), to multiply them by.
    The scale is chosen among shares of the one that needs no clipping.
    """
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-4)
    best, error = largest, torch.full_like(largest, torch.inf)
    for share in torch.linspace(0.4, 1, 25):
        scale = (share * largest / top).half().float()
        lost = ((rows / scale).round().clamp(-top - 1, top) * scale - rows).square().sum(1, keepdim=True)
        best, error = torch.where(lost < error, scale, best), torch.minimum(lost, error)
    return (rows / best).round().clamp(-top - 1, top), best.half()
