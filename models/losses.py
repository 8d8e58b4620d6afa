"""Losses of the training recipes: on embeddings, on classes, and towards a teacher.

Promise: each is a function of tensors alone, mean over the batch, differentiable, finite for
finite input. Classification itself is `torch.nn.functional.cross_entropy` with label smoothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def euclidean(features: Tensor) -> Tensor:
    """(n, n) distances between the rows of (n, d) features; safe to differentiate at 0."""
    squared = features.square().sum(1)
    distances = squared[:, None] + squared[None, :] - 2 * features @ features.T
    return distances.clamp(min=1e-12).sqrt()


def batch_hard_triplet(features: Tensor, people: Tensor, margin: float) -> Tensor:
    """Triplet loss on the farthest positive and the nearest negative of each anchor.

    Args:
        features: (n, d), not normalised.
        people: (n,) labels; every person needs two images for a positive to be there, and two
            people for a negative.
        margin: distance to keep between them; 0 takes the soft margin log(1 + exp(d+ - d-)).
    Returns:
        Scalar ≥ 0.
    Source: Hermans, Beyer, Leibe, arXiv 1703.07737, equation 5.
    """
    distances = euclidean(features.float())
    same = people[:, None] == people[None, :]
    farthest = distances.masked_fill(~same, 0.0).amax(1)
    nearest = distances.masked_fill(same, float("inf")).amin(1)
    gap = farthest - nearest
    return (F.relu(gap + margin) if margin > 0 else F.softplus(gap)).mean()


def supervised_contrastive(embedding: Tensor, people: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of picking an anchor's own person among all other images of the batch.

    Args:
        embedding: (n, d), compared by cosine.
        people: (n,) labels; every person needs two images.
        temperature: of the similarities; small ones look at the hardest strangers alone.
    Returns:
        Scalar ≥ 0. From random weights it learns where the batch-hard triplet's hardest pairs do
        not, since every pair of the batch takes part.
    Source: Khosla et al., arXiv 2004.11362, equation 2.
    """
    unit = F.normalize(embedding.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    told = F.log_softmax(similarity, 1).masked_fill(itself, 0.0)
    positive = (people[:, None] == people[None, :]) & ~itself
    return -((told * positive).sum(1) / positive.sum(1).clamp(min=1)).mean()


def distil_classes(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of the student's class probabilities from the teacher's.

    Args:
        student, teacher: (n, classes) logits over the same people.
        temperature: softens both; the result is scaled by its square so that gradients keep size.
    Source: Hinton, Vinyals, Dean, arXiv 1503.02531, section 2.
    """
    log_student = F.log_softmax(student.float() / temperature, 1)
    log_teacher = F.log_softmax(teacher.float() / temperature, 1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def distil_relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosine similarities inside the batch.

    Args:
        student, teacher: (n, d) and (n, d'), embeddings of the same images.
    Source: similarity-preserving distillation, Tung and Mori, arXiv 1907.09682, with cosine in
        place of their row normalisation, since cosine is what the embeddings are used with.
    """
    own = F.normalize(student.float(), dim=1)
    other = F.normalize(teacher.float(), dim=1)
    difference = own @ own.T - other @ other.T
    return difference.square().sum() / max(len(own) * (len(own) - 1), 1)
