"""How long people take from one camera of a site to another, learned from the site itself.

Promise: a `Transit` says for each pair of cameras and each delay how much likelier that delay is
between two tracklets of one person than between any two (the logarithm of the ratio). It is learned
from pairs that look alike, wrong ones among them: a share of the ratio stays flat, so a delay never
seen lowers a pair's standing a little and never forbids it. Clocks that differ by a constant are
learned with the delays. Cameras without enough pairs say nothing (0).
Source: after Lv, Chen, Li, Yang, CVPR 2018, arXiv:1803.07293 (TFusion), with a smoothed histogram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Times = NDArray[np.float64]
BANDWIDTH_S = 30.0  # people's ways between two cameras differ by about so much
FLAT_SHARE = 0.5  # of the ratio: learned pairs are wrong at times, and people turn round
_BINS_PER_BANDWIDTH = 2
LONGEST_S = 2 * 3600.0  # longer delays are one bin: memory is cameras² times some thousand numbers
_LEAST_PAIRS = 20  # also how many pairs' worth of prior stands against the histogram
_FORBIDDEN = -4.0  # lower than any cosine with any bonus


@dataclass(frozen=True)
class Transit:
    """Log ratios by ordered pair of cameras and bin of delay.

    Attributes:
        ratio: (c, c, b) float32; [i, j, k] for a tracklet of camera j that begins k bins after
            `lowest_s` counted from the beginning of one of camera i.
        lowest_s, bin_s: the first bin's lower edge, and the width of all.
    """

    ratio: Floats
    lowest_s: float
    bin_s: float

    def of(self, camera: int, first: float, cameras: Ints, firsts: Times) -> Floats:
        """(n,) log ratios between one tracklet and n others; 0 where a time is not known."""
        delay = firsts - first
        known = np.isfinite(delay)
        bins = np.zeros(len(delay), np.int64)
        bins[known] = (delay[known] - self.lowest_s) // self.bin_s
        bins = bins.clip(0, self.ratio.shape[2] - 1)
        found: Floats = np.where(known, self.ratio[camera, cameras, bins], 0.0).astype(np.float32)
        return found


def learn_transit(
    pairs: Ints, camera: Ints, first: Times, *, cameras: int, bandwidth_s: float = BANDWIDTH_S
) -> Transit | None:
    """The transit times of a site; None where times are missing or no two cameras have enough.

    Args:
        pairs: (m, 2) tracklets that are taken for one person, of different cameras.
        camera, first: (t,) camera and beginning in seconds of each tracklet.
        cameras: how many there are.
        bandwidth_s: deviation of the smoothing.
    """
    known: NDArray[np.bool_] = np.isfinite(first)
    pairs = pairs[known[pairs].all(axis=1)]
    if len(pairs) < _LEAST_PAIRS:
        return None
    span = min(float(first[known].max() - first[known].min()), LONGEST_S)
    bin_s = bandwidth_s / _BINS_PER_BANDWIDTH
    half = int(span / bin_s) + 2
    edges: Times = np.arange(-half, half + 1).astype(np.float64) * bin_s
    ratio = np.zeros((cameras, cameras, 2 * half), np.float32)
    learned = False
    for i in range(cameras):
        for j in range(i + 1, cameras):
            delay = _delays(pairs, camera, first, i, j)
            if len(delay) < _LEAST_PAIRS:
                continue
            learned = True
            seen = _smooth(_counts(delay, edges), bandwidth_s / bin_s)
            any_two = _smooth(
                _all_delays(first[known & (camera == i)], first[known & (camera == j)], edges),
                4 * bandwidth_s / bin_s,
            )
            any_two = any_two / max(any_two.sum(), 1e-12)
            likelier = (seen + _LEAST_PAIRS * any_two) / (
                (seen.sum() + _LEAST_PAIRS) * np.maximum(any_two, 1e-9)
            )
            value = np.log((1 - FLAT_SHARE) * likelier + FLAT_SHARE).astype(np.float32)
            ratio[i, j] = value
            ratio[j, i] = value[::-1]
    return Transit(ratio, float(edges[0]), bin_s) if learned else None


def adjustment(
    transit: Transit | None, camera: Ints, first: Times, together: Ints, *, weight: float
) -> Callable[[Ints, Floats], None]:
    """What changes blocks of similarities by what is known besides the vectors.

    Args:
        camera, first: as in `learn_transit`.
        together: (m, 2) tracklets of different people for certain; they become no neighbours.
        weight: what one unit of log ratio adds to a cosine; 0 ignores the times.
    """
    total = len(camera)
    both = np.concatenate([together, together[:, ::-1]]) if len(together) else together
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(total + 1))

    def adjust(rows: Ints, block: Floats) -> None:
        for slot, row in enumerate(rows.tolist()):
            if transit is not None and weight > 0:
                block[slot] += weight * transit.of(int(camera[row]), first[row], camera, first)
            block[slot, both[starts[row] : starts[row + 1], 1]] = _FORBIDDEN

    return adjust


def _delays(pairs: Ints, camera: Ints, first: Times, i: int, j: int) -> Times:
    left, right = pairs.T
    forward = (camera[left] == i) & (camera[right] == j)
    backward = (camera[left] == j) & (camera[right] == i)
    delay = first[right] - first[left]
    return np.concatenate([delay[forward], -delay[backward]])


def _all_delays(of_i: Times, of_j: Times, edges: Times) -> Times:
    total = np.zeros(len(edges) - 1)
    for one in of_i:
        total += _counts(of_j - one, edges)
    return total


def _counts(delays: Times, edges: Times) -> Times:
    """(b,) how many delays lie in each bin; what lies beyond counts for the outermost."""
    last = len(edges) - 2
    bins = ((delays - edges[0]) // (edges[1] - edges[0])).astype(np.int64).clip(0, last)
    return np.bincount(bins, minlength=last + 1).astype(np.float64)


def _smooth(counts: Times, deviation: float) -> Times:
    smoothed: Times = gaussian_filter1d(counts, deviation, mode="constant")
    return smoothed
