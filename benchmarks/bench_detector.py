"""Our person detector against YOLOX-nano, on the same pictures in one run.

    python -m benchmarks.bench_detector [--shared DIR] [--ours FILE] [--wide FILE] [--other FILE]
                                        [--threads N] [--every N] [--scenes N | --rendered TAR]

Sets: PETS2009 S2.L1 (test only, its truth's rows to ignore are ignored), the part of persondet
that training leaves out (last fifth of every source, cafe_highview whole), the rendered street
with seeds that training does not use, and of the last two once more the pictures near 16:9, which
our 416x256 file is made for. All detectors run through the box's own code. Figures: recall at
precision 0.9 and AP at IoU 0.5, also by height of person in pixels of the picture; then
milliseconds a frame, letterbox to suppression, the detectors taking turns on PETS frames.
Without DIR only the rendered street is judged, and only ours. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

from edge.detect.detector import Detector
from models.detector_rendered import render
from models.evaluate_detector import Scene, judge, open_judged, scenes

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "models" / "weights" / "detector_person_416.onnx"
_RENDERED_PER_SCENE = 6
_LEAST_WIDE = 1.6  # width by height of a picture near 16:9
_TIMED = 60  # frames a detector


def pets_scenes(folder: Path, every: int) -> list[Scene]:
    """Every n-th frame of the PETS clip with its truth (MOTChallenge; column 7 = 0: ignore)."""
    rows = np.loadtxt(folder / "gt.txt", delimiter=",", usecols=range(7), dtype=np.float64)
    found: list[Scene] = []
    with av.open(str(folder / "vtest.avi")) as container:
        for number, frame in enumerate(container.decode(video=0), 1):
            if (number - 1) % every:
                continue
            of_frame = rows[rows[:, 0] == number]
            boxes = of_frame[:, 2:6].astype(np.float32)
            boxes[:, 2:] += boxes[:, :2]
            counts = of_frame[:, 6] != 0
            image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
            found.append((image, boxes[counts], boxes[~counts]))
    return found


def rendered_scenes(count: int) -> list[Scene]:
    """Pictures of the rendered street, seeds 1 to count."""
    pictures = [p for seed in range(1, count + 1) for p in render(seed, _RENDERED_PER_SCENE)]
    return [(p.decode(), p.boxes, p.ignore) for p in pictures]


def _is_wide(scene: Scene) -> bool:
    height, width = scene[0].shape[:2]
    return bool(width >= _LEAST_WIDE * height)


def timed(detectors: dict[str, Detector], pictures: list[Scene]) -> dict[str, dict[str, float]]:
    """Milliseconds a frame, the detectors taking turns frame by frame; p50 and p95."""
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for number, (image, _, _) in enumerate(pictures[: _TIMED + 5]):
        for name, detector in detectors.items():
            start = time.perf_counter()
            detector.detect(image)
            if number >= 5:
                times[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {
            "p50": round(statistics.median(values), 2),
            "p95": round(float(np.percentile(values, 95)), 2),
        }
        for name, values in times.items()
    }


def main() -> int:
    arguments = _arguments()
    shared: Path | None = arguments.shared if arguments.shared.is_dir() else None
    detectors = {"ours": open_judged(arguments.ours, arguments.threads)}
    wide: Path = arguments.wide or arguments.ours.with_name(f"{arguments.ours.stem}x256.onnx")
    if arguments.wide is not None or wide.exists():
        detectors["ours_wide"] = open_judged(wide, arguments.threads)
    if shared is not None or arguments.other is not None:
        other = arguments.other or shared / "models" / "yolox_nano.onnx"  # type: ignore[operator]
        detectors["yolox_nano"] = open_judged(other, arguments.threads)
    sets: dict[str, list[Scene]] = {}
    if shared is not None:
        sets["pets2009"] = pets_scenes(shared / "data" / "pets2009_s2l1", arguments.every)
        sets["held_out"] = scenes(shared / "data" / "persondet", "held-out")
    if arguments.rendered is not None:
        sets["rendered"] = scenes(arguments.rendered)
    else:
        sets["rendered"] = rendered_scenes(arguments.scenes)
    near = [s for name in ("held_out", "rendered") for s in sets.get(name, []) if _is_wide(s)]
    if near:
        sets["wide"] = near

    print(f"machine: {_processor()}, {os.cpu_count()} cores; threads of a session:", end=" ")
    print(f"{arguments.threads}; onnxruntime {onnxruntime.__version__}")
    head = f"{'set':<10} {'detector':<22} {'images':>6} {'people':>6} {'R@P.9':>6} {'AP50':>6}"
    print(head + "   R@P.9 / AP50 of people < 32, 32-96, > 96 px")
    result: dict[str, Any] = {}
    for name, pictures in sets.items():
        result[name] = {}
        for who, detector in detectors.items():
            found = judge(detector, pictures, label=f"{name}, {detector.name}")
            result[name][who] = found
            print(_row(name, detector.name, found))
    times = timed(detectors, next(iter(sets.values())))
    for who, values in times.items():
        size = f"{detectors[who].input.width}x{detectors[who].input.height}"
        print(f"{detectors[who].name:<22} {size} p50 {values['p50']} ms, p95 {values['p95']} ms")
        for judged in result.values():
            judged[who]["ms"] = values["p50"]
    print(
        json.dumps(
            {
                "benchmark": "detector",
                "machine": _processor(),
                "threads": arguments.threads,
                "models": {who: detector.name for who, detector in detectors.items()},
                "ms": times,
                "sets": result,
            }
        )
    )
    return 0


def _row(name: str, detector: str, found: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "   -" if value is None else f"{value:.3f}"

    bands = "  ".join(f"{share(b['recall'])}/{share(b['ap50'])}" for b in found["bands"].values())
    return (
        f"{name:<10} {detector:<22} {found['images']:>6} {found['people']:>6} "
        f"{share(found['recall']):>6} {share(found['ap50']):>6}   {bands}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--ours", type=Path, default=OURS, help="detector to judge")
    parser.add_argument("--wide", type=Path, help="ours at 416x256; default: beside --ours")
    parser.add_argument("--other", type=Path, help="to compare with; default: shared YOLOX-nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="every n-th frame of PETS2009")
    parser.add_argument("--scenes", type=int, default=10, help="rendered scenes")
    parser.add_argument(
        "--rendered", type=Path, help="of models.detector_rendered, instead of rendering now"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
