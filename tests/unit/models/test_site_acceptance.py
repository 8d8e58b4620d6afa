"""When a site's map is taken into use: what chance explains is not, what is worse is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models import site_adapt
from models.adapt_embeddings import AdaptRecipe, Fitted, camera_statistics, fit
from models.neighbours import Clustering
from models.site_acceptance import (
    Against,
    InForce,
    Refused,
    Verdict,
    accept,
    hold_back,
    judge,
)
from models.site_adapt import adapt_site, maps_of, newest
from models.site_evidence import Evidence
from models.site_gain import Pairs, blocks_of, error_gain, share_gain
from models.site_measures import usual_times
from models.site_projection import ProjectionRecipe
from models.site_transit import learn_transit
from reid.site_map import Gain, Separation, SiteMap, Spread
from tests.unit.models.drawn_site import CAMERAS, SIZE, drawn_site

QUICK = AdaptRecipe(
    clustering=Clustering(eps=0.45, k1=6, k2=2, least=2, fewest=16),
    projection=ProjectionRecipe(steps=40, people=16, images=4),
    early_steps=20,
)
NOWHERE = Gain(value=0.0, low=-0.01, high=0.01)
SURE = Gain(value=0.05, low=0.02, high=0.08)
LIKELY = Gain(value=0.05, low=-0.01, high=0.11)
BARELY_WORSE = Gain(value=-0.01, low=-0.04, high=0.02)
SURELY_WORSE = Gain(value=-0.05, low=-0.08, high=-0.02)


def against(pairs: Gain, times: Gain | None) -> Against:
    before, after = (
        Separation(
            positive_mean=0.5, positive_std=0.1, negative_mean=1.0, negative_std=0.1,
            overlap=0.1, error=error,
        )
        for error in (0.2, 0.2 - pairs.value)
    )  # fmt: skip
    at = float("nan") if times is None else 0.5
    return Against(before, after, at, at if times is None else at + times.value, pairs, times)


def matrix_map(weight: NDArray[np.float32]) -> SiteMap:
    """A map that is one matrix, the same for every camera."""
    rows = len(CAMERAS) + 1
    return SiteMap(
        CAMERAS, np.zeros((rows, SIZE), np.float32), np.ones((rows, SIZE), np.float32), weight
    )


@pytest.mark.parametrize(
    ("pairs", "times", "better"),
    [
        (SURE, SURE, True),
        (NOWHERE, SURE, True),
        (LIKELY, SURE, True),
        (SURE, LIKELY, False),  # better across cameras perhaps by chance
        (SURE, NOWHERE, False),
        (SURE, BARELY_WORSE, False),  # the trap: better in one camera, worse across
        (BARELY_WORSE, SURE, True),
        (SURELY_WORSE, SURE, False),
        (SURE, None, True),
        (LIKELY, None, False),
    ],
)
def test_a_map_is_taken_only_if_it_is_surely_better_and_nowhere_worse(
    pairs: Gain, times: Gain | None, better: bool
) -> None:
    spread = Spread(mean=0.5, std=0.1)
    verdict = Verdict(against(pairs, times), spread, spread)

    assert verdict.helps is better
    if better:
        accept(verdict)
    else:
        with pytest.raises(Refused, match="does not help beyond chance"):
            accept(verdict)


@pytest.mark.parametrize(
    ("pairs", "times", "taken"),
    [
        (NOWHERE, NOWHERE, True),
        (BARELY_WORSE, SURE, True),
        (SURE, BARELY_WORSE, False),
        (SURELY_WORSE, SURE, False),
        (NOWHERE, None, True),
        (BARELY_WORSE, None, False),
    ],
)
def test_a_map_is_taken_only_if_it_is_not_worse_than_the_one_in_force(
    pairs: Gain, times: Gain | None, taken: bool
) -> None:
    spread = Spread(mean=0.5, std=0.1)
    verdict = Verdict(against(SURE, SURE), spread, spread, against(pairs, times), "parent/site/3")

    assert verdict.helps is taken
    if taken:
        accept(verdict)
    else:
        with pytest.raises(Refused, match="worse than parent/site/3, which stays in force"):
            accept(verdict)


def test_changes_that_are_noise_are_refused_but_by_the_chance_that_is_stated() -> None:
    """Shots moved at random: the other space is the same one with as much noise of its own."""
    random = np.random.default_rng(5)
    blocks = blocks_of(np.arange(600.0))
    right = random.random((400, 600)) < 0.6
    one, other = right[:200].astype(np.float64), right[200:].astype(np.float64)

    gains = [share_gain(was, now, blocks) for was, now in zip(one, other, strict=True)]

    # comparing the figures alone would take half of them
    assert 80 <= sum(gain.value > 0 for gain in gains) <= 120
    assert sum(gain.low > 0 for gain in gains) <= 18  # 5 % of 200, and 2.5 deviations


def test_a_map_that_is_noise_is_refused() -> None:
    evidence, person = drawn_site(people=60, visits=5, shift=0.0)
    held = hold_back(evidence, seed=1)
    pairs = np.array([(row, row + 1) for row in range(0, len(person), 3)])
    transit = learn_transit(pairs, evidence.camera, evidence.first, cameras=3)
    random = np.random.default_rng(5)

    found = [
        judge(
            matrix_map((np.eye(SIZE) + 0.03 * random.normal(size=(SIZE, SIZE))).astype(np.float32)),
            evidence, held, transit,
        )
        for _ in range(4)
    ]  # fmt: skip

    assert not any(verdict.helps for verdict in found)
    assert all(verdict.plain.times is not None for verdict in found)


def test_a_map_fitted_on_a_real_site_is_accepted_and_the_one_after_is_compared_with_it(
    tmp_path: Path,
) -> None:
    evidence, _ = drawn_site(people=100, visits=4)

    first = adapt_site(evidence, tmp_path, recipe=QUICK, seed=1)
    second = adapt_site(evidence, tmp_path, recipe=QUICK, seed=1)

    times = first.verdict.plain.times
    assert times is not None and times.low > 0
    assert first.problem == "" and first.verdict.in_force is None
    assert first.card.transit_gain == times and first.card.helps
    of_second = second.verdict
    assert of_second.in_force is not None and of_second.in_force_id == first.card.space_id
    assert not of_second.fair  # nothing is newer than what the first learned from


def test_a_map_that_helps_but_less_than_the_one_in_force_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, _ = drawn_site(people=100, visits=4)
    adapt_site(evidence, tmp_path, recipe=QUICK, seed=1)

    def poor(learned_from: Evidence, *given: object, **options: object) -> Fitted:
        """Cameras' means half removed, with the transit times of the whole."""
        mean = camera_statistics(learned_from, how="mean", damping=1.0)[0] * np.float32(0.5)
        site_map = replace(matrix_map(np.eye(SIZE, dtype=np.float32)), mean=mean)
        return replace(fit(learned_from, QUICK, seed=1), site_map=site_map)

    monkeypatch.setattr(site_adapt, "fit", poor)
    with pytest.raises(Refused, match=r"worse than drawn-space/drawn/1, which stays") as refused:
        adapt_site(evidence, tmp_path, recipe=QUICK, seed=1)

    assert refused.value.verdict is not None and refused.value.verdict.plain.surely_better
    assert maps_of(tmp_path, "drawn").current_number() == 1


def test_a_refit_is_judged_by_what_is_newer_than_the_map_in_force() -> None:
    evidence, _ = drawn_site(people=100, visits=4)
    until = float(np.median(evidence.first))
    held = hold_back(evidence, seed=1, since=until)
    newer = evidence.first > until
    fitted = fit(evidence.part(~held), QUICK, seed=1)
    # Good at what it learned from, useless since: the cameras were moved.
    old = InForce("drawn-space/drawn/1", matrix_map(np.ones((SIZE, 1), np.float32)), until)

    verdict = judge(fitted.site_map, evidence, held, fitted.transit, in_force=old)

    assert 0.05 < held[newer].mean() < 0.2 and 0.05 < held[~newer].mean() < 0.2
    assert verdict.fair and verdict.helps
    assert verdict.in_force is not None and verdict.in_force.before.error > 0.2


def test_a_damaged_map_in_force_is_compared_with_nothing_and_told(tmp_path: Path) -> None:
    evidence, _ = drawn_site(people=100, visits=4)
    first = adapt_site(evidence, tmp_path, recipe=QUICK, seed=1)
    first.path.write_bytes(b"torn")

    second = adapt_site(evidence, tmp_path, recipe=QUICK, seed=1)

    assert "1.npz" in second.problem
    assert maps_of(tmp_path, "drawn").current_number() == 2


def test_a_small_site_holds_back_enough_to_decide_by() -> None:
    evidence, _ = drawn_site(people=90)

    shares = [hold_back(evidence, seed=seed).mean() for seed in range(5)]

    assert np.mean(shares) == pytest.approx(60 / 270, abs=0.03)


def test_of_very_many_tracklets_the_newest_are_used() -> None:
    evidence, _ = drawn_site(people=20)
    some = replace(evidence, first=np.where(np.arange(60) < 5, np.nan, evidence.first))

    kept = newest(some, 40)

    assert kept.tracklets == 40 and len(kept.vectors) == 120
    assert kept.first.min() >= np.sort(evidence.first)[15]
    assert newest(some, 60) is some


def test_blocks_are_of_tracklets_that_follow_each_other() -> None:
    first = np.array([50.0, 10.0, np.nan, 30.0, 20.0, 40.0] * 60)

    blocks = blocks_of(first)

    assert np.bincount(blocks).tolist() == [10] * 36
    assert blocks[first == 10.0].max() <= blocks[first == 20.0].min()
    assert blocks[np.isnan(first)].min() == 30
    assert int(blocks_of(np.arange(90.0)).max()) + 1 == 30
    assert int(blocks_of(np.arange(50_000.0)).max()) + 1 == 200


def test_a_share_gain_is_as_sure_as_its_blocks_are_many() -> None:
    random = np.random.default_rng(2)
    before = (random.random(3000) < 0.5).astype(np.float64)
    after = np.where(random.random(3000) < 0.1, 1.0, before)
    alone, in_tens = np.arange(3000), np.arange(3000) // 10
    together = np.repeat(before[::100], 100), np.repeat(after[::100], 100)

    single = share_gain(before, after, alone)
    tens = share_gain(before, after, in_tens)
    copies = share_gain(*together, np.arange(3000) // 100)

    assert single.value == pytest.approx(0.05, abs=0.01)
    deviation = np.std(after - before) / np.sqrt(3000)
    assert single.value - single.low == pytest.approx(1.645 * deviation, rel=0.15)
    assert tens.low == pytest.approx(single.low, abs=0.003)
    # thirty people seen a hundred times tell as much as thirty
    of_thirty = 1.645 * np.std(together[1] - together[0]) / np.sqrt(30)
    assert copies.value - copies.low == pytest.approx(of_thirty, rel=0.3)


def test_an_error_gain_of_the_same_pairs_is_none_and_of_better_ones_is_sure() -> None:
    random = np.random.default_rng(3)
    blocks = np.arange(4000) % 80

    def pairs(apart: float) -> Pairs:
        random_here = np.random.default_rng(4)
        return Pairs(
            random_here.normal(1.0 - apart, 0.2, 4000).astype(np.float32),
            random_here.normal(1.0 + apart, 0.2, 4000).astype(np.float32),
            blocks,
            random.permutation(blocks),
        )

    same = error_gain(pairs(0.2), pairs(0.2), 0.0)
    better = error_gain(pairs(0.2), pairs(0.3), 0.0919)  # 15.9 % of errors, then 6.7 %

    assert (same.low, same.high) == pytest.approx((0.0, 0.0), abs=0.01)
    assert 0.08 < better.low < 0.0919 < better.high < 0.105


def test_the_three_nearest_in_other_cameras_are_asked_for_usual_delays() -> None:
    evidence, person = drawn_site(people=60, visits=5, noise=0.1, shift=0.0)
    right = np.array([(row, row + 1) for row in range(0, len(person), 3)])
    transit = learn_transit(right, evidence.camera, evidence.first, cameras=3, bandwidth_s=5.0)
    assert transit is not None
    asked = np.arange(0, evidence.tracklets, 7)

    looks = usual_times(evidence.vectors, evidence, asked, transit)
    random = np.random.default_rng(1).normal(size=evidence.vectors.shape).astype(np.float32)
    guessed = usual_times(random, evidence, asked, transit)

    assert set(np.round(looks * 3)) <= {0.0, 1.0, 2.0, 3.0}
    assert looks.mean() > 2 * guessed.mean()


def test_a_site_without_information_changes_nothing(tmp_path: Path) -> None:
    evidence, _ = drawn_site(people=60, visits=5)
    random = np.random.default_rng(8)
    noise = random.normal(size=evidence.vectors.shape)
    blind: Evidence = replace(
        evidence,
        vectors=(noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32),
    )
    recipe = replace(QUICK, rounds=0)  # with clusters it would already find none

    with pytest.raises(Refused, match="beyond chance"):
        adapt_site(blind, tmp_path, recipe=recipe, seed=1)

    assert maps_of(tmp_path, "drawn").current_number() == 0
