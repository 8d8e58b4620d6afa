"""How sure a gain on held-back sightings is: a paired bootstrap over blocks of neighbours in time.

Promise: both spaces are measured on the same sightings, and a resample draws the same blocks for
both. Tracklets that follow each other are drawn together, since they are often of the same people:
drawn one by one they would look like more evidence than they are. Deterministic for a seed.
Source: percentile bootstrap, Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
13; of blocks, Künsch, Annals of Statistics 17, 1989.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.site_map import Gain

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
SURE = 0.95  # one-sided, below and above
RESAMPLES = 1000
_BLOCK_TRACKLETS = 10  # one after the other, as a person's are
_FEWEST_BLOCKS, _MOST_BLOCKS = 30, 200  # fewer tell no spread; more cost time and tell no more
_BINS = 2000  # of distances 0..2


def blocks_of(first: Doubles) -> Ints:
    """(t,) block of each tracklet from 0: those that follow each other; unknown times last."""
    count = len(first)
    size = min(_BLOCK_TRACKLETS, max(count // _FEWEST_BLOCKS, 1))
    size = max(size, -(-count // _MOST_BLOCKS))
    blocks = np.empty(count, np.int64)
    blocks[np.argsort(first, kind="stable")] = np.arange(count) // max(size, 1)
    return blocks


def share_gain(before: Doubles, after: Doubles, blocks: Ints) -> Gain:
    """Gain of a mean over tracklets.

    Args:
        before, after: (t,) 0..1, what each has in either space; blocks: (t,) from 0.
    """
    changed = after - before
    count = int(blocks.max()) + 1
    sums = np.bincount(blocks, changed, minlength=count)
    sizes = np.bincount(blocks, minlength=count).astype(np.float64)
    weights = _weights(count)
    return _gain(float(changed.mean()), (weights @ sums) / np.maximum(weights @ sizes, 1.0))


@dataclass(frozen=True)
class Pairs:
    """Distances 0..2 of certain pairs in one space, and the block of each pair."""

    positive: Floats
    negative: Floats
    positive_block: Ints
    negative_block: Ints


def error_gain(before: Pairs, after: Pairs, value: float) -> Gain:
    """Gain in the equal error rate, of the same pairs in two spaces.

    Args:
        value: the measured one, error before less error after.
    """
    count = 1 + max(
        int(one.max(initial=0)) for one in (before.positive_block, before.negative_block)
    )
    weights = _weights(count)
    was, now = (_errors(pairs, count, weights) for pairs in (before, after))
    return _gain(value, was - now)


def _errors(pairs: Pairs, count: int, weights: Doubles) -> Doubles:
    """(r,) equal error rate of each resample."""
    beyond = 1 - _cumulative(pairs.positive, pairs.positive_block, count, weights)
    within = _cumulative(pairs.negative, pairs.negative_block, count, weights)
    at = np.abs(beyond - within).argmin(axis=1)
    rows = np.arange(len(weights))
    errors: Doubles = (beyond[rows, at] + within[rows, at]) / 2
    return errors


def _cumulative(distances: Floats, blocks: Ints, count: int, weights: Doubles) -> Doubles:
    """(r, bins) share of the distances up to each bin, of each resample."""
    bins = (distances * (_BINS / 2)).astype(np.int64).clip(0, _BINS - 1)
    held = np.bincount(blocks * _BINS + bins, minlength=count * _BINS).reshape(count, _BINS)
    sums: Doubles = np.cumsum(weights @ held, axis=1)
    return sums / np.maximum(sums[:, -1:], 1.0)


def _weights(count: int) -> Doubles:
    """(r, count) how often each resample holds each block; the same for the same count."""
    random = np.random.default_rng(count)
    return random.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def _gain(value: float, resampled: Doubles) -> Gain:
    low, high = np.quantile(resampled, [1 - SURE, SURE])
    return Gain(value=value, low=float(low), high=float(high))
