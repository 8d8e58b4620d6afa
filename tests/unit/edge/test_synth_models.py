"""What models trained on real people make of the rendered ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from edge.config import DetectConfig, RuntimeConfig
from edge.detect import open_detector
from edge.sources.scene import SceneParams, SynthScene, TruthBox

FRAMES = 40
STEP = 97  # frames of scene time between two looks: about six seconds
SCORE = 0.3


def overlaps(
    one: npt.NDArray[np.float64], many: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """IoU of one box with many (n, 4)."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(many[:, 2:] - many[:, :2], axis=1) + np.prod(one[2:] - one[:2])
    return np.asarray(inter / np.maximum(areas - inter, 1e-9))


def found(truth: list[TruthBox], boxes: npt.NDArray[np.float32], params: SceneParams) -> list[bool]:
    """For each person at least half visible: has a detection of its own at IoU 0.5."""
    free = np.ones(len(boxes), bool)
    hits = []
    for person in sorted(truth, key=lambda one: -one.visible):
        if person.visible < 0.5:
            break
        shares = overlaps(np.array(person.clipped(params.width, params.height)), boxes) * free
        best = int(shares.argmax()) if len(boxes) else -1
        hit = best >= 0 and bool(shares[best] >= 0.5)
        if hit:
            free[best] = False
        hits.append(hit)
    return hits


@pytest.mark.shared
def test_a_detector_trained_on_photographs_finds_the_figures(shared_dir: Path) -> None:
    model = shared_dir / "models" / "yolox_nano.onnx"
    detector = open_detector(model, RuntimeConfig(threads=1), DetectConfig())
    scene = SynthScene(SceneParams(cameras=2, people=8, seed=1))
    hits: list[bool] = []

    for look in range(FRAMES):
        camera, index = 1 + look % 2, look * STEP
        seen = detector.detect(scene.frame(camera, index))
        hits += found(scene.truth(camera, index), seen.boxes[seen.scores >= SCORE], scene.params)

    assert len(hits) >= 80
    assert np.mean(hits) >= 0.70


@pytest.mark.shared
def test_an_embedder_tells_the_figures_apart_across_cameras(shared_dir: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = shared_dir / "models" / "osnet_x0_25_msmt17_combineall.onnx"
    session = onnxruntime.InferenceSession(str(model), options)
    scene = SynthScene(SceneParams(cameras=2, people=8, seed=1))
    people: list[npt.NDArray[np.int_]] = []
    vectors: list[npt.NDArray[np.float32]] = []

    for camera in (1, 2):
        crops, names = [], []
        for index in range(0, 25 * STEP, STEP):
            frame = scene.frame(camera, index)
            for person in scene.truth(camera, index):
                if person.visible >= 0.85:
                    x1, y1, x2, y2 = (int(v) for v in person.clipped(768, 576))
                    crop = cv2.resize(frame[y1:y2, x1:x2], (128, 256))[:, :, ::-1] / 255.0
                    crops.append((crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
                    names.append(person.person)
        batch = np.array(crops, np.float32).transpose(0, 3, 1, 2)
        out = np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])
        people.append(np.array(names))
        vectors.append(out / np.linalg.norm(out, axis=1, keepdims=True))

    likeness = vectors[0] @ vectors[1].T
    same = people[0][:, None] == people[1][None]
    known = same.any(axis=1)
    first = people[1][likeness.argmax(axis=1)] == people[0]
    assert np.count_nonzero(known) >= 30
    assert first[known].mean() >= 0.9
    assert likeness[same].mean() > likeness[~same].mean() + 0.15
