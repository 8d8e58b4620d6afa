"""One network, five ways to run it: crops/s, and the cosine of each way's vectors to torch's.

    python -m benchmarks.bench_embed [--checkpoint FILE.pth] [--threads N] [--batch N] [--repeats N]

Compares torch, ONNX Runtime and OpenVINO with their defaults on the plain export, with the box's
own embedder on the same file, float and int8. Not by default are the number of threads, which is
the same for all, and OpenVINO's precision, float: by itself it takes bfloat16 where the processor
has it. torch, ONNX Runtime and OpenVINO get crops already resized and normalised; the box's
embedder is given crops and does that work too.
Crops are of rendered people. Without --checkpoint the weights are random (seeded): speed does not
depend on them, and cosines compare the same weights. The ways run in turn, block by block, so that
a drift of the machine's speed meets all. Every answer is checked before it is timed. Last line: one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.machine import cpu_name
from edge.config import EmbedConfig, RuntimeConfig
from edge.embed import Embedder, open_embedder
from edge.preprocess import Planes
from edge.runtime import have_openvino
from edge.sources.scene import SceneParams, SynthScene
from models import checkpoints
from models.describe import describe, input_spec, write_model
from models.export import to_onnx
from models.int8 import int8_content
from models.osnet import Architecture, OSNet
from models.ranking import row_cosines
from reid.card import InputSpec, ModelFile

Rows = NDArray[np.float32]
MIN_COSINE = 0.999  # of a float way; int8 is told, not bound
CALIBRATION = 64


def main(command: Sequence[str] | None = None) -> int:
    """Print the comparison; 1: a way disagrees with torch, 2: the checkpoint cannot be used."""
    arguments = _arguments(command)
    torch.set_num_threads(arguments.threads)
    try:
        network, height, width = _network(arguments.checkpoint)
    except checkpoints.CheckpointError as error:
        print(error, file=sys.stderr)
        return 2
    crops = rendered_crops(CALIBRATION + arguments.batch)
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    if have_openvino():
        versions["openvino"] = version("openvino")
    batch, spec = crops[: arguments.batch], input_spec(height, width)
    ready = _prepared(batch, spec)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(ready)).numpy()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        content = to_onnx(network, height, width)
        ways: dict[str, Callable[[], Rows]] = {
            "torch": _torch_way(network, ready),
            "onnxruntime": _onnxruntime_way(content, ready, arguments.threads),
        }
        if "openvino" in versions:
            ways["openvino"] = _openvino_way(content, ready, arguments.threads)
        own = _box_embedder(content, path, spec, arguments)
        ways["ours float"] = lambda: own.embed(batch)
        int8 = int8_content(path, own, crops[arguments.batch :])
        own8 = _box_embedder(int8.content, Path(folder) / "int8.onnx", spec, arguments)
        ways["ours int8"] = lambda: own8.embed(batch)

        cosines = {name: row_cosines(way(), wanted) for name, way in ways.items()}
        for name, found in cosines.items():
            if "int8" not in name and not found.min() >= MIN_COSINE:
                print(f"{name} disagrees with torch: cosine {found.min():.5f}", file=sys.stderr)
                return 1
        times = _timed(ways, arguments.repeats)

    facts = {
        "benchmark": "bench_embed",
        "network": str(network.arch),
        "input": [height, width],
        "weights": arguments.checkpoint or "random, seeded",
        "cpu": cpu_name(),
        "threads": arguments.threads,
        "batch": arguments.batch,
        "repeats": arguments.repeats,
        "versions": versions,
        "int8_kept_float": list(int8.kept_float),
    }
    for name, value in facts.items():
        print(f"{name}: {value}")
    heads = ("crops/s", "ms p50", "p95", "max", "cosine mean", "min")
    print(f"\n{'way':<14}" + "".join(f"{head:>13}" for head in heads))
    ways_json = {}
    for name, spent in times.items():
        middle = statistics.median(spent)
        row = {
            "crops_per_s": round(arguments.batch / middle, 1),
            "ms_p50": round(1e3 * middle, 3),
            "ms_p95": round(1e3 * float(np.percentile(spent, 95)), 3),
            "ms_max": round(1e3 * max(spent), 3),
            "cosine_mean": round(float(cosines[name].mean()), 5),
            "cosine_min": round(float(cosines[name].min()), 5),
        }
        ways_json[name] = row
        print(f"{name:<14}" + "".join(f"{value:>13}" for value in row.values()))
    ratio = statistics.median(times["onnxruntime"]) / statistics.median(times["ours float"])
    print(f"ours float / onnxruntime default (which gets prepared crops): {ratio:.2f}")
    print(json.dumps(facts | {"ways": ways_json, "ratio": round(ratio, 3)}))
    return 0


def rendered_crops(count: int) -> list[NDArray[np.uint8]]:
    """Crops of rendered people, BGR, at the sizes that they have in the picture."""
    scene = SynthScene(SceneParams.parse("synth://street?cameras=2&people=12&seed=3"))
    crops: list[NDArray[np.uint8]] = []
    for index in range(0, 2000, 20):
        for camera in (1, 2):
            frame = scene.frame(camera, index)
            for truth in scene.truth(camera, index):
                x1, y1, x2, y2 = (max(round(v), 0) for v in truth.box)
                if truth.visible > 0.7 and y2 - y1 >= 40 and x2 - x1 >= 12:
                    crops.append(np.ascontiguousarray(frame[y1:y2, x1:x2]))
            if len(crops) >= count:
                return crops[:count]
    raise RuntimeError(f"the scene shows only {len(crops)} people large enough, {count} wanted")


def _network(checkpoint: str | None) -> tuple[OSNet, int, int]:
    if checkpoint is None:
        torch.manual_seed(0)
        network = OSNet(Architecture(width=0.25, normalisation="ain", neck=True))
        network.train()
        with torch.no_grad():
            for _ in range(3):  # norms that have seen data keep the ranges of int8 sensible
                network(torch.randn(8, 3, 128, 64))
        return network.eval(), 256, 128
    path = Path(checkpoint)
    height, width = checkpoints.input_size(checkpoints.read(path), path) or (256, 128)
    return checkpoints.load(path), height, width


def _prepared(crops: list[NDArray[np.uint8]], spec: InputSpec) -> Rows:
    planes = Planes(spec)
    ready = np.empty((len(crops), 3, spec.height, spec.width), np.float32)
    for slot, crop in enumerate(crops):
        scaled = cv2.resize(crop, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
        planes.write(scaled.astype(np.uint8, copy=False), ready[slot])
    return ready


def _torch_way(network: OSNet, ready: Rows) -> Callable[[], Rows]:
    images = torch.from_numpy(ready)

    def run() -> Rows:
        with torch.inference_mode():
            found: Rows = network(images).numpy()
        return found

    return run


def _onnxruntime_way(content: bytes, ready: Rows, threads: int) -> Callable[[], Rows]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options)

    def run() -> Rows:
        found: Rows = session.run(None, {"images": ready})[0]
        return found

    return run


def _openvino_way(content: bytes, ready: Rows, threads: int) -> Callable[[], Rows]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(content, b""), "CPU", settings)

    def run() -> Rows:
        found: Rows = compiled({"images": ready})[0]
        return found

    return run


def _box_embedder(
    content: bytes, path: Path, spec: InputSpec, arguments: argparse.Namespace
) -> Embedder:
    card = describe(
        content,
        path,
        name=path.stem,
        spec=spec,
        space_id="bench",
        variant_id=path.stem,
        training_data=(),
    )
    write_model(content, card, path)
    return open_embedder(
        ModelFile(path, card),
        RuntimeConfig(threads=arguments.threads),
        EmbedConfig(max_batch=min(arguments.batch, 64)),
    )


def _timed(ways: dict[str, Callable[[], Rows]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            way()  # the caches of the way before are not this way's fault
            begin = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - begin)
    return times


def _arguments(command: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", help="ours or torchreid's; default: random weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=40)
    return parser.parse_args(command)


if __name__ == "__main__":
    sys.exit(main())
