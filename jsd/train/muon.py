"""Muon for the matrices within a network, AdamW for all its other parameters, in one optimizer.

Muon makes the momentum of a weight matrix orthogonal before the step, so that a step changes all directions alike (Liu
et al. 2025, arXiv 2502.16982, sec. 2). `torch.optim.Muon` does it for matrices. Here a convolution's filters are a
matrix too, of outputs x (inputs * height * width). Matrices of one shape are computed together, because on a GPU a
small product costs no more than its launch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, as in torch.optim.Muon
ITERATIONS = 5
TINY = 1e-7
EDGES = ("conv_in", "conv_out", "quant_conv", "post_quant_conv", "patch_embedding")  # first and last layers


def split(module: torch.nn.Module) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Return the parameters of `module` that are not frozen, in two lists: the matrices and filters within the network,
    for Muon; and all others (tables, first and last layers, biases, norms), for AdamW (sec. 2.2 of the paper).
    """
    tables = {id(p) for m in module.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    hidden, others = [], []
    for name, layer in module.named_modules():
        edge = name.rpartition(".")[2] in EDGES
        for parameter in layer.parameters(recurse=False):
            if parameter.requires_grad:
                is_matrix = isinstance(layer, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d))
                inner = is_matrix and parameter.ndim > 1 and not edge and id(parameter) not in tables
                (hidden if inner else others).append(parameter)
    return hidden, others


class MuonWithAdamW(torch.optim.AdamW):
    """AdamW, but the parameters of groups with `muon=True` are stepped by Muon, with the size of AdamW's steps."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, **settings: Any):
        super().__init__([{"muon": False, **group} for group in groups], lr, foreach=True, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """Make a step, as `torch.optim.Optimizer.step` does. Parameters without a gradient stay."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["muon"]]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        shapes: dict[torch.Size, list[torch.Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                shapes.setdefault(parameter.shape, []).append(parameter)
        for shape, parameters in shapes.items():
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:  # AdamW, which loads the states, expects a "step" in each
                    self.state[parameter].update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
            momenta = [self.state[parameter]["momentum"] for parameter in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            matrices = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).flatten(2)
            scale = 0.2 * math.sqrt(max(matrices.shape[1:]))  # sec. 2.2: the mean square of AdamW's updates
            updates = orthogonal(matrices).mul_(scale).unflatten(2, shape[1:]).to(parameters[0].dtype)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, list(updates.unbind()), alpha=-group["lr"])


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the matrices (n, rows, columns) with their singular values near 1, by Newton-Schulz iterations.

    On a GPU it is computed in bf16, as in torch.optim.Muon, elsewhere in float32.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=TINY)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
