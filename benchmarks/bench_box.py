"""The whole box against the bare cost of its parts, on the same frames and crops.

    python -m benchmarks.bench_box [--clip FILE] [--models-dir DIR] [--threads N] [--repeats N]
        [--peers-python PEERS/bin/python]

Compares, with frames already in memory: the pipeline (gate, detector, tracker, shots, embedder,
tracklets, serialised sightings) with nothing but letterbox + session.run + decoding of the same
frames and resize + session.run of the very crops that the pipeline chose. The two run in turn,
block by block, so that a drift of the machine's speed meets both. ratio = bare / pipeline: 1.00
would be a pipeline that costs nothing. Then `edge-run` as a whole process on the clip: peak memory,
processor time a frame, bytes sent against bytes of H.264. With the environment of `make peers`,
what comes after detection is timed beside BoxMOT. Last line: one JSON object. The real clip and the
reference models come from REID_SHARED or ../shared, where they are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
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
from edge.sighting import SightingBuilder
from edge.sources.scene import SceneParams, SynthScene
from edge.status import BoxStatus
from edge.types import CaptureTime, Detections, Floats, Frame, Image, TimeSource

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 40  # frames of one camera in one turn


@dataclass
class Recorder:
    """An embedder that remembers which crops it was given."""

    inner: Embedder
    batches: list[list[Image]] = field(default_factory=list)

    @property
    def space_id(self) -> str:
        return self.inner.space_id

    def embed(self, crops: Sequence[Image]) -> Floats:
        self.batches.append(list(crops))
        return self.inner.embed(crops)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    cameras: int
    frames: list[list[Image]]  # one list for each camera
    fps: float


def main() -> int:
    arguments = _arguments()
    runtime = RuntimeConfig(threads=arguments.threads, backend="onnxruntime")
    detector = open_detector(
        find_model(arguments.detector, "detector", arguments.models_dir), runtime, DetectConfig()
    )
    embedder = open_embedder(
        find_model(arguments.embedder, "embedder", arguments.models_dir), runtime, EmbedConfig()
    )
    print(
        f"{cpu_name()}, {os.cpu_count()} cores, "
        f"{arguments.threads} thread(s) a session; {detector.name}, {embedder.name} "
        f"({detector.runtime}); {arguments.repeats} repeats, medians"
    )
    cases = [*_rendered(arguments.frames)]
    if arguments.clip is not None:
        frames, fps = _read(arguments.clip, arguments.frames)
        cases.insert(0, Case(arguments.clip.stem, 1, [frames], fps))
    print(f"{'input':22} {'cams':>4} {'people':>6} {'pipeline':>9} {'bare':>8} {'ratio':>6}")
    rows = []
    for case in cases:
        row = _measure(case, detector, embedder, arguments.repeats)
        rows.append(row)
        print(
            f"{row['input']:22} {row['cameras']:4d} {row['people_per_frame']:6.1f} "
            f"{row['pipeline_ms']:7.2f}ms {row['bare_ms']:6.2f}ms {row['ratio']:6.3f}"
        )
    whole = None
    if arguments.clip is not None:
        whole = _whole_process(arguments.clip, arguments.models_dir)
        print(
            f"edge-run on {arguments.clip.name} as H.264: {whole['cpu_ms_per_frame']:.1f} ms of "
            f"processor a frame, peak {whole['peak_rss_mb']:.0f} MiB, "
            f"{whole['video_in']} bytes in, {whole['wire_out']} out ({whole['ratio']:.0f} : 1)"
        )
    peer = None
    if arguments.clip is not None and arguments.peers_python is not None:
        peer = _peer(arguments, cases[0], detector, embedder)
        print(
            f"after detection, on {arguments.clip.name}: ours {peer['ours_ms']:.1f} ms a frame, "
            f"BoxMOT's BoT-SORT with the same OSNet file {peer['botsort_ms']:.1f} ms "
            f"({peer['ratio']:.1f} times)"
        )
    print(
        json.dumps({"cases": rows, "process": whole, "after_detection": peer, "goal_ratio": 0.90})
    )
    return 0


def _measure(case: Case, detector: Detector, embedder: Embedder, repeats: int) -> dict[str, float]:
    ratios, pipeline_ms, bare_ms = [], [], []
    people = 0.0
    total = sum(len(frames) for frames in case.frames)
    for repeat in range(repeats + 1):
        recorder = Recorder(embedder)
        run = _Run(case, detector, recorder)
        pipeline_s = bare_s = 0.0
        for start in range(0, max(len(frames) for frames in case.frames), BLOCK):
            recorder.batches.clear()
            started = time.perf_counter()
            for index in range(start, start + BLOCK):
                run.step(index)
            pipeline_s += time.perf_counter() - started
            batches = list(recorder.batches)
            started = time.perf_counter()
            for index in range(start, start + BLOCK):
                for frames in case.frames:
                    if index < len(frames) and run.detected[(id(frames), index)]:
                        detector.detect(frames[index])
            for batch in batches:
                embedder.embed(batch)
            bare_s += time.perf_counter() - started
        if repeat == 0:  # warm-up, not counted
            people = run.people / total
            continue
        ratios.append(bare_s / pipeline_s)
        pipeline_ms.append(pipeline_s * 1e3 / total)
        bare_ms.append(bare_s * 1e3 / total)
    return {
        "input": case.name,  # type: ignore[dict-item]
        "cameras": case.cameras,
        "people_per_frame": round(people, 2),
        "pipeline_ms": round(statistics.median(pipeline_ms), 3),
        "bare_ms": round(statistics.median(bare_ms), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "n": repeats,
    }


class _Run:
    """The pipelines of one case, with sightings serialised as the box does."""

    def __init__(
        self,
        case: Case,
        detector: Detector | _Replay,
        embedder: Recorder,
        gate: GateConfig | None = None,
    ) -> None:
        self._case = case
        names = [f"camera{i}" for i in range(case.cameras)]
        status = BoxStatus(names)
        budget = CropBudget(per_s=ShotConfig().budget_per_s)
        numbers = itertools.count(1)
        self._counted = _Counting(detector)
        self._pipelines = [
            CameraPipeline(
                camera=name,
                gate=gate or GateConfig(),
                track=TrackConfig(),
                shots=ShotConfig(),
                models=FixedModels(self._counted, [embedder]),
                budget=budget,
                numbers=numbers,
                status=status,
            )
            for name in names
        ]
        self._builder = SightingBuilder(
            site="bench",
            edge_id="bench",
            writer_id="0" * 32,
            boot_id="",
            encoding="float16",
            variants={embedder.space_id: embedder.inner.variant_id},
        )
        self.detected: dict[tuple[int, int], bool] = {}
        self.people = 0

    def step(self, index: int) -> None:
        for pipeline, frames in zip(self._pipelines, self._case.frames, strict=True):
            if index >= len(frames):
                continue
            nanos = 1_000_000_000 + round(index / self._case.fps * 1e9)
            captured = CaptureTime(nanos, nanos, TimeSource.FILE, 0.0)
            before = self._counted.calls
            analysed = pipeline.process(Frame(pipeline.camera, index, frames[index], captured))
            self.detected[(id(frames), index)] = self._counted.calls > before
            self.people += len(analysed.step.boxes)
            for tracklet in analysed.revisions:
                self._builder.build(tracklet)


class _Counting:
    """Counts calls: frames that the gate kept from the detector cost the bare parts nothing."""

    def __init__(self, inner: Detector | _Replay) -> None:
        self._inner = inner
        self.calls = 0

    def detect(self, image: Image) -> Detections:
        self.calls += 1
        return self._inner.detect(image)


def _rendered(frames: int) -> list[Case]:
    cases = []
    for people, cameras in ((2, 1), (8, 1), (16, 1), (8, 2), (8, 4)):
        url = f"synth://street?cameras={cameras}&people={people}&seed=3"
        scene = SynthScene(SceneParams.parse(url))
        each = frames // cameras
        pictures = [[scene.frame(camera + 1, i) for i in range(each)] for camera in range(cameras)]
        cases.append(Case(f"rendered, {people} people", cameras, pictures, 10.0))
    return cases


def _read(clip: Path, limit: int) -> tuple[list[Image], float]:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        pictures = [
            np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
            for frame in itertools.islice(container.decode(stream), limit)
        ]
        return pictures, float(stream.average_rate or 10)


def _peer(
    arguments: argparse.Namespace, case: Case, detector: Detector, embedder: Embedder
) -> dict[str, float]:
    """Tracking and embedding on the same detections: ours, and BoxMOT in its own environment."""
    images = case.frames[0]
    found = [detector.detect(image) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        detections = Path(folder) / "detections.npz"
        np.savez(
            detections,
            frame=np.repeat(np.arange(1, len(images) + 1), [len(each) for each in found]),
            box=np.concatenate([each.boxes for each in found]),
            score=np.concatenate([each.scores for each in found]),
            frames=len(images),
            fps=case.fps,
        )
        done = subprocess.run(
            [
                *(arguments.peers_python, Path(__file__).with_name("tracking_peers.py"), "botsort"),
                *("--detections", detections, "--out", Path(folder) / "tracks.txt"),
                *("--video", arguments.clip, "--embedder", embedder.path),
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)},
        )
    botsort_ms = float(done.stdout.split("median_ms_per_frame ")[1].split()[0])
    # The gate would leave frames out; the others get all of them.
    run = _Run(case, _Replay(found), Recorder(embedder), GateConfig(motion=False))
    times_ms = []
    for index in range(len(images)):
        started = time.perf_counter()
        run.step(index)
        times_ms.append((time.perf_counter() - started) * 1e3)
    ours_ms = statistics.median(times_ms)
    return {
        "ours_ms": round(ours_ms, 3),
        "botsort_ms": round(botsort_ms, 3),
        "ratio": round(botsort_ms / ours_ms, 2),
    }


class _Replay:
    """A detector that gives what was found before, in order."""

    def __init__(self, found: list[Detections]) -> None:
        self._found = iter(found)

    def detect(self, image: Image) -> Detections:
        return next(self._found)


def _whole_process(clip: Path, models_dir: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        encoded = Path(folder) / "clip.mp4"
        _encode(clip, encoded)
        command = [sys.executable, "-c", "from edge.cli import main; main()"]
        command += ["--source", f"clip={encoded}", "--embedded", "--summary", "json"]
        command += ["--data-dir", f"{folder}/data", "--metrics", "off", "--log", "json"]
        if models_dir is not None:
            command += ["--models-dir", str(models_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    summary = json.loads(done.stdout.splitlines()[-1])
    frames = summary["cameras"]["clip"]["frames_analysed"]
    return {
        "frames": frames,
        "cpu_ms_per_frame": round(summary["cpu_s"] * 1e3 / frames, 2),
        "wall_s": summary["wall_s"],
        "peak_rss_mb": summary["peak_rss_mb"],
        "video_in": summary["bytes"]["video_in"],
        "wire_out": summary["bytes"]["wire_out"],
        "ratio": summary["bytes"]["ratio"],
    }


def _encode(clip: Path, target: Path) -> None:
    with av.open(str(clip)) as reading, av.open(str(target), "w") as writing:
        source = reading.streams.video[0]
        stream = writing.add_stream("libx264", rate=source.average_rate)
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
        stream.options = {"preset": "veryfast", "bf": "0", "g": "20"}
        for frame in reading.decode(source):
            frame.pict_type = 0
            writing.mux(stream.encode(frame))
        writing.mux(stream.encode(None))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, help="a real clip, beside the rendered ones")
    parser.add_argument(
        "--models-dir", type=Path, default=os.environ.get("EDGE_MODELS_DIR") or None
    )
    parser.add_argument("--detector", default="default")
    parser.add_argument("--embedder", default="default")
    parser.add_argument("--peers-python", help="of benchmarks/requirements-peers.txt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    shared = Path(os.environ.get("REID_SHARED") or ROOT.parent / "shared")
    clip = shared / "data" / "pets2009_s2l1" / "vtest.avi"
    if arguments.clip is None and clip.is_file():
        arguments.clip = clip
    if arguments.models_dir is None and (shared / "models").is_dir():
        arguments.models_dir = shared / "models"
    elif arguments.models_dir is not None:
        arguments.models_dir = Path(arguments.models_dir)
    peers = ROOT / "build" / "peers" / "bin" / "python"
    if arguments.peers_python is None and peers.is_file():
        arguments.peers_python = str(peers)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
