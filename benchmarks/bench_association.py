"""What a site's map does to association: the same sightings with and without it.

    python -m benchmarks.bench_association [--shared DIR] [--model FILE] [--threads N]
                                           [--draws N] [--cache FILE]

Market-1501 replayed as a site (benchmarks.market_replay): a map is fitted on the training part as
`edge-models adapt --embeddings` does it, then tracklets of people of the test part (at most four
shots each, in order of time, with their times and who was seen together) go as sightings through
the matcher's own engine, once as they come and once after the log's entry that takes the map into
force. Compared are pairs of tracklets: which share of those joined is one person (precision), and
which share of one person's is joined (recall). The parent's threshold is given; the derived space's
is what the matcher makes of it by the map's card. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bench_adapt import MODEL, Site, embed
from benchmarks.market_replay import replay
from matcher.associate.engine import Engine
from matcher.associate.prior import PriorAssociator
from matcher.config import AssociationConfig
from matcher.derived import entry_body
from matcher.log import Entry
from matcher.schema import EntryKind
from models.data.readers import open_dataset
from models.site_adapt import Published, adapt_site
from models.site_evidence import Evidence
from reid.codec import encode
from reid.v1.sighting_pb2 import TIME_SOURCE_ARRIVAL, Sighting

ROOT = Path(__file__).resolve().parent.parent
Ints = NDArray[np.int64]
PEOPLE = (30, 100, 300)
THRESHOLDS = (0.76, 0.80)
MOST_SHOTS = 4  # of a sighting; docs/protocol.md
BEGIN_NS = 1_790_000_000_000_000_000
WRITER = "a" * 32
_LIFE_NS = 30 * 86400 * 10**9


def on_a_box(evidence: Evidence) -> Evidence:
    """Cameras named as the matcher names them, EDGE/CAMERA."""
    return replace(evidence, cameras=tuple(f"box/{name}" for name in evidence.cameras))


def sightings(evidence: Evidence, chosen: Ints) -> Iterator[Sighting]:
    """One sighting a tracklet, by the time at which it was over."""
    beside: dict[int, list[int]] = {int(one): [] for one in chosen}
    for one, other in evidence.together.tolist():
        if one in beside and other in beside:
            beside[one].append(other)
            beside[other].append(one)
    for number in chosen[np.argsort(evidence.last[chosen], kind="stable")].tolist():
        edge_id, _, camera = evidence.cameras[evidence.camera[number]].partition("/")
        sighting = Sighting(
            site=evidence.site,
            edge_id=edge_id,
            camera=camera,
            tracklet_id=f"{WRITER}/{number}",
            revision=1,
            final=True,
            frame_width=1920,
            frame_height=1080,
            seen_with=[f"{WRITER}/{other}" for other in beside[number]],
        )
        seconds = (evidence.first[number], evidence.last[number])
        for field, at in zip((sighting.first_seen, sighting.last_seen), seconds, strict=True):
            field.unix_nanos = BEGIN_NS + round(float(at) * 1e9)
            field.uncertainty_ms = 5.0
            field.source = TIME_SOURCE_ARRIVAL
        rows = np.flatnonzero(evidence.tracklet == number)
        for row in rows[:: max(-(-len(rows) // MOST_SHOTS), 1)]:
            shot = sighting.shots.add(quality=0.8, detector_score=0.9)
            shot.embeddings.append(
                encode(evidence.vectors[row], space_id=evidence.space_id, variant_id="float32")
            )
        yield sighting


def associate(
    evidence: Evidence, chosen: Ints, threshold: float, published: Published | None
) -> tuple[Ints, float]:
    """The identity of each chosen tracklet as a number, and the threshold that was in force."""
    settings = AssociationConfig()
    associator = PriorAssociator(
        thresholds={},
        default_threshold=threshold,
        window_ns=round(settings.window_s * 1e9),
        uncertain_ns=round(settings.uncertain_time_ms * 1e6),
    )
    engine = Engine(
        associator=associator, salt="bench", identity_life_ns=_LIFE_NS, load_tracklet=lambda _: None
    )
    position = 0
    now_ns = BEGIN_NS
    if published is not None:
        content = published.path.read_bytes()
        body = json.dumps(entry_body(1, published.card, content)).encode()
        engine.apply(Entry(1, EntryKind.MAP, evidence.site, "", "", 0, b"", now_ns, now_ns, body))
        position = 1
    for sighting in sightings(evidence, chosen):
        position += 1
        now_ns = max(now_ns, sighting.last_seen.unix_nanos)
        engine.apply(
            Entry(
                position, EntryKind.SIGHTING, evidence.site, sighting.edge_id, WRITER, position,
                b"", now_ns, now_ns, sighting.SerializeToString(),
            )
        )  # fmt: skip
    named = [engine.live.tracklets[f"{WRITER}/{number}"].identity_id for number in chosen]
    space = evidence.space_id if published is None else published.card.space_id
    return np.unique(np.array(named), return_inverse=True)[1], associator.threshold(space)


def pairs(identity: Ints, person: Ints) -> tuple[float, float]:
    """Precision and recall of pairs of tracklets."""

    def within(groups: Ints) -> int:
        counts = np.unique(groups, return_counts=True)[1]
        return int((counts * (counts - 1) // 2).sum())

    joined, alike = within(identity), within(person)
    both = within(identity * (int(person.max()) + 1) + person)
    return both / max(joined, 1), both / max(alike, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    shared = Path(os.environ.get("REID_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument("--model", type=Path, help=f"default: {MODEL} of the shared models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1, help="of people, for each number of them")
    parser.add_argument("--cache", type=Path, help="vectors kept by bench_adapt")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    model: Path = given.model or given.shared / "models" / MODEL
    dataset = open_dataset("market1501", given.shared / "data" / "market1501.tar")
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, {model.name}")
    vectors = embed(dataset, model, given.threads, given.cache)
    site = Site(dataset, vectors, model.stem)
    judged = [*dataset.query, *dataset.gallery]
    evidence, person = replay(
        judged, np.concatenate([vectors["query"], vectors["gallery"]]), space_id=model.stem
    )
    evidence = on_a_box(evidence)
    everyone = np.unique(person[person > 0])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        published = adapt_site(on_a_box(site.evidence), Path(folder), seed=1)
        for count in PEOPLE:
            draws = [
                np.flatnonzero(np.isin(person, random.choice(everyone, count, replace=False)))
                for random in map(np.random.default_rng, range(given.draws))
            ]
            for threshold in THRESHOLDS:
                for name, site_map in (("direct", None), ("map", published)):
                    rows.append(_row(name, evidence, person, draws, threshold, site_map))
                    print(_line(rows[-1], count), flush=True)
                    rows[-1]["people"] = count
    print(json.dumps({"rows": rows, "draws": given.draws, "space": published.card.space_id}))
    return 0


def _row(
    name: str,
    evidence: Evidence,
    person: Ints,
    draws: list[Ints],
    threshold: float,
    site_map: Published | None,
) -> dict[str, Any]:
    found = []
    in_force = threshold
    for chosen in draws:
        identity, in_force = associate(evidence, chosen, threshold, site_map)
        found.append((*pairs(identity, person[chosen]), len(np.unique(identity)), len(chosen)))
    precision, recall, identities, tracklets = (
        statistics.mean(values) for values in zip(*found, strict=True)
    )
    return {
        "with": name,
        "threshold": threshold,
        "in_force": round(in_force, 3),
        "tracklets": round(tracklets),
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 3),
        "identities": round(identities),
    }


def _line(row: dict[str, Any], people: int) -> str:
    return (
        f"{people:4d} people, {row['tracklets']:5d} tracklets, {row['with']:6s} threshold "
        f"{row['threshold']:.2f} ({row['in_force']:.3f} in force)  precision {row['precision']:.2f}"
        f"  recall {row['recall']:.2f}  F1 {row['f1']:.2f}  identities {row['identities']}"
    )


if __name__ == "__main__":
    sys.exit(main())
