"""Other trackers on detections that were made once: a program of its own, in its own environment.

    python tracking_peers.py bytetrack|botsort --detections FILE.npz --out TRACKS.txt
        [--video FILE --embedder OSNET.onnx]

Detections: arrays frame (n,) from 1, box (n, 4) x1 y1 x2 y2, score (n,), frames, fps.
ByteTrack is Roboflow's `trackers`, BoT-SORT is BoxMOT's with the given OSNet; both with their own
defaults and the clip's frame rate. Prints the versions that ran.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Rows = list[tuple[int, int, Array]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tracker", choices=["bytetrack", "botsort"])
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--embedder", type=Path)
    arguments = parser.parse_args()
    with np.load(arguments.detections) as stored:
        data = {key: stored[key] for key in stored.files}
    frames, fps = int(data["frames"]), float(data["fps"])
    if arguments.tracker == "bytetrack":
        rows = bytetrack(data, frames, fps)
        print(f"trackers {version('trackers')}")
    else:
        if arguments.video is None or arguments.embedder is None:
            parser.error("botsort needs --video and --embedder")
        rows = botsort(data, fps, pictures(arguments.video), arguments.embedder)
        print(f"boxmot {version('boxmot')}")
    with arguments.out.open("w") as out:
        for frame, number, (x1, y1, x2, y2) in rows:
            left_top = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
            out.write(f"{frame},{number},{left_top},1,-1,-1,-1\n")


def bytetrack(data: dict[str, Array], frames: int, fps: float) -> Rows:
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(frame_rate=fps)
    rows: Rows = []
    for frame in range(1, frames + 1):
        here = data["frame"] == frame
        found = tracker.update(
            supervision.Detections(
                xyxy=data["box"][here],
                confidence=data["score"][here],
                class_id=np.zeros(int(here.sum()), int),
            )
        )
        for box, number in zip(found.xyxy, found.tracker_id, strict=True):
            if number >= 0:
                rows.append((frame, int(number), box))
    return rows


def botsort(data: dict[str, Array], fps: float, images: Iterator[Array], embedder: Path) -> Rows:
    from boxmot import BotSort

    tracker = BotSort(reid_weights=str(embedder), device="cpu", frame_rate=round(fps))
    rows: Rows = []
    times_ms = []
    for frame, image in enumerate(images, start=1):
        if frame > int(data["frames"]):
            break
        here = data["frame"] == frame
        count = int(here.sum())
        detections = np.concatenate(
            [data["box"][here], data["score"][here, None], np.zeros((count, 1))], axis=1
        )
        started_s = time.perf_counter()
        found = np.asarray(tracker.update(detections, image))
        times_ms.append((time.perf_counter() - started_s) * 1e3)
        for row in found:
            rows.append((frame, int(row[4]), row[:4]))
    print(f"median_ms_per_frame {statistics.median(times_ms):.3f}")
    return rows


def pictures(video: Path) -> Iterator[Array]:
    import av

    with av.open(str(video)) as container:
        for picture in container.decode(video=0):
            yield picture.to_ndarray(format="bgr24")


if __name__ == "__main__":
    main()
