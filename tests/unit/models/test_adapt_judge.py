"""Whether an adapted model got worse, asked of drawn vectors of held-back crops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.adapt_judge import BY_ITSELF, BY_PARENT, AdaptError, by_clusters, judge
from models.neighbours import Clustering
from models.site_projection import unit

PEOPLE, IMAGES, SIZE = 15, 24, 64
OF_PARENT = np.repeat(np.arange(PEOPLE), IMAGES)


def vectors(noise: float, *, shown: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Fifteen people in 24 crops each; more noise, less clearly."""
    random = np.random.default_rng(7)
    looks = random.normal(size=(PEOPLE, SIZE)) if shown is None else shown
    rows = looks[OF_PARENT] + noise * random.normal(size=(len(OF_PARENT), SIZE))
    return unit(rows.astype(np.float32))


def test_a_model_that_sees_people_more_clearly_is_told_by_both_clusterings() -> None:
    figures = judge(vectors(1.2), vectors(0.9), OF_PARENT, Clustering(), "crops")

    assert list(figures) == [BY_PARENT, BY_ITSELF]
    for values in figures.values():
        assert values["after_error"] < values["before_error"]
        assert values["after_overlap"] < values["before_overlap"]


def test_the_same_model_is_not_worse() -> None:
    figures = judge(vectors(1.2), vectors(1.2), OF_PARENT, Clustering(), "crops")

    assert figures[BY_PARENT]["after_error"] == figures[BY_PARENT]["before_error"]


@pytest.mark.parametrize("noise", [1.3, 1.5])
def test_a_model_that_sees_people_less_clearly_is_refused_with_the_figures(noise: float) -> None:
    with pytest.raises(
        AdaptError, match=r"crops: the adapted .* worse on 360 held-back .* % after"
    ):
        judge(vectors(0.9), vectors(noise), OF_PARENT, Clustering(), "crops")


def test_a_model_that_sees_other_groups_than_people_is_refused() -> None:
    """Clearly, so that by its own clusters it is the better one."""
    clear = np.random.default_rng(3).permutation(vectors(0.5))

    with pytest.raises(AdaptError, match=r"by the parent's \d\.\d and [345]\d\.\d %; no model"):
        judge(vectors(0.9), clear, OF_PARENT, Clustering(), "crops")


def test_a_model_that_sees_no_groups_is_refused() -> None:
    random = np.random.default_rng(2).normal(size=(len(OF_PARENT), SIZE)).astype(np.float32)

    with pytest.raises(AdaptError, match="collapsed, no model was written"):
        judge(vectors(0.9), unit(random), OF_PARENT, Clustering(), "crops")


def test_too_few_pairs_tell_nothing() -> None:
    with pytest.raises(AdaptError, match="1 alike and 0 other pairs among 2 held-back"):
        by_clusters(vectors(0.9)[:2], OF_PARENT[:2], "crops")
