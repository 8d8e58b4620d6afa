"""A made-up site: people as directions, cameras that shift and stretch them, and times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.site_evidence import Evidence, seen_together

SIZE = 32
CAMERAS = ("box/door", "box/hall", "box/yard")
SPACE = "drawn-space"


def drawn_site(
    *, people: int = 120, seed: int = 1, noise: float = 0.45, shift: float = 0.8, visits: int = 1
) -> tuple[Evidence, NDArray[np.int64]]:
    """Evidence of people who walk from camera to camera, and the person of each tracklet.

    Each is seen once by every camera, 40 s apart, for 5 s, in three shots; a new one comes every
    3 s, so that a camera mostly sees two at once. All come again 1000 s later, `visits` times.
    """
    random = np.random.default_rng(seed)
    looks = random.normal(size=(people, SIZE))
    looks[:, SIZE // 2 :] *= 0.1  # half of the numbers say nothing of the person
    of_camera = shift * random.normal(size=(len(CAMERAS), SIZE))
    person = np.tile(np.repeat(np.arange(people), len(CAMERAS)), visits)
    camera = np.tile(np.arange(len(CAMERAS)), people * visits)
    visit = np.repeat(np.arange(visits), people * len(CAMERAS))
    first = person * 3.0 + camera * 40.0 + visit * 1000.0 + random.normal(size=len(person))
    last = first + 5.0
    tracklet = np.repeat(np.arange(len(person)), 3)
    rows = looks[person[tracklet]] + of_camera[camera[tracklet]]
    rows = rows + noise * random.normal(size=rows.shape)
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    evidence = Evidence(
        space_id=SPACE,
        site="drawn",
        cameras=CAMERAS,
        vectors=vectors,
        tracklet=tracklet,
        camera=camera,
        first=first,
        last=last,
        together=seen_together(camera, first, last),
    )
    return evidence, person


def right_across_cameras(
    vectors: NDArray[np.float32], evidence: Evidence, person: NDArray[np.int64]
) -> float:
    """Share of vectors whose nearest one of another camera is of the same person."""
    camera, people = evidence.camera_of_vector, person[evidence.tracklet]
    similar = vectors @ vectors.T
    similar[camera[:, None] == camera[None, :]] = -np.inf
    return float((people[similar.argmax(axis=1)] == people).mean())


def records(evidence: Evidence) -> list[dict[str, object]]:
    """As `edge-match export` gives them; times from 2026 on."""
    begin = 1_767_225_600
    beside: dict[int, list[str]] = {}
    for one, other in evidence.together.tolist():
        beside.setdefault(one, []).append(f"t/{other:05d}")
    return [
        {
            "site": evidence.site,
            "edge_id": evidence.cameras[evidence.camera[number]].partition("/")[0],
            "camera": evidence.cameras[evidence.camera[number]].partition("/")[2],
            "tracklet_id": f"t/{number:05d}",
            "revision": 2,
            "seen_with": beside.get(number, []),
            "first_seen_unix_nanos": int((begin + evidence.first[number]) * 1e9),
            "last_seen_unix_nanos": int((begin + evidence.last[number]) * 1e9),
            "shots": [
                {
                    "embeddings": [
                        {
                            "space_id": evidence.space_id,
                            "variant_id": "float32",
                            "vector": vector.tolist(),
                        }
                    ]
                }
                for vector in evidence.vectors[evidence.tracklet == number]
            ],
        }
        for number in range(evidence.tracklets)
    ]
