"""Muon: momentum whose step is made orthogonal, for the matrices of a network.

Promise: a step moves every direction of a weight matrix by the same amount, whatever the size of
its gradient, so that a short run learns what the gradient's weak directions say, too. A 1x1
convolution of OSNet is such a matrix. Matrices of one shape are worked on together.
Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the scale
that makes AdamW's learning rates fit: Liu et al., arXiv 2502.16982, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, steepest near zero
ITERATIONS = 5
MATCHED_RMS = 0.2  # of AdamW's steps


class Muon(torch.optim.Optimizer):
    """Args:
    parameters: tensors of two or more dimensions; the first is the rows.
    lr: learning rate, on AdamW's scale.
    momentum: decay of the averaged gradient; Nesterov's form.
    weight_decay: decoupled, times lr.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights; parameters without a gradient stay."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            self._step_group(group)

    def _step_group(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            average = cast(Tensor, state["momentum"])
            average.lerp_(parameter.grad, 1 - group["momentum"])
            step = parameter.grad.lerp(average, group["momentum"]).flatten(1)
            by_shape.setdefault(step.shape, []).append((parameter, step))
        for shape, members in by_shape.items():
            directions = orthogonal(torch.stack([step for _, step in members]))
            scale = MATCHED_RMS * math.sqrt(max(shape))
            for (parameter, _), direction in zip(members, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.reshape(parameter.shape), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) → each with singular values near 1 and the same singular vectors."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-9)
    a, b, c = POLYNOMIAL
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result
