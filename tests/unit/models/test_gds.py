"""The distribution losses against float64 readings of their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.gds import (
    FStatisticLoss,
    GlobalDistanceSeparation,
    GlobalLoss,
    HistogramLoss,
    pair_distances,
)

LOSSES: list[nn.Module] = [
    GlobalDistanceSeparation(hard_weight=0.0),
    GlobalDistanceSeparation(),
    HistogramLoss(),
    FStatisticLoss(),
    GlobalLoss(),
]


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def distances(mean: float, deviation: float, count: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(mean, deviation, count).clip(0.01, 1.99), dtype=torch.float64)


def test_the_loss_is_the_formula_read_in_float64_over_three_batches() -> None:
    loss = GlobalDistanceSeparation(beta=0.8, sharpness=0.7, kappa=2.5, hard_weight=0.3)
    running: np.ndarray | None = None

    for seed in range(3):
        positive, negative = distances(0.8, 0.2, 50, seed), distances(1.2, 0.1, 400, 10 + seed)
        batch = np.array(
            [f(x.numpy()) for x in (positive, negative) for f in (np.mean, np.var)], np.float64
        )
        running = batch if running is None else 0.8 * running + 0.2 * batch
        mp, vp, mn, vn = running
        expected = softplus(mp - mn) + 0.7 * (vp + vn)
        expected += 0.3 * softplus((mp + 2.5 * vp**0.5) - (mn - 2.5 * vn**0.5))

        assert float(loss(positive, negative)) == pytest.approx(expected, abs=1e-12)


def test_the_histogram_loss_is_its_formula_read_in_float64() -> None:
    positive, negative = distances(0.8, 0.2, 40, 1).numpy(), distances(1.1, 0.2, 90, 2).numpy()
    nodes = np.linspace(0.0, 2.0, 11)
    step = 0.2

    def histogram(values: np.ndarray) -> list[float]:
        return [
            sum(max(0.0, 1.0 - abs(value - node) / step) for value in values) / len(values)
            for node in nodes
        ]

    of_positive, of_negative = histogram(positive), histogram(negative)
    expected = sum(of_positive[r] * of_negative[q] for r in range(len(nodes)) for q in range(r + 1))

    loss = HistogramLoss(bins=11).double()

    assert sum(of_positive) == pytest.approx(1.0)
    assert float(loss(torch.tensor(positive), torch.tensor(negative))) == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize(("positive_mean", "negative_mean"), [(0.8, 1.1), (1.1, 0.8)])
def test_the_f_statistic_and_the_global_loss_are_their_formulas_read_in_float64(
    positive_mean: float, negative_mean: float
) -> None:
    positive, negative = distances(positive_mean, 0.2, 40, 1), distances(negative_mean, 0.1, 90, 2)
    mp, mn = float(np.mean(positive.numpy())), float(np.mean(negative.numpy()))
    spread = float(np.var(positive.numpy())) + float(np.var(negative.numpy()))
    ratio = math.copysign((mn - mp) ** 2, mn - mp) / spread

    f_statistic = float(FStatisticLoss()(positive, negative))
    of_global = float(GlobalLoss(margin=0.5, weight=0.7)(positive, negative))

    assert f_statistic == pytest.approx(softplus(-ratio), abs=1e-12)
    assert of_global == pytest.approx(spread + 0.7 * max(0.0, mp - mn + 0.5), abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_agree_with_finite_differences(loss: nn.Module) -> None:
    loss.eval()  # no change of state between the evaluations
    # Histogram nodes are kinks; these values keep clear of them.
    positive = (distances(0.8, 0.2, 6, 1) * 50).floor().add(0.37).div(50).requires_grad_()
    negative = (distances(1.1, 0.2, 8, 2) * 50).floor().add(0.61).div(50).requires_grad_()

    assert torch.autograd.gradcheck(lambda p, n: loss.double()(p, n), (positive, negative))


@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
def test_gradients_agree_with_finite_differences_after_earlier_batches(hard_weight: float) -> None:
    loss = GlobalDistanceSeparation(beta=0.7, hard_weight=hard_weight)
    for seed in range(3):
        loss(distances(0.9, 0.2, 20, seed), distances(1.2, 0.1, 40, 10 + seed))
    loss.eval()
    positive = distances(0.7, 0.3, 6, 1).requires_grad_()
    negative = distances(1.1, 0.2, 8, 2).requires_grad_()

    assert torch.autograd.gradcheck(lambda p, n: loss(p, n), (positive, negative))


def test_the_gradient_flows_through_the_batch_only_by_its_share() -> None:
    positive = distances(0.8, 0.2, 20, 1)
    gradients = []
    for earlier in (0, 1):
        loss = GlobalDistanceSeparation(beta=0.9, sharpness=0.0, hard_weight=0.0)
        for _ in range(earlier):
            loss(positive, distances(1.2, 0.1, 20, 2))
        leaf = positive.clone().requires_grad_()
        loss(leaf, distances(1.2, 0.1, 20, 2)).backward()
        assert leaf.grad is not None
        gradients.append(float(leaf.grad.sum()))

    assert gradients[1] == pytest.approx(0.1 * gradients[0], rel=1e-9)


def test_the_running_estimate_converges_to_the_moments_of_a_known_mixture() -> None:
    loss = GlobalDistanceSeparation(beta=0.99)
    for seed in range(600):
        positive = torch.cat([distances(0.6, 0.1, 30, seed), distances(0.9, 0.1, 30, 7000 + seed)])
        loss(positive, distances(1.2, 0.15, 200, 9000 + seed))

    mean_p, dev_p, mean_n, dev_n = loss.moments

    assert mean_p == pytest.approx(0.75, abs=0.01)
    assert dev_p == pytest.approx(math.sqrt(0.1**2 + 0.15**2), abs=0.01)
    assert (mean_n, dev_n) == pytest.approx((1.2, 0.15), abs=0.01)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("which", ["positives", "negatives"])
def test_a_batch_without_one_kind_of_pair_changes_nothing(loss: nn.Module, which: str) -> None:
    some = distances(1.0, 0.2, 5, 3).requires_grad_()
    none = torch.zeros(0, dtype=torch.float64)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.train()

    value = loss(none, some) if which == "positives" else loss(some, none)
    value.backward()

    assert float(value.detach()) == 0.0
    assert some.grad is not None
    assert float(some.grad.abs().sum()) == 0.0
    assert all(torch.equal(before[name], now) for name, now in loss.state_dict().items())


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_distributions_farther_apart_cost_less(loss: nn.Module) -> None:
    loss.eval()

    near = loss(distances(0.9, 0.1, 200, 1), distances(1.0, 0.1, 200, 2))
    far = loss(distances(0.5, 0.1, 200, 1), distances(1.4, 0.1, 200, 2))

    assert float(far) < float(near)


def test_state_survives_a_checkpoint() -> None:
    loss = GlobalDistanceSeparation()
    loss(distances(0.8, 0.2, 20, 1), distances(1.2, 0.1, 20, 2))
    twin = GlobalDistanceSeparation()

    twin.load_state_dict(loss.state_dict())

    assert twin.moments == loss.moments
    assert int(twin.batches) == 1


def test_pairs_are_counted_once_and_unlabelled_rows_make_none() -> None:
    rows = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.manual_seed(0)), dim=1)
    labels = torch.tensor([0, 0, 0, 1, 1, -1])

    positive, negative = pair_distances(rows, labels)

    assert (len(positive), len(negative)) == (3 + 1, 6)
    assert float(positive[0]) == pytest.approx(float((rows[0] - rows[1]).norm()), abs=1e-5)


@pytest.mark.parametrize("bad", [{"beta": 1.0}, {"beta": -0.1}, {"kappa": -1.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0"):
        GlobalDistanceSeparation(**bad)
