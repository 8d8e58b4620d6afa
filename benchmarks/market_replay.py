"""Market-1501 replayed as a site: what a matcher would have stored, with and without the truth.

Rule: images of one person in one camera and sequence are one tracklet until a gap over 50 frames;
junk (−1) is dropped; boxes of nobody (0000) are tracklets of their own. 25 frames are a second;
the sequences of a camera follow one another, as its recorder cut them. Two tracklets that one
camera has at the same time were seen together. Person numbers make tracklets (in the place of a
tracker) and judge; they are no part of the evidence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.data.readers import Sample
from models.site_evidence import Evidence, seen_together

GAP_FRAMES = 50
FRAMES_PER_S = 25.0
_NAME = re.compile(r"(-?\d+)_c(\d)s(\d)_(\d+)_(\d+)")


def replay(
    samples: Sequence[Sample], vectors: NDArray[np.float32], *, space_id: str
) -> tuple[Evidence, NDArray[np.int64]]:
    """The evidence of images and their vectors, and the person of each tracklet, for judging."""
    facts = np.array([_facts(sample.name) for sample in samples], np.int64)  # person cam seq frame
    kept = facts[:, 0] >= 0
    facts, vectors = facts[kept], vectors[kept]
    person, camera, sequence, frame = facts.T
    order = np.lexsort((frame, sequence, camera, person))
    of_row = facts[order]
    new = np.ones(len(order), np.bool_)
    same = (of_row[1:, :3] == of_row[:-1, :3]).all(axis=1)
    new[1:] = ~same | (np.diff(of_row[:, 3]) > GAP_FRAMES) | (of_row[1:, 0] == 0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    count = int(number.max()) + 1
    seconds = (_sequence_begin(camera, sequence, frame) + frame) / FRAMES_PER_S
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first, number, seconds)
    np.maximum.at(last, number, seconds)
    of_tracklet = np.zeros((count, 2), np.int64)
    of_tracklet[number] = np.stack([person, camera - 1], axis=1)
    cameras = tuple(f"c{one}" for one in range(1, int(camera.max()) + 1))
    evidence = Evidence(
        space_id=space_id,
        site="market",
        cameras=cameras,
        vectors=vectors,
        tracklet=number,
        camera=of_tracklet[:, 1],
        first=first,
        last=last,
        together=seen_together(of_tracklet[:, 1], first, last),
    )
    return evidence, of_tracklet[:, 0]


def camera_names(samples: Sequence[Sample]) -> list[str]:
    """The cameras of images, named as in the evidence."""
    return [f"c{sample.camera}" for sample in samples]


def _facts(name: str) -> tuple[int, ...]:
    match = _NAME.search(name.rsplit("/", 1)[-1])
    if match is None:
        raise ValueError(f"{name}: not named as Market-1501 names its images")
    return tuple(int(part) for part in match.groups()[:4])


def _sequence_begin(
    camera: NDArray[np.int64], sequence: NDArray[np.int64], frame: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n,) frames before each image's sequence: the last frames of the earlier ones, added up."""
    begin = np.zeros(len(frame), np.int64)
    for one in np.unique(camera):
        past = 0
        for part in np.unique(sequence[camera == one]):
            rows = (camera == one) & (sequence == part)
            begin[rows] = past
            past += int(frame[rows].max())
    return begin
