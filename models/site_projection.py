"""The trained part of a site's map: a projection of standardised vectors, begun by whitening.

Promise: the same vectors, labels, start and seed give the same projection on one thread. Positives
are pairs of one label from *different* cameras only: those of one camera are near already, and a
projection trained on them forgets what differs between cameras. Batches without such a pair change
nothing.
Sources: supervised contrastive loss, Khosla et al., NeurIPS 2020, arXiv:2004.11362, equation 2 (its
positives inside the logarithm one at a time); GDS-H, arXiv:2006.00752 (models.gds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.gds import GlobalDistanceSeparation

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_NONE = -1e9  # the logarithm of no weight


@dataclass(frozen=True)
class ProjectionRecipe:
    """How a projection is trained.

    Attributes:
        steps: of the optimiser.
        people, images: labels of a batch, and vectors of each.
        learning_rate: of AdamW, constant.
        temperature: of the contrastive loss; lower looks at harder negatives.
        contrastive, gds: weights of the two losses; 0 leaves one out.
        hidden: width of the correction beside the projection; 0 for none.
        across: positives of different cameras only. False shows the trap (docs/adaptation.md).
    """

    steps: int = 800
    people: int = 48
    images: int = 6
    learning_rate: float = 3e-4
    temperature: float = 0.07
    contrastive: float = 1.0
    gds: float = 0.5
    hidden: int = 0
    across: bool = True


@dataclass(frozen=True)
class Projection:
    """weight (d, k), and where there is a correction hidden (d, h), bias (h,), out (h, k)."""

    weight: Floats
    hidden: Floats | None = None
    bias: Floats | None = None
    out: Floats | None = None

    def __call__(self, standard: Floats) -> Floats:
        """(n, d) standardised vectors → (n, k), rows of unit length."""
        mapped = standard @ self.weight
        if self.hidden is not None and self.bias is not None and self.out is not None:
            mapped = mapped + np.maximum(standard @ self.hidden + self.bias, 0.0) @ self.out
        return unit(mapped)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def means(vectors: Floats, groups: Ints, count: int) -> Floats:
    """(count, d) mean of each group's rows; every group has one."""
    sums = np.zeros((count, vectors.shape[1]), np.float64)
    np.add.at(sums, groups, vectors)
    found: Floats = (sums / np.bincount(groups, minlength=count)[:, None]).astype(np.float32)
    return found


def whitening(vectors: Floats, groups: Ints, *, shrinkage: float = 1.0) -> Floats:
    """(d, d) matrix after which the scatter within groups is round.

    Args:
        vectors: (n, d); groups: (n,) from 0, each with a row.
        shrinkage: what is added to every eigenvalue, in units of their mean: the noise of an
            estimate from few rows is not amplified, and the map stays near the identity.
    """
    centred = vectors - means(vectors, groups, int(groups.max()) + 1)[groups]
    scatter = centred.T.astype(np.float64) @ centred / len(centred)
    values, axes = np.linalg.eigh(scatter)
    values = np.maximum(values, 0.0)
    scaled: Floats = (axes / np.sqrt(values + shrinkage * max(values.mean(), 1e-12))).astype(
        np.float32
    )
    return scaled


def train_projection(
    standard: Floats,
    labels: Ints,
    cameras: Ints,
    start: Floats,
    recipe: ProjectionRecipe,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Projection:
    """A projection trained from `start`.

    Args:
        standard: (n, d); labels: (n,), -1 for rows without one; cameras: (n,).
        start: (d, k).
    Returns:
        The projection; `start` itself where fewer than two labels can be trained on.
    """
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
    usable = [
        rows
        for rows in members
        if len(rows) > 1 and (not recipe.across or len(np.unique(cameras[rows])) > 1)
    ]
    if len(usable) < 2:
        return Projection(start)
    random = np.random.default_rng(seed)
    net = _Net(start, recipe.hidden, seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    gds = GlobalDistanceSeparation()
    people = min(recipe.people, len(usable))
    for step in range(recipe.steps):
        chosen = random.choice(len(usable), people, replace=False)
        rows = np.concatenate(
            [
                random.choice(usable[one], recipe.images, replace=len(usable[one]) < recipe.images)
                for one in chosen
            ]
        )
        vectors = net(torch.from_numpy(standard[rows]))
        loss = batch_loss(
            vectors, torch.from_numpy(labels[rows]), torch.from_numpy(cameras[rows]), recipe, gds
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if progress is not None:
            progress(step + 1, recipe.steps)
    return net.finished()


def batch_loss(
    vectors: Tensor,
    labels: Tensor,
    cameras: Tensor,
    recipe: ProjectionRecipe,
    gds: GlobalDistanceSeparation,
) -> Tensor:
    """The weighted losses of one batch: (n, k) unit vectors, (n,) labels and cameras."""
    similarity = vectors @ vectors.T
    own = torch.eye(len(labels), dtype=torch.bool)
    same = labels[:, None] == labels[None, :]
    positive = same & ~own
    if recipe.across:
        positive = positive & (cameras[:, None] != cameras[None, :])
    loss = similarity.sum() * 0.0
    if recipe.contrastive:
        logits = similarity / recipe.temperature
        others = torch.logsumexp(logits.masked_fill(same, _NONE), 1, keepdim=True)
        likelihood = logits - torch.logaddexp(logits, others)
        counts = positive.sum(1)
        has = counts > 0
        if bool(has.any()):
            per_row = -(likelihood * positive).sum(1)[has] / counts[has]
            loss = loss + recipe.contrastive * per_row.mean()
    if recipe.gds:
        distance = (2.0 - 2.0 * similarity).clamp_min(1e-6).sqrt()
        once = torch.ones_like(own).triu(1)
        loss = loss + recipe.gds * gds(distance[positive & once], distance[~same & once])
    return loss


class _Net(nn.Module):
    def __init__(self, start: Floats, hidden: int, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(start.copy()))
        self.inner: nn.Linear | None = None
        self.outer: nn.Linear | None = None
        if hidden:
            torch.manual_seed(seed)
            self.inner = nn.Linear(start.shape[0], hidden)
            self.outer = nn.Linear(hidden, start.shape[1], bias=False)
            nn.init.zeros_(self.outer.weight)  # begins as the projection alone

    def forward(self, standard: Tensor) -> Tensor:
        mapped = standard @ self.weight
        if self.inner is not None and self.outer is not None:
            mapped = mapped + self.outer(F.relu(self.inner(standard)))
        return F.normalize(mapped, dim=1)

    def finished(self) -> Projection:
        def plain(value: Tensor) -> Floats:
            return np.array(value.detach().numpy(), np.float32)

        weight = plain(self.weight)
        if self.inner is None or self.outer is None:
            return Projection(weight)
        return Projection(
            weight, plain(self.inner.weight.T), plain(self.inner.bias), plain(self.outer.weight.T)
        )
