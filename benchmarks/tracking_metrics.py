"""HOTA, CLEAR and Identity of a file of tracks, by trackeval (MOTChallenge's own code).

    python tracking_metrics.py --truth gt.txt --frames N NAME=FILE...

Runs alone, in whatever environment has trackeval; prints one JSON object {NAME: {...}}.

Protocol: IoU 0.5; the metrics' own code on data prepared as trackeval prepares MOT15 (this truth
has no classes): rows of the truth marked 0 in column 7 are left out, whatever was tracked there
counts as a false positive. `*_ignoring` are the same figures when tracks matched to such a row are
left out as well, as from MOT16 on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from trackeval.metrics import CLEAR, HOTA, Identity

MATCH_IOU = 0.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("files", nargs="+", metavar="NAME=FILE")
    arguments = parser.parse_args()
    truth = read(arguments.truth)
    results = {}
    for item in arguments.files:
        name, _, file = item.partition("=")
        tracks = read(Path(file))
        result = score(truth, tracks, arguments.frames, ignoring=False)
        lenient = score(truth, tracks, arguments.frames, ignoring=True)
        results[name] = result | {f"{key}_ignoring": value for key, value in lenient.items()}
    print(json.dumps(results))


def read(path: Path) -> np.ndarray[Any, Any]:
    """MOTChallenge text -> (n, >= 7): frame, id, left, top, width, height, mark."""
    if path.stat().st_size == 0:
        return np.zeros((0, 10))
    return np.loadtxt(path, delimiter=",", ndmin=2)


def score(
    truth: np.ndarray[Any, Any], tracks: np.ndarray[Any, Any], frames: int, *, ignoring: bool
) -> dict[str, float]:
    """Percentages and counts of one file of tracks."""
    data = prepare(truth, tracks, frames, ignoring=ignoring)
    quiet = {"PRINT_CONFIG": False}
    hota = HOTA().eval_sequence(data)
    clear = CLEAR(quiet).eval_sequence(data)
    identity = Identity(quiet).eval_sequence(data)
    return {
        "hota": round(100 * float(np.mean(hota["HOTA"])), 1),
        "idf1": round(100 * float(identity["IDF1"]), 1),
        "mota": round(100 * float(clear["MOTA"]), 1),
        "switches": int(clear["IDSW"]),
        "fp": int(clear["CLR_FP"]),
        "fn": int(clear["CLR_FN"]),
        "ids": int(data["num_tracker_ids"]),
    }


def prepare(
    truth: np.ndarray[Any, Any], tracks: np.ndarray[Any, Any], frames: int, *, ignoring: bool
) -> dict[str, Any]:
    """What trackeval's metrics take."""
    truth_rank = {v: i for i, v in enumerate(sorted(set(truth[truth[:, 6] != 0, 1])))}
    gt_ids, track_ids, similarity = [], [], []
    for frame in range(1, frames + 1):
        real, seen = truth[truth[:, 0] == frame], tracks[tracks[:, 0] == frame]
        overlap = iou(real[:, 2:6], seen[:, 2:6])
        keep = np.ones(len(seen), bool)
        counts = real[:, 6] != 0
        if ignoring:
            enough = np.where(overlap >= MATCH_IOU - np.finfo(float).eps, overlap, 0.0)
            for row, column in zip(*linear_sum_assignment(-enough), strict=True):
                if enough[row, column] > 0 and not counts[row]:
                    keep[column] = False
        gt_ids.append(np.array([truth_rank[v] for v in real[counts, 1]], int))
        track_ids.append(seen[keep, 1])
        similarity.append(overlap[counts][:, keep])
    rank = {v: i for i, v in enumerate(sorted(set(np.concatenate(track_ids))))}
    numbered = [np.array([rank[v] for v in ids], int) for ids in track_ids]
    return {
        "num_timesteps": frames,
        "num_gt_ids": len(truth_rank),
        "num_tracker_ids": len(rank),
        "num_gt_dets": sum(map(len, gt_ids)),
        "num_tracker_dets": sum(map(len, numbered)),
        "gt_ids": gt_ids,
        "tracker_ids": numbered,
        "similarity_scores": similarity,
    }


def iou(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """IoU of left top width height boxes, (n, 4) and (m, 4) -> (n, m)."""
    a, b = first[:, None], second[None]
    end = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    inter = np.clip(end - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=2)
    union = a[..., 2:].prod(axis=2) + b[..., 2:].prod(axis=2) - inter
    return np.asarray(inter / np.maximum(union, 1e-9))


if __name__ == "__main__":
    main()
