"""Tracking of the box on real footage, beside two other trackers on the same detections.

    python -m benchmarks.bench_tracking --peers-python PEERS/bin/python [--shared DIR] [--keep DIR]
        [--scene "synth://street?seed=1&people=12&fps=10"]

Ours is the box's own code with its defaults: PyAV source, gate, detector, tracker, shots,
embedder, and the file that `edge-run --tracks` writes. That file has hindsight (hits before a
confirmation, gaps inside a tracklet closed); `ours_online` counts only what was said about a frame
at that frame. The others get our detections, their defaults and the clip's frame rate; BoT-SORT
also the frames and the same OSNet file. Metrics: benchmarks/tracking_metrics.py says how.

With --scene the clip is rendered by our own scene, 600 frames with exact truth: defaults that suit
one clip only would show here. People of whom less than VISIBLE is seen are not asked for.

The environment of the others (and of trackeval): benchmarks/requirements-peers.txt. Without it
the benchmark stops with exit code 2, unless trackeval is importable here: then ours is measured
alone. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from benchmarks.machine import cpu_name
from edge.config import (
    DetectConfig,
    EmbedConfig,
    GateConfig,
    RuntimeConfig,
    ShotConfig,
    TrackConfig,
)
from edge.detect.detector import Detector, open_detector
from edge.embed import Embedder, open_embedder
from edge.models_dir import find_model
from edge.pipeline import CameraPipeline, FixedModels
from edge.shots import CropBudget
from edge.sources.scene import SceneParams, SynthScene
from edge.sources.scene.video import write_video
from edge.status import BoxStatus
from edge.track.motfile import MotFile
from edge.types import CaptureTime, Detections, Floats, Frame, Image, TimeSource, TrackStep

HERE = Path(__file__).resolve().parent
CAMERA = "clip"
SCENE_FRAMES = 600
VISIBLE = 0.25


@dataclass
class RecordingDetector:
    """A detector that remembers what it found."""

    inner: Detector
    found: list[Detections] = field(default_factory=list)

    def detect(self, image: Image) -> Detections:
        detections = self.inner.detect(image)
        self.found.append(detections)
        return detections


@dataclass
class CountingEmbedder:
    """An embedder that counts crops."""

    inner: Embedder
    crops: int = 0

    @property
    def space_id(self) -> str:
        return self.inner.space_id

    def embed(self, crops: Sequence[Image]) -> Floats:
        self.crops += len(crops)
        return self.inner.embed(crops)


@dataclass(frozen=True)
class Ours:
    """What our run gave."""

    frames: int
    fps: float
    embeddings: int
    seconds: float
    detections: Path


def main() -> int:
    arguments = _arguments()
    peers = arguments.peers_python
    scorer = peers
    if peers is None or not Path(peers).exists():
        scorer = sys.executable if importlib.util.find_spec("trackeval") else None
        print(
            f"--peers-python {peers}: no such interpreter. The other trackers and trackeval live "
            "in an environment of their own: make peers makes it."
        )
        peers = None
    if scorer is None:
        print("Nothing can be scored without trackeval.", file=sys.stderr)
        return 2
    clip, truth = arguments.clip, arguments.truth
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.scene is not None:
            clip, truth = _render(arguments.scene, work)
        for needed in (clip, truth):
            if not needed.is_file():
                print(f"{needed}: no such file; --shared DIR says where the data lie")
                return 2
        embedder_path, ours = _run_ours(arguments, clip, work)
        files = {"ours": work / "ours.txt", "ours_online": work / "online.txt"}
        versions: dict[str, str] = {}
        if peers is not None:
            for name in ("bytetrack", "botsort"):
                files[name] = work / f"{name}.txt"
                versions[name] = _run_peer(peers, name, clip, embedder_path, ours, files[name])
        command = [scorer, str(HERE / "tracking_metrics.py"), "--truth", str(truth)]
        command += ["--frames", str(ours.frames)]
        command += [f"{name}={path}" for name, path in files.items()]
        scored = subprocess.run(command, check=True, capture_output=True, text=True)
        results = json.loads(scored.stdout.splitlines()[-1])
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for name, path in files.items():
                (arguments.keep / f"{name}.txt").write_bytes(path.read_bytes())

    _print_table(results, versions, ours)
    report = {
        name: {key: result[key] for key in ("hota", "idf1", "mota", "switches")}
        for name, result in results.items()
    }
    print(json.dumps(report))
    return 0


def _render(url: str, work: Path) -> tuple[Path, Path]:
    """A rendered scene as (clip, truth)."""
    params = SceneParams.parse(url)
    scene, camera = SynthScene(params), params.camera
    clip, truth = work / "scene.mkv", work / "truth.txt"
    write_video(clip, scene, camera, SCENE_FRAMES)
    with truth.open("w") as out:
        for index in range(SCENE_FRAMES):
            for one in scene.truth(camera, index):
                x1, y1, x2, y2 = one.clipped(params.width, params.height)
                asked = int(one.visible >= VISIBLE)
                box = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                out.write(f"{index + 1},{one.person},{box},{asked},1,{one.visible:.2f}\n")
    return clip, truth


def _run_ours(arguments: argparse.Namespace, clip: Path, work: Path) -> tuple[Path, Ours]:
    """Track the clip with the box's own code; leaves ours.txt, online.txt, detections.npz."""
    runtime = RuntimeConfig(threads=arguments.threads)
    models_dir = arguments.models_dir
    found = find_model(arguments.embedder, "embedder", models_dir)
    detector = RecordingDetector(
        open_detector(
            find_model(arguments.detector, "detector", models_dir), runtime, DetectConfig()
        )
    )
    embedder = CountingEmbedder(open_embedder(found, runtime, EmbedConfig()))
    tracks, online = MotFile(work / "ours.txt"), MotFile(work / "online.txt")
    pipeline = CameraPipeline(
        camera=CAMERA,
        gate=GateConfig(),
        track=TrackConfig(),
        shots=ShotConfig(),
        models=FixedModels(detector, [embedder]),
        budget=CropBudget(per_s=ShotConfig().budget_per_s),
        numbers=itertools.count(1),
        status=BoxStatus([CAMERA]),
        tracks=tracks,
    )
    rows: dict[str, list[Floats]] = {"frame": [], "box": [], "score": []}
    started_s = time.perf_counter()
    with av.open(str(clip)) as container:
        fps = float(container.streams.video[0].average_rate or 10)
        count = 0
        for index, picture in enumerate(container.decode(video=0)):
            nanos = round(index * 1e9 / fps)
            frame = Frame(
                CAMERA,
                index,
                picture.to_ndarray(format="bgr24"),
                CaptureTime(nanos, nanos, TimeSource.GIVEN, 0.0),
            )
            analysed = pipeline.process(frame)
            online.write(TrackStep(analysed.step.boxes), frame_index=index)
            here = analysed.detections
            if here is not None:
                rows["frame"].append(np.full(len(here), index + 1, np.float32))
                rows["box"].append(here.boxes)
                rows["score"].append(here.scores)
            count += 1
    pipeline.finish()
    seconds = time.perf_counter() - started_s
    tracks.close()
    online.close()
    detections = work / "detections.npz"
    stacked = {key: np.concatenate(value) for key, value in rows.items()}
    np.savez(detections, **stacked, frames=np.array(count), fps=np.array(fps))  # type: ignore[arg-type]
    return found.path, Ours(count, fps, embedder.crops, seconds, detections)


def _run_peer(python: str, name: str, clip: Path, embedder: Path, ours: Ours, out: Path) -> str:
    """Run another tracker in its own environment; its version."""
    command = [python, str(HERE / "tracking_peers.py"), name, "--out", str(out)]
    command += ["--detections", str(ours.detections)]
    command += ["--video", str(clip), "--embedder", str(embedder.resolve())]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"{name} failed in {python}:\n{ran.stderr[-2000:]}")
    return ran.stdout.splitlines()[-1]


def _print_table(
    results: dict[str, dict[str, float]], versions: dict[str, str], ours: Ours
) -> None:
    machine = f"{cpu_name()}, {os.cpu_count()} cores"
    print(
        f"{ours.frames} frames at {ours.fps:g} frames/s; {machine}; Python {sys.version.split()[0]}"
    )
    print(
        f"ours: {ours.seconds:.1f} s for decoding, detecting, tracking and embedding; "
        f"{ours.embeddings} crops embedded ({ours.embeddings / ours.frames:.2f} a frame)"
    )
    print()
    print(
        f"{'':14}{'HOTA':>7}{'IDF1':>7}{'MOTA':>7}{'switches':>10}{'FP':>7}{'FN':>7}{'ids':>6}"
        "   ignored rows not counted: IDF1  MOTA  switches"
    )
    for name, row in results.items():
        print(
            f"{name:14}{row['hota']:7.1f}{row['idf1']:7.1f}{row['mota']:7.1f}"
            f"{row['switches']:10.0f}{row['fp']:7.0f}{row['fn']:7.0f}{row['ids']:6.0f}"
            f"{row['idf1_ignoring']:34.1f}{row['mota_ignoring']:6.1f}"
            f"{row['switches_ignoring']:10.0f}   {versions.get(name, '')}"
        )
    print()


def _arguments() -> argparse.Namespace:
    root = HERE.parent
    default = Path(os.environ.get("REID_SHARED", root.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shared", type=Path, default=default)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--detector", default="yolox_nano.onnx")
    parser.add_argument("--embedder", default="osnet_x0_25_msmt17_combineall.onnx")
    parser.add_argument("--threads", type=int, default=2)
    built = HERE.parent / "build" / "peers" / "bin" / "python"  # make peers
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("REID_PEERS_PYTHON") or (str(built) if built.is_file() else None),
    )
    parser.add_argument("--scene", help="render this instead of reading a clip")
    parser.add_argument("--keep", type=Path, help="keep the files of tracks in this folder")
    arguments = parser.parse_args()
    data = arguments.shared / "data" / "pets2009_s2l1"
    arguments.clip = arguments.clip or data / "vtest.avi"
    arguments.truth = arguments.truth or data / "gt.txt"
    arguments.models_dir = arguments.models_dir or arguments.shared / "models"
    for kind in ("detector", "embedder"):
        asked = getattr(arguments, kind)
        if (arguments.models_dir / asked).is_file():
            setattr(arguments, kind, str(arguments.models_dir / asked))
    return arguments


if __name__ == "__main__":
    sys.exit(main())
