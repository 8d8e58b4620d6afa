"""Muon's step against what its definition says."""

from __future__ import annotations

import pytest
import torch

from models.muon import MATCHED_RMS, Muon, orthogonal


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 64)])
def test_directions_keep_singular_vectors_and_lose_singular_values(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))

    directions = orthogonal(matrices)

    for matrix, direction in zip(matrices, directions, strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inside = left.T @ direction @ right.T
        assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-3)
        assert float(inside.diagonal().min()) > 0.5
        assert float(inside.diagonal().max()) < 1.3


def test_the_size_of_a_step_does_not_depend_on_the_size_of_the_gradient() -> None:
    moved = []
    for size in (1e-4, 1e4):
        weight = torch.zeros(16, 32, requires_grad=True)
        weight.grad = size * torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
        Muon([weight], 0.1).step()
        moved.append(weight.detach().clone())

    assert torch.allclose(moved[0], moved[1], atol=1e-4)
    assert 0.5 < float(moved[0].square().mean().sqrt()) / (0.1 * MATCHED_RMS) < 1.5


def test_a_run_goes_on_from_its_saved_state() -> None:
    gradients = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2))
    whole = torch.zeros(8, 8, requires_grad=True)
    optimiser = Muon([whole], 0.1, weight_decay=0.1)
    for gradient in gradients:
        whole.grad = gradient
        optimiser.step()

    parted = torch.zeros(8, 8, requires_grad=True)
    first = Muon([parted], 0.1, weight_decay=0.1)
    for gradient in gradients[:2]:
        parted.grad = gradient
        first.step()
    second = Muon([parted], 0.1, weight_decay=0.1)
    second.load_state_dict(first.state_dict())
    for gradient in gradients[2:]:
        parted.grad = gradient
        second.step()

    assert torch.equal(whole, parted)
