"""How alike one person and two people look to an embedder: where the matcher's threshold may lie.

    python -m benchmarks.space_similarity MODEL --data PATH --protocol NAME [--images N]

All images of query and gallery of one person and camera, at most N, become one vector, as a
tracklet's shots do (mean of unit vectors). Compared are vectors of two cameras: cosine similarity
of one person, and of two people. For some small shares of two people's pairs it prints the
threshold that lets them pass, and the share of one person's pairs that pass too; the last row is
the matcher's own threshold (--threshold). The set must hold
people and cameras that the model has not seen, or the thresholds come out too low; it is refused
where the card says so, unless --trained-on-this. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matcher.config import AssociationConfig
from models.data.readers import open_dataset
from models.evaluate import embed_samples, open_model, refuse_trained_people

PASSING = (0.02, 0.01, 0.005, 0.0025, 0.001)  # shares of two people's pairs
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    model = open_model(arguments.model, threads=arguments.threads)
    dataset = open_dataset(arguments.protocol, arguments.data)
    if not arguments.trained_on_this:
        refuse_trained_people(model, dataset)
    groups: dict[tuple[int, int], list[int]] = {}
    samples = [sample for sample in (*dataset.query, *dataset.gallery) if sample.person > 0]
    for index, sample in enumerate(samples):
        taken = groups.setdefault((sample.person, sample.camera), [])
        if len(taken) < arguments.images:
            taken.append(index)
    chosen = [index for taken in groups.values() for index in taken]
    features = embed_samples(model, dataset, [samples[index] for index in chosen])
    place = {index: row for row, index in enumerate(chosen)}
    vectors = np.stack(
        [features[[place[index] for index in taken]].mean(0) for taken in groups.values()]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.array(list(groups), np.int64)
    one, two = similarities(vectors, names[:, 0], names[:, 1])

    print(f"{arguments.model.name} on {dataset.name}: vectors of up to {arguments.images} images")
    print(f"one person, two cameras: {one.mean():.3f} ± {one.std():.3f} ({len(one)} pairs)")
    print(f"two people, two cameras: {two.mean():.3f} ± {two.std():.3f} ({len(two)} pairs)")
    print(f"{'two people pass':>16}{'threshold':>11}{'one person passes':>19}")
    told = []
    thresholds = [float(np.quantile(two, 1 - share)) for share in PASSING]
    for threshold in (*thresholds, arguments.threshold):
        share = float((two >= threshold).mean())
        passes = float((one >= threshold).mean())
        print(f"{share:>16.2%}{threshold:>11.3f}{passes:>19.1%}")
        told.append({"two_pass": share, "threshold": round(threshold, 4), "one_pass": passes})
    print(
        json.dumps(
            {
                "benchmark": "space_similarity",
                "model": arguments.model.name,
                "space_id": model.embedder.space_id,
                "set": dataset.name,
                "one": [round(float(one.mean()), 4), round(float(one.std()), 4), len(one)],
                "two": [round(float(two.mean()), 4), round(float(two.std()), 4), len(two)],
                "thresholds": told,
            }
        )
    )
    return 0


def similarities(vectors: Floats, people: Ints, cameras: Ints) -> tuple[Floats, Floats]:
    """Cosines of pairs from two cameras: (of one person, of two people).

    Args:
        vectors: (n, d) unit rows. people, cameras: (n,).
    """
    first, second = np.triu_indices(len(vectors), 1)
    apart = cameras[first] != cameras[second]
    first, second = first[apart], second[apart]
    found = (vectors @ vectors.T)[first, second]
    same = people[first] == people[second]
    return found[same], found[~same]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--protocol", required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threshold", type=float, default=AssociationConfig().default_threshold)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trained-on-this", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
