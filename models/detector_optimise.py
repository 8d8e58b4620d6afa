"""How the detector's weights move, and the average of them that is kept.

Promise: every parameter belongs to exactly one optimiser; vectors do not decay. The average follows
running statistics too, so it infers as it stands. One thread.
Sources: AdamW: arXiv:1711.05101; Muon: muon.py; averaged weights: Polyak & Juditsky 1992.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from models.detector import Detector
from models.detector_recipe import Recipe
from models.muon import Muon


def optimisers(detector: Detector, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Of all parameters, by the recipe.

    Returns:
        AdamW; or, with "muon", Muon for the convolutions between the first and the answers, whose
        weights are matrices of (outputs, inputs · 9), and AdamW for what is left.
    """
    found: list[torch.optim.Optimizer] = []
    rest = list(detector.named_parameters())
    if recipe.optimiser == "muon":
        hidden = {
            name: p
            for name, p in rest
            if p.ndim > 1 and p.shape[1] > 3 and ".answer." not in name and ".imitate." not in name
        }
        found.append(Muon(hidden.values(), recipe.learning_rate, weight_decay=recipe.weight_decay))
        rest = [(name, p) for name, p in rest if name not in hidden]
    groups = [
        {"params": [p for _, p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for _, p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    found.append(torch.optim.AdamW(groups, lr=recipe.learning_rate, foreach=True))
    return found


class Average:
    """Exponential moving average of the weights; the first steps are forgotten sooner."""

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.steps = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, detector: Detector) -> None:
        self.steps += 1
        keep = min(self._decay, (1.0 + self.steps) / (10.0 + self.steps))
        torch._foreach_lerp_(_floats(self.detector), _floats(detector), 1.0 - keep)


def _floats(detector: Detector) -> list[Tensor]:
    """Weights and running statistics."""
    found = [*detector.parameters(), *detector.buffers()]
    return [t.detach() for t in found if t.is_floating_point()]
