"""Losses over the distributions of all positive and all negative distances of a data set.

Promise: each loss takes the distances of a batch's positive and negative pairs and pulls the two
distributions apart; one that has nothing to say about a batch (no positives, or no negatives)
returns zero and changes nothing. State is in buffers, so it lies in checkpoints.
Source: Jin, Lan, Zeng, Chen: Global Distance-distributions Separation for Unsupervised Person
Re-identification, ECCV 2020, arXiv:2006.00752, and the losses it compares with. Its abstract was
read, not its body: the formulas stand here in full, without the paper's numbers for them.

    pairs of a batch ──▶ mean, variance ──momentum──▶ running Gaussians N(μ⁺,σ⁺²), N(μ⁻,σ⁻²)
                                                        │
                                         separation, sharpness, hard mining
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Few pairs say little of a variance.
_LEAST_PAIRS = 2
_TINY = 1e-6


def pair_distances(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of all pairs of a batch.

    Args:
        embeddings: (n, d), rows of unit length.
        labels: (n,) integers; equal means the same person, a negative one no pair at all.
    Returns:
        positive (p,) and negative (m,) Euclidean distances in 0..2, each pair once.
    """
    similarity = embeddings @ embeddings.T
    # The gradient of a square root at zero is infinite; equal rows stay just above.
    distance = (2.0 - 2.0 * similarity).clamp_min(_TINY).sqrt()
    rows, columns = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    valid = (labels[rows] >= 0) & (labels[columns] >= 0)
    same = labels[rows] == labels[columns]
    values = distance[rows, columns]
    return values[valid & same], values[valid & ~same]


class GlobalDistanceSeparation(nn.Module):
    """L_GDS, and with hard mining L_GDS + λh·L_H (arXiv:2006.00752).

    Means and variances of positive and negative distances over the whole data set are estimated by
    a momentum update over batches, μ ← βμ + (1 − β)μ_batch and σ² likewise; the gradient flows
    through the batch's part only. L_GDS = softplus(μ⁺ − μ⁻) + λσ(σ⁺² + σ⁻²);
    L_H = softplus((μ⁺ + κσ⁺) − (μ⁻ − κσ⁻)): the far end of the positives against the near end of
    the negatives.

    Args:
        beta: momentum of the running estimate, 0..1. 0.9: about the last ten batches weigh, which
            is short enough to follow a network that is being trained.
        sharpness: λσ. 1.0: a variance of 0.01 (σ = 0.1 of distances in 0..2) weighs as much as a
            shift of the means by 0.02.
        kappa: κ, how many σ from the mean the hard end lies. 3.0: about one pair in a thousand.
        hard_weight: λh; 0 is plain GDS. 0.5: with means 0.4 apart and σ of 0.18 and 0.11, as met in
            adaptation, it pulls the means by 0.3 where L_GDS pulls by 0.4: beside it, not alone.
    """

    running: Tensor
    batches: Tensor

    def __init__(
        self,
        *,
        beta: float = 0.9,
        sharpness: float = 1.0,
        kappa: float = 3.0,
        hard_weight: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"beta {beta}: a momentum is within 0..1, 1 excluded")
        if sharpness < 0 or kappa < 0 or hard_weight < 0:
            raise ValueError(
                f"sharpness {sharpness}, kappa {kappa}, hard_weight {hard_weight}: none below 0"
            )
        self.beta = beta
        self.sharpness = sharpness
        self.kappa = kappa
        self.hard_weight = hard_weight
        # mean and variance of positives, mean and variance of negatives
        self.register_buffer("running", torch.zeros(4, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            positive: (p,) distances of pairs of one person.
            negative: (m,) distances of pairs of different people.
        Returns:
            A scalar; zero, and no change of state, where p or m is below 2.
        """
        if len(positive) < _LEAST_PAIRS or len(negative) < _LEAST_PAIRS:
            return (positive.sum() + negative.sum()) * 0.0
        batch = torch.stack(
            [
                positive.mean(),
                positive.var(correction=0),
                negative.mean(),
                negative.var(correction=0),
            ]
        ).double()
        # The first batch has no past to lean on.
        beta = self.beta if int(self.batches) > 0 else 0.0
        current = beta * self.running.detach() + (1.0 - beta) * batch
        if self.training:
            self.running.copy_(current.detach())
            self.batches += 1
        mean_p, var_p, mean_n, var_n = current.unbind()
        loss = functional.softplus(mean_p - mean_n) + self.sharpness * (var_p + var_n)
        if self.hard_weight > 0:
            hard_p = mean_p + self.kappa * var_p.clamp_min(_TINY).sqrt()
            hard_n = mean_n - self.kappa * var_n.clamp_min(_TINY).sqrt()
            loss = loss + self.hard_weight * functional.softplus(hard_p - hard_n)
        return loss.to(positive.dtype)

    @property
    def moments(self) -> tuple[float, float, float, float]:
        """Running μ⁺, σ⁺, μ⁻, σ⁻."""
        mean_p, var_p, mean_n, var_n = (float(value) for value in self.running)
        return mean_p, max(var_p, 0.0) ** 0.5, mean_n, max(var_n, 0.0) ** 0.5


class HistogramLoss(nn.Module):
    """Probability that a random positive is farther than a random negative, from soft histograms.

    Args:
        bins: nodes over distances 0..2.
    Source: Ustinova and Lempitsky, NeurIPS 2016, arXiv:1611.00822, equations 2 to 5, with
        distances in the place of similarities.
    """

    nodes: Tensor

    def __init__(self, *, bins: int = 101) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"bins {bins}: a histogram needs at least 2")
        self.register_buffer("nodes", torch.linspace(0.0, 2.0, bins))

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """As `GlobalDistanceSeparation.forward`; in 0..1."""
        if len(positive) < 1 or len(negative) < 1:
            return (positive.sum() + negative.sum()) * 0.0
        of_positive = self._histogram(positive)
        below = torch.cumsum(self._histogram(negative), dim=0)
        return (of_positive * below).sum()

    def _histogram(self, distances: Tensor) -> Tensor:
        width = self.nodes[1] - self.nodes[0]
        weight = 1.0 - (distances[:, None] - self.nodes[None, :]).abs() / width
        return weight.clamp_min(0.0).mean(dim=0)


class FStatisticLoss(nn.Module):
    """Within-group against between-group variation of positive and negative distances, of a batch.

    Returns softplus(−r) of Fisher's ratio r = (μ⁻ − μ⁺)² / (σ⁺² + σ⁻²), which has the sign of
    μ⁻ − μ⁺, so that distributions in the wrong order are not rewarded.
    Source: after Ridgeway and Mozer, NeurIPS 2018, arXiv:1802.05312 (F-statistic loss), applied to
        the two distance distributions as arXiv:2006.00752 compares it.
    """

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """As `GlobalDistanceSeparation.forward`."""
        if len(positive) < _LEAST_PAIRS or len(negative) < _LEAST_PAIRS:
            return (positive.sum() + negative.sum()) * 0.0
        gap = negative.mean() - positive.mean()
        spread = positive.var(correction=0) + negative.var(correction=0)
        ratio = gap * gap.abs() / spread.clamp_min(_TINY)
        return functional.softplus(-ratio)


class GlobalLoss(nn.Module):
    """Means apart by a margin and variances small, of a batch alone: no memory, no hard mining.

    L = σ⁺² + σ⁻² + λ·max(0, μ⁺ − μ⁻ + margin).
    Source: Kumar, Carneiro, Reid, CVPR 2016, arXiv:1512.09272, equation 9, on distances.

    Args:
        margin: how far the means are to be apart, in distances 0..2.
        weight: λ.
    """

    def __init__(self, *, margin: float = 0.5, weight: float = 1.0) -> None:
        super().__init__()
        self.margin = margin
        self.weight = weight

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """As `GlobalDistanceSeparation.forward`."""
        if len(positive) < _LEAST_PAIRS or len(negative) < _LEAST_PAIRS:
            return (positive.sum() + negative.sum()) * 0.0
        apart = functional.relu(positive.mean() - negative.mean() + self.margin)
        spread = positive.var(correction=0) + negative.var(correction=0)
        return spread + self.weight * apart
