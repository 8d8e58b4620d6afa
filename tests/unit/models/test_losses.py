"""Losses against slow versions written from the papers."""

from __future__ import annotations

import math

import pytest
import torch

from models.losses import (
    batch_hard_triplet,
    distil_classes,
    distil_relations,
    euclidean,
    supervised_contrastive,
)


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_batch_hard_takes_farthest_positive_and_nearest_negative(margin: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(12, 5, generator=generator)
    people = torch.arange(4).repeat_interleave(3)

    loss = batch_hard_triplet(features, people, margin)

    slow = []
    for a in range(12):
        to_a = [math.dist(features[a].tolist(), features[i].tolist()) for i in range(12)]
        positive = max(d for i, d in enumerate(to_a) if people[i] == people[a])
        negative = min(d for i, d in enumerate(to_a) if people[i] != people[a])
        gap = positive - negative
        slow.append(max(gap + margin, 0) if margin else math.log1p(math.exp(gap)))
    assert float(loss) == pytest.approx(sum(slow) / 12, rel=1e-4)


def test_triplet_gradient_is_finite_where_features_coincide() -> None:
    features = torch.ones(4, 3, requires_grad=True)

    batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), 0.3).backward()

    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_distances_are_those_of_torch() -> None:
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))

    found = euclidean(features)

    torch.testing.assert_close(
        found.fill_diagonal_(0), torch.cdist(features, features), atol=1e-3, rtol=1e-3
    )


def test_distillation_is_zero_only_for_equal_outputs() -> None:
    generator = torch.Generator().manual_seed(3)
    one, other = torch.randn(2, 8, 10, generator=generator)

    assert float(distil_classes(one, one, 4.0)) == pytest.approx(0, abs=1e-6)
    assert float(distil_classes(one, other, 4.0)) > 0
    assert float(distil_relations(one, 2 * one)) == pytest.approx(0, abs=1e-6)
    assert float(distil_relations(one, other)) > 0


def test_relations_compare_embeddings_of_different_length() -> None:
    student, teacher = torch.randn(5, 8), torch.randn(5, 32)

    assert torch.isfinite(distil_relations(student, teacher))


def test_a_student_that_follows_the_gradient_comes_to_its_teacher() -> None:
    generator = torch.Generator().manual_seed(4)
    teacher = torch.randn(6, 5, generator=generator)
    student = torch.zeros(6, 5, requires_grad=True)
    optimiser = torch.optim.Adam([student], 0.1)

    first = float(distil_classes(student, teacher, 2.0).detach())
    for _ in range(60):
        optimiser.zero_grad()
        distil_classes(student, teacher, 2.0).backward()
        optimiser.step()

    assert float(distil_classes(student, teacher, 2.0).detach()) < 0.1 * first


def test_contrastive_loss_is_equation_2_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(4)
    embedding = torch.randn(6, 5, generator=generator)
    people = [0, 0, 0, 1, 1, 2]

    loss = supervised_contrastive(embedding, torch.tensor(people), 0.2)

    unit = [row / row.norm() for row in embedding.double()]
    total = 0.0
    for i in range(6):
        others = [a for a in range(6) if a != i]
        below = sum(math.exp(float(unit[i] @ unit[a]) / 0.2) for a in others)
        positives = [p for p in others if people[p] == people[i]]
        for p in positives:
            above = math.exp(float(unit[i] @ unit[p]) / 0.2)
            total -= math.log(above / below) / len(positives)
    assert float(loss) == pytest.approx(total / 6, rel=1e-5)


def test_contrastive_gradient_is_finite_for_a_person_alone() -> None:
    embedding = torch.randn(3, 4, generator=torch.Generator().manual_seed(5)).requires_grad_()

    supervised_contrastive(embedding, torch.tensor([0, 1, 1]), 0.1).backward()

    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()
